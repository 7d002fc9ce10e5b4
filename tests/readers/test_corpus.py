"""The corpus of the fuzzers: seeds of every format, and every input that ever broke a reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmark_scripts import script

FUZZER = script("fuzz_readers")
CORPUS = Path(__file__).resolve().parents[1] / "corpus"
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def test_seeds_are_what_the_fuzzer_simulates() -> None:
    simulated = FUZZER.simulated()
    kept = {path.name: path for path in FILES if path.parent.name != "broke"}
    # Other versions of the libraries write other bytes.
    assert kept.keys() <= simulated.keys()
    assert sum(path.stat().st_size for path in FILES) < 2**20


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A process that reads, apart: what takes too long or too much is stopped, and fails its own test."""
    with pytest.MonkeyPatch.context() as patch:
        # Where the new process finds the script.
        patch.syspath_prepend(Path(FUZZER.__file__).parent)
        worker = FUZZER.Worker(str(tmp_path_factory.mktemp("corpus")), 700 * 2**20)
        yield worker
        worker.stop()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_rows_or_our_errors_within_the_bounds(path: Path, reader: Any) -> None:
    outcomes, problem = reader.read(path.name, path.read_bytes(), 20.0)
    assert problem is None
    assert outcomes
