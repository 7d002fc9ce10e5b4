"""Parquet: packets as rows, columns of pixels, partitions, damage."""

from __future__ import annotations

import gzip
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from transientnet import open_triplets
from transientnet.errors import ReadError
from transientnet.readers.layouts import Layout

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from transientnet.readers.parquet import read  # noqa: E402

N, SIDE = 7, 15


def smooth_stack() -> Any:
    """Stars on noise, channels at different levels: what a flattened column looks like."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    star = np.exp(-0.5 * (x**2 + y**2) / 2.0**2)
    levels = np.array([100.0, 90.0, 0.0])[None, :, None, None]
    return (levels + rng.normal(0, 2, (N, 3, SIDE, SIDE)) + 60 * star).astype(np.float32)


STACK = smooth_stack()


def packed(stamp: Any) -> bytes:
    file = io.BytesIO()
    fits.PrimaryHDU(stamp).writeto(file)
    # Without a clock in it, so that every run writes, and mutates, the same bytes.
    return gzip.compress(file.getvalue(), mtime=0)


def packets(**more: Any) -> Any:
    rows = {
        "objectId": [f"ZTF18a{i}" for i in range(N)],
        "candid": list(range(100, 100 + N)),
        "candidate": [{"ra": 10.0 + i, "dec": -5.0, "jd": 2459000.5, "magpsf": 18.0} for i in range(N)],
        "prv_candidates": [[{"ra": 1.0, "cutoutScience": b"junk"}] * 3] * N,
    }
    for i, name in enumerate(("cutoutScience", "cutoutTemplate", "cutoutDifference")):
        rows[name] = [{"fileName": "x.fits.gz", "stampData": packed(stack[i])} for stack in STACK]
    return pa.table({**rows, **more})


def check(triplets: list[Any]) -> None:
    assert [triplet.error for triplet in triplets] == [None] * N
    for triplet, planes in zip(triplets, STACK, strict=True):
        for stamp, plane in zip(triplet.stamps, planes, strict=True):
            assert np.array_equal(stamp, plane)


def test_packets_in_structs(tmp_path: Path) -> None:
    path = tmp_path / "part-0.parquet"
    pq.write_table(packets(), path, row_group_size=3)
    triplets = list(open_triplets(path))
    check(triplets)
    assert [triplet.id for triplet in triplets] == [str(i) for i in range(100, 107)]
    assert triplets[1].group == "ZTF18a1"
    assert triplets[1].meta["ra"] == 11.0
    assert triplets[1].meta["survey"] == "ZTF"


def test_a_null_or_damaged_cutout_costs_its_own_row(tmp_path: Path) -> None:
    table = packets().to_pylist()
    table[2]["cutoutTemplate"] = None
    table[4]["cutoutScience"]["stampData"] = table[4]["cutoutScience"]["stampData"][:90]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "x.parquet")
    triplets = list(open_triplets(tmp_path / "x.parquet"))
    assert triplets[2].reference is None
    assert triplets[2].error is None
    assert triplets[4].error is not None
    assert triplets[4].id == "104"
    assert sum(triplet.error is not None for triplet in triplets) == 1


@pytest.mark.parametrize("nested", ["lists", "flat", "fixed"])
def test_a_column_per_channel(tmp_path: Path, nested: str) -> None:
    columns = {}
    for i, name in enumerate(("science", "reference", "difference")):
        if nested == "lists":
            columns[name] = pa.array(STACK[:, i].tolist())
        elif nested == "flat":
            columns[name] = pa.array(STACK[:, i].reshape(N, -1).tolist(), pa.list_(pa.float32()))
        else:
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(STACK[:, i].ravel()), SIDE * SIDE)
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    check(list(open_triplets(tmp_path / "x.parquet")))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_one_column_for_all_channels(tmp_path: Path, last: bool, flat: bool) -> None:
    stack = np.moveaxis(STACK, 1, -1) if last else STACK
    values = stack.reshape(N, -1).tolist() if flat else stack.tolist()
    pq.write_table(pa.table({"candid": list(range(N)), "triplet": values}), tmp_path / "x.parquet")
    check(list(open_triplets(tmp_path / "x.parquet")))


def test_tensor_column(tmp_path: Path) -> None:
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(STACK)
    pq.write_table(pa.table({"stamps": column}), tmp_path / "x.parquet")
    check(list(open_triplets(tmp_path / "x.parquet")))


def test_ragged_rows_are_flagged(tmp_path: Path) -> None:
    rows = [STACK[0].tolist(), [[[1.0, 2.0], [3.0]], [[1.0]], [[2.0]]], None]
    pq.write_table(pa.table({"triplet": rows}), tmp_path / "x.parquet")
    errors = [triplet.error for triplet in open_triplets(tmp_path / "x.parquet")]
    assert errors[0] is None
    assert "ragged" in str(errors[1])
    assert errors[2] is not None


def test_partitions_beside_the_files_of_a_catalogue(tmp_path: Path) -> None:
    for number, part in enumerate((STACK[:4], STACK[4:])):
        folder = tmp_path / "dataset" / "Norder=1" / f"Npix={number}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"triplet": part.tolist()}), folder / "part0.parquet")
    pq.write_metadata(pa.schema([("triplet", pa.float32())]), tmp_path / "dataset" / "_metadata")
    (tmp_path / "hats.properties").write_text("obs_collection=x\n")
    fits.writeto(tmp_path / "point_map.fits", np.zeros((4, 4), np.float32))
    check(list(open_triplets(tmp_path)))


def test_only_needed_columns_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(packets(junk=["x" * 1000] * N), tmp_path / "x.parquet")
    asked: list[str] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: Any, *args: Any, columns: list[str], **kwargs: Any) -> Any:
        asked.extend(columns)
        return original(self, *args, columns=columns, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    check(list(open_triplets(tmp_path / "x.parquet")))
    assert "cutoutScience.stampData" in asked
    assert not any("junk" in name or "prv" in name or "fileName" in name for name in asked)


def test_no_stamps(tmp_path: Path) -> None:
    pq.write_table(pa.table({"flux": [1.0], "name": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(ReadError, match="no column of stamps"):
        list(read(str(tmp_path / "x.parquet"), Layout()))


def test_a_damaged_row_group_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"triplet": STACK.tolist()}), path, row_group_size=2, compression="zstd")
    where = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = where.dictionary_page_offset or where.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 200] = bytes(200)
    path.write_bytes(content)
    triplets = list(open_triplets(path))
    good = [triplet for triplet in triplets if triplet.error is None]
    (bad,) = (triplet for triplet in triplets if triplet.error is not None)
    assert "row group 1 of 2 rows" in str(bad.error)
    assert [triplet.id for triplet in good] == ["0", "1", "4", "5", "6"]
    assert np.array_equal(good[2].science, STACK[4, 0])


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_mutated_files_give_rows_or_our_errors(data: st.DataObject) -> None:
    file = io.BytesIO()
    pq.write_table(packets().slice(0, 2), file)
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(4, len(content) - 9))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        path.write_bytes(content)
        list(open_triplets(path))


@pytest.mark.parametrize(
    ("name", "n", "survey"),
    [("fink/ztf_alerts.parquet", 35, "ZTF"), ("rubin/fink_rubin_sample.parquet", 25, "LSST")],
)
def test_real_files(shared_data: Path, name: str, n: int, survey: str) -> None:
    triplets = list(open_triplets(shared_data / "packets" / name))
    assert len(triplets) == n
    for triplet in triplets:
        assert triplet.error is None
        assert triplet.meta["survey"] == survey
        assert triplet.pixel_scale is not None
        assert triplet.reference is not None
    assert len({triplet.group for triplet in triplets}) > n / 2


def test_a_page_header_of_other_types_is_a_row(tmp_path: Path) -> None:
    """Fields of Thrift that are structures where numbers belong, and lengths beyond any file."""
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({f"cutout{c}": [b"x" * 30] * 3 for c in ("Science", "Template", "Difference")}), path
    )
    whole = path.read_bytes()
    damaged = 0
    for at in range(4, 60):
        for byte in (0x1C, 0x2C, 0x18, 0xFF):
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            rows = list(open_triplets(path))
            assert rows
            damaged += any(row.error is not None for row in rows)
    assert damaged > 50
