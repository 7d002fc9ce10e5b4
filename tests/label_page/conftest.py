"""A labelling run on simulated stamps, and its server without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import save
from label_requests import TOKEN, Answered, ask

from transientnet import load_model
from transientnet.label_page.candidates import Candidates, Judgement
from transientnet.label_page.journal import Journal
from transientnet.label_page.session import Session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Candidates]:
    folder = tmp_path_factory.mktemp("candidates")
    save(folder)
    found = Candidates([str(folder / "s.npz")], folder, {})
    yield found
    found.close()


@pytest.fixture(scope="module")
def judgement(candidates: Candidates) -> Judgement:
    return candidates.judge(load_model("realbogus", threads=1))


@pytest.fixture
def session(candidates: Candidates, judgement: Judgement, tmp_path: Path) -> Iterator[Session]:
    journal = Journal(tmp_path / "my.csv")
    found = Session(candidates, journal, ["bogus", "real"], 0.2)
    found.use(judgement)
    yield found
    journal.close()


@pytest.fixture
def page(session: Session) -> Any:
    """The application, as a server would call it."""
    pytest.importorskip("starlette")
    from transientnet.label_page.app import Options, make_app
    from transientnet.label_page.training import Training

    table = session.journal.table
    return make_app(session, Training(table, "realbogus", table.parent / "model"), TOKEN, Options("my.csv"))


@pytest.fixture
def client(page: Any) -> Callable[..., Answered]:
    """Send one request, the bytes of path and headers as they are."""
    return lambda *given, **more: asyncio.run(ask(page, *given, **more))
