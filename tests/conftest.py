"""Fixtures shared by all rooms' tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two processes share the cores: a thread with nothing to do must not keep one busy by waiting for work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real survey data kept beside the checkout; absent on most machines."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real survey data at {SHARED_DATA}")
    return SHARED_DATA
