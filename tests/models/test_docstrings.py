"""The examples in the docstrings run, offline, on the bundled weights."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from transientnet.models import classifier
from transientnet.models.registry import resolve


@pytest.mark.parametrize("module", [classifier, resolve])
def test_examples_run(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSIENTNET_OFFLINE", "1")
    monkeypatch.delenv("TRANSIENTNET_REGISTRY", raising=False)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert not result.failed
