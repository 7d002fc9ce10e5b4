"""Damaged files of every kind: a flagged row or one of our errors, and nothing else.

`benchmarks/fuzz_readers.py` does the same at length, and watches memory and time too.
"""

from __future__ import annotations

import random
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from benchmark_scripts import script
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transientnet.errors import TransientnetError

FUZZER = script("fuzz_readers")
SEEDS: dict[str, bytes] = FUZZER.simulated()
POOL = list(SEEDS.values())


def test_seeds_are_of_every_kind_and_the_same_every_time() -> None:
    kinds = (".fits", ".fz", ".gz", ".avro", ".npy", ".npz", "catalog.csv", "catalog.xml", "candidates.ecsv")
    for kind in (*kinds, "frame.fits", "layout.toml"):
        assert any(name.endswith(kind) for name in SEEDS), kind
    assert FUZZER.simulated() == SEEDS


@pytest.mark.parametrize("name", sorted(SEEDS))
@given(seed=st.integers(0, 2**32))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_gives_rows_or_our_errors(tmp_path: Path, name: str, seed: int) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(FUZZER.mutate(SEEDS[name], random.Random(seed), POOL))
    with warnings.catch_warnings(), suppress(TransientnetError):
        warnings.simplefilter("ignore")
        assert set(FUZZER.read(str(path), name)) <= {"triplet", "unreadable row", "catalogue", "layout"}


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_seeds_themselves_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(SEEDS[name])
    found = FUZZER.read(str(path), name)
    # The stamps that a table names are not there.
    assert ("unreadable row" in found) == name.startswith("candidates.")
