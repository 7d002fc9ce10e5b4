"""Memory: a bound per file and per batch that holds when measured, and rows where it does not suffice."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from transientnet import Predictions, QualityFlag, Triplet, classify, open_triplets
from transientnet.errors import ReadError
from transientnet.files.tables import open_table
from transientnet.models.classifier import Classifier, load_model
from transientnet.readers.open import Reading
from transientnet.scoring.batches import batches
from transientnet.scoring.classify import score_inputs, score_triplets
from transientnet.settings import memory_limit

ROOT = Path(__file__).parents[2]
#: Scores files, and says how much memory that took beyond what was there before: megabytes.
MEASURE = """
import importlib, resource, sys
for library in ("h5py", "pyarrow.parquet"):
    try:
        importlib.import_module(library)
    except ImportError:
        pass
from transientnet import classify, load_model
model = load_model("realbogus", threads=1)
classify(["first.npy"], model=model, workers=1)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
table = classify(sys.argv[1:], model=model, workers=2)
print(peak() - before, len(table), sum(table.quality & 1))
"""


def fits_bytes(pixels: np.ndarray, **cards: float) -> bytes:
    file = io.BytesIO()
    fits.PrimaryHDU(pixels, fits.Header(cards)).writeto(file)
    return file.getvalue()


def measured(folder: Path, *names: str, memory: int) -> tuple[int, int, int]:
    np.save(folder / "first.npy", np.random.default_rng(0).normal(100, 5, (3, 31, 31)))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *names], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TRANSIENTNET_MEMORY": str(memory)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peak, rows, unreadable = map(int, done.stdout.split())
    return peak, rows, unreadable


def avro(path: Path, cutout: bytes, records: int, codec: str = "null") -> None:
    fastavro = pytest.importorskip("fastavro")
    fields = [{"name": f"cutout{c}", "type": "bytes"} for c in ("Science", "Template", "Difference")]
    schema = {"type": "record", "name": "alert", "fields": [{"name": "candid", "type": "long"}, *fields]}
    with open(path, "wb") as file:
        rows = ({"candid": n, **{item["name"]: cutout for item in fields}} for n in range(records))
        fastavro.writer(file, schema, rows, codec=codec)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured as Linux counts it")
def test_many_large_cutouts_stay_within_the_bound(tmp_path: Path) -> None:
    # Each of 8 MB, the most that 128 MB allow for: 20 candidates hold 480 MB.
    pixels = (np.arange(1020 * 1020) % 97).reshape(1020, 1020).astype(np.float64)
    avro(tmp_path / "large.avro", gzip.compress(fits_bytes(pixels), 1), 20)
    # Each of 64 MB: refused.
    avro(tmp_path / "huge.avro", gzip.compress(fits_bytes(np.zeros((4096, 4095), np.float32)), 1), 4)
    peak, rows, unreadable = measured(tmp_path, "large.avro", "huge.avro", memory=128)
    assert (rows, unreadable) == (24, 4)
    assert peak < 128 + 32


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured as Linux counts it")
def test_what_a_small_file_unpacks_to_stays_within_the_bound(tmp_path: Path) -> None:
    for name, kind in (("bomb", np.float32), ("scaled", np.uint8)):
        cube = np.zeros((3, 4000, 4000), kind)
        raw = fits_bytes(cube, **({"BSCALE": 1.5, "BZERO": 7.0} if name == "scaled" else {}))
        (tmp_path / f"{name}.fits.gz").write_bytes(gzip.compress(raw, 1))
    stack = (np.arange(200 * 3 * 100 * 100) % 97).reshape(200, 3, 100, 100).astype(np.float32)
    (tmp_path / "sound.fits.gz").write_bytes(gzip.compress(fits_bytes(stack), 1))
    peak, rows, unreadable = measured(tmp_path, "bomb.fits.gz", "scaled.fits.gz", "sound.fits.gz", memory=128)
    assert (rows, unreadable) == (202, 2)
    assert peak < 128 + 32


def parquet_of_one_value(path: Path, value: bytes, rows: int, **options: Any) -> None:
    """A table whose dictionary holds one value, for each row of three columns."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = pyarrow.DictionaryArray.from_arrays(
        np.zeros(rows, np.int32), pyarrow.array([value], "large_binary")
    )
    columns = {f"cutout{c}": column for c in ("Science", "Template", "Difference")}
    parquet.write_table(
        pyarrow.table(columns), path, compression="zstd", dictionary_pagesize_limit=2**30, **options
    )


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured as Linux counts it")
@pytest.mark.parametrize("store_schema", [True, False])
def test_a_dictionary_does_not_outgrow_the_bound(tmp_path: Path, store_schema: bool) -> None:
    # Small files: 64 rows of 144 MB, 64 of the most that 128 MB allow for, and many of an ordinary stamp.
    rng = np.random.default_rng(0)
    sound = fits_bytes(rng.normal(100, 5, (63, 63)).astype(np.float32))
    for name, value, rows in (("huge", bytes(48 * 2**20), 64), ("large", bytes(5 * 2**20), 64),
                              ("many", sound, 10**6), ("sound", sound, 500)):  # fmt: skip
        parquet_of_one_value(tmp_path / f"{name}.parquet", value, rows, store_schema=store_schema)
    assert (tmp_path / "huge.parquet").stat().st_size < 10_000
    names = [f"{name}.parquet" for name in ("huge", "large", "many", "sound")]
    peak, rows, unreadable = measured(tmp_path, *names, memory=128)
    assert rows < 5000
    assert rows - unreadable >= 500
    assert peak < 128 + 32


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured as Linux counts it")
def test_runs_of_equal_pixels_do_not_outgrow_the_bound(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    pixels = np.zeros(8 * 3 * 1024 * 1024, np.float32)
    for name, column in {
        "list": pyarrow.ListArray.from_arrays(np.arange(9, dtype=np.int32) * (pixels.size // 8), pixels),
        # All pixels in one row, the others are empty.
        "uneven": pyarrow.ListArray.from_arrays(np.int32([0, *[pixels.size] * 8]), pixels),
        "nested": pyarrow.FixedSizeListArray.from_arrays(
            pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.FixedSizeListArray.from_arrays(pixels, 1024), 1024
            ),
            3,
        ),
    }.items():
        parquet.write_table(pyarrow.table({"triplet": column}), tmp_path / f"{name}.parquet")
    peak, rows, unreadable = measured(
        tmp_path, *(f"{name}.parquet" for name in ("list", "uneven", "nested")), memory=128
    )
    assert rows == unreadable == 3
    assert peak < 128 + 32


def test_a_table_of_large_cells_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSIENTNET_MEMORY", "64")
    parquet_of_one_value(tmp_path / "labels.parquet", bytes(48 * 2**20), 64)
    with pytest.raises(ReadError, match="row 0: its pages of 48 MiB"):
        open_table(tmp_path / "labels.parquet").columns(["cutoutScience"])


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured as Linux counts it")
def test_packed_chunks_and_links_do_not_outgrow_the_bound(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "links.h5", "w") as file:
        # Few groups, and two ways to each: a thousand million ways in all.
        for level in range(30, -1, -1):
            group = file.create_group(f"level{level}")
            for name in ("a", "b"):
                if level < 30:
                    group[name] = file[f"level{level + 1}"]
    with h5py.File(tmp_path / "shared.h5", "w") as file:
        ones = np.ones((2000, 3, 63, 63), np.uint8)
        bomb = file.create_dataset("0/stamps", data=ones, chunks=(1000, 3, 63, 63), compression="gzip")
        for n in range(1, 20):
            file[f"{n}/stamps"] = bomb
    with h5py.File(tmp_path / "tall.h5", "w") as file:
        # Chunks that are larger than all that is in them.
        tall = file.create_dataset(
            "stamps",
            (40, 3, 9, 9),
            "u1",
            chunks=(10**6, 1, 1, 1),
            maxshape=(None, 3, 9, 9),
            compression="gzip",
        )
        tall[:] = np.ones(tall.shape, np.uint8)
    names = ("links", "shared", "tall")
    peak, rows, unreadable = measured(tmp_path, *(f"{name}.h5" for name in names), memory=128)
    assert rows < 6000
    assert unreadable > 2
    assert peak < 128 + 32


def test_members_of_archives_do_not_outgrow_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSIENTNET_MEMORY", "16")
    member = io.BytesIO()
    np.save(member, np.ones((3000, 3, 20, 20), np.uint8))
    with tarfile.open(tmp_path / "night.tar.gz", "w:gz") as archive:
        for n in range(30):
            info = tarfile.TarInfo(f"{n}.npy")
            info.size = len(member.getvalue())
            archive.addfile(info, io.BytesIO(member.getvalue()))
    with zipfile.ZipFile(tmp_path / "night.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(30):
            archive.writestr(f"{n}.npy", member.getvalue())
    avro(tmp_path / "packed.avro", bytes(2**20), 60, codec="deflate")
    for name in ("night.tar.gz", "night.npz", "packed.avro"):
        *_, last = open_triplets(tmp_path / name)
        assert last.error is not None, name
        assert "refused" in last.error


@pytest.mark.parametrize(
    ("given", "megabytes"), [("", 512), ("64", 64), ("no", 512), ("-1", 512), ("nan", 512)]
)
def test_the_bound_is_a_setting(given: str, megabytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSIENTNET_MEMORY", given)
    assert memory_limit() == megabytes * 2**20


def test_large_stamps_make_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSIENTNET_MEMORY", "16")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(100, 5, (7, 3, 200, 200)).astype(np.float32))
    found = list(batches([str(tmp_path / "x.npy")], Reading(), 64))
    assert [len(batch.triplets) for batch in found] == [2, 2, 2, 1]
    assert [sum(mark.rows for mark in batch.marks) for batch in found] == [2, 2, 2, 1]
    assert [mark.ended for batch in found for mark in batch.marks] == [False] * 3 + [True]


#: Beyond any memory for one candidate, and for a batch with it: in this process, and in those that import it.
GREEDY = """
from transientnet.models.classifier import Classifier
score = Classifier.score
def greedy(self, batch):
    if any(triplet.id == "greedy" for triplet in batch):
        raise MemoryError
    return score(self, batch)
Classifier.score = greedy
"""


@pytest.mark.parametrize(("workers", "apart"), [(1, False), (3, False), (2, True)])
def test_stamps_for_which_memory_does_not_suffice_are_flagged(
    workers: int, apart: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model("realbogus")
    stamps = np.random.default_rng(0).normal(100, 5, (5, 3, 31, 31))
    ids = ["0", "1", "greedy", "3", "4"]
    if apart:
        (tmp_path / "sitecustomize.py").write_text(GREEDY)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
        for name in ("a", "b"):
            np.savez(tmp_path / f"{name}.npz", triplets=stamps, id=ids)
        inputs = [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
        parts = list(score_inputs(inputs, model, Reading(), workers=workers))
    else:
        monkeypatch.setattr(Classifier, "score", Classifier.score)
        exec(GREEDY, {})
        given = [Triplet(*stamp, id=name) for stamp, name in zip(stamps, ids, strict=True)]
        parts = list(score_triplets(given, model, workers=workers))
    table = Predictions.concatenate([part.predictions for part in parts], model.classes, model.record.id)
    assert [bool(bits & QualityFlag.FAILED) for bits in table.quality] == [i == "greedy" for i in table.ids]
    assert len(table) == (10 if apart else 5)
    assert list(table.errors) == np.flatnonzero(table.ids == "greedy").tolist()
    assert all("memory" in message for message in table.errors.values())


#: A batch for which the network finds no memory: each of its stamps alone asks for little.
SCARCE = """
import resource
import numpy as np
from transientnet import classify, load_model
model = load_model("realbogus", threads=1)
stamps = np.random.default_rng(0).normal(100, 5, (500, 3, 63, 63)).astype(np.float32)
classify(stamps[:2], model=model, workers=1)
with open("/proc/self/statm") as file:
    limit = int(file.read().split()[0]) * resource.getpagesize() + 32 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    model.run(np.ones((500, 3, 63, 63), np.float32))
except MemoryError:
    print("refused")
table = classify(stamps, model=model, workers=1, batch_size=500)
print(len(table), len(table.errors), np.isfinite(table.probabilities).all())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux counts it")
def test_a_batch_that_the_network_has_no_memory_for_is_scored_one_by_one() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCARCE], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["refused", "500", "0", "True"]


def test_a_file_that_asks_for_more_than_there_is_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(path: str, layout: object) -> object:
        raise MemoryError

    np.save(tmp_path / "a.npy", np.ones((3, 31, 31)))
    monkeypatch.setattr("transientnet.readers.arrays.read", greedy)
    table = classify([tmp_path / "a.npy"], workers=1)
    assert table.quality.tolist() == [QualityFlag.UNREADABLE]
    assert "memory" in table.errors[0]


def test_fortran_order_and_rows_on_disk(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).normal(100, 5, (40, 3, 21, 23)).astype(">f4")
    for order in (np.ascontiguousarray, np.asfortranarray):
        np.save(tmp_path / "x.npy", order(stack))
        found = np.array([np.stack(t.stamps) for t in open_triplets(tmp_path / "x.npy")])  # type: ignore[arg-type]
        np.testing.assert_array_equal(found, stack)


#: The file is cut short when its first rows have been scored.
CUT = """
import os, sys
from transientnet import load_model
from transientnet.readers.open import Reading, find_inputs
from transientnet.scoring.classify import score_inputs
path, size = sys.argv[1], int(sys.argv[2])
rows, errors = 0, []
for part in score_inputs(find_inputs(path), load_model("realbogus", threads=1), Reading(), workers=1):
    os.truncate(path, size)
    rows += len(part.predictions)
    errors += part.predictions.errors.values()
print(rows, errors)
"""


@pytest.mark.parametrize("kind", ["npy", "fits"])
def test_a_file_cut_short_while_one_process_reads_it_is_a_row(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    stack = np.tile(
        np.random.default_rng(0).normal(100, 5, (1, 3, 63, 63)).astype(np.float32), (2000, 1, 1, 1)
    )
    np.save(path, stack) if kind == "npy" else path.write_bytes(fits_bytes(stack))
    done = subprocess.run(
        [sys.executable, "-c", CUT, path, "10000"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TRANSIENTNET_MEMORY": "64"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, _, errors = done.stdout.partition(" ")
    # As many as had been read by then, and one row that stands for the others.
    scored = int(rows) - 1
    assert 0 < scored < 2000
    assert f"its first {scored} candidates are in the table, the other" in errors
