"""The corpus of the fuzzers: seeds of every format, and every input that ever broke a reader."""

from __future__ import annotations

import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from benchmark_scripts import script

from transientnet.errors import TransientnetError

FUZZER = script("fuzz_readers")
CORPUS = Path(__file__).resolve().parents[1] / "corpus"
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def test_seeds_are_what_the_fuzzer_simulates() -> None:
    simulated = FUZZER.simulated()
    kept = {path.name: path for path in FILES if path.parent.name != "broke"}
    # Other versions of the libraries write other bytes.
    assert kept.keys() <= simulated.keys()
    assert sum(path.stat().st_size for path in FILES) < 2**20


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_rows_or_our_errors_in_bounded_time(path: Path) -> None:
    before = time.process_time()
    with warnings.catch_warnings(), suppress(TransientnetError):
        warnings.simplefilter("ignore")
        FUZZER.read(str(path), path.name)
    # Of the processor: a busy machine is no hang.
    assert time.process_time() - before < 20
