"""What a program holds already: open FITS files, packets, astropy's images, arrays with channels last."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, Cutout2D, NDData

from transientnet import Triplet, classify, open_triplets
from transientnet.errors import UsageError

STAMPS = np.random.default_rng(5).normal(100, 5, (3, 31, 33)).astype(np.float32)
NAMES = ("SCI", "REF", "DIFF")


def hdulist(**header: Any) -> fits.HDUList:
    images = [fits.ImageHDU(plane, name=name) for plane, name in zip(STAMPS, NAMES, strict=True)]
    return fits.HDUList([fits.PrimaryHDU(header=fits.Header(header)), *images])


def same(triplet: Triplet) -> None:
    assert triplet.error is None
    np.testing.assert_array_equal(np.stack(triplet.stamps), STAMPS)  # type: ignore[arg-type]


def test_an_open_fits_file_gives_what_its_file_gives(tmp_path: Path) -> None:
    hdulist(PIXSCALE=0.5, OBJECT="AT2024a").writeto(tmp_path / "x.fits")
    (expected,) = open_triplets(tmp_path / "x.fits")
    with fits.open(tmp_path / "x.fits") as opened:
        (triplet,) = open_triplets(opened)
        assert triplet.meta == expected.meta
        assert (triplet.id, triplet.group, triplet.pixel_scale) == ("x", "AT2024a", 0.5)
        same(triplet)
        np.testing.assert_array_equal(
            classify(opened).probabilities, classify(tmp_path / "x.fits").probabilities
        )
    for item in open_triplets([hdulist(), hdulist()]):
        same(item)
    (lost,) = open_triplets(fits.HDUList([fits.PrimaryHDU()]))
    assert lost.error is not None


def fits_bytes() -> bytes:
    file = io.BytesIO()
    hdulist().writeto(file)
    return file.getvalue()


def npy_bytes(packed: bool = False) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, triplets=STAMPS[None]) if packed else np.save(file, STAMPS)
    return file.getvalue()


@pytest.mark.parametrize("make", [fits_bytes, npy_bytes, lambda: npy_bytes(True)])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_bytes_of_a_file(make: Any, kind: Any) -> None:
    (triplet,) = open_triplets(kind(make()))
    same(triplet)
    assert len(list(open_triplets([make(), make()]))) == 2


def test_the_bytes_of_parquet_and_hdf5() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    h5py = pytest.importorskip("h5py")
    table, group = io.BytesIO(), io.BytesIO()
    columns = {name: [plane.tolist()] for name, plane in zip(NAMES, STAMPS.astype(np.float64), strict=True)}
    parquet.write_table(pyarrow.table(columns), table)
    with h5py.File(group, "w") as file:
        file["triplets"] = STAMPS[None]
    for data in (table, group):
        (triplet,) = open_triplets(data.getvalue())
        same(triplet)


def test_an_archive_may_hold_every_format(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "night.tar", "w") as archive:
        for name, data in (("a.fits", fits_bytes()), ("b.npy", npy_bytes()), ("c.npz", npy_bytes(True))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    triplets = list(open_triplets(tmp_path / "night.tar"))
    assert len(triplets) == 3
    for triplet in triplets:
        same(triplet)


def test_bytes_that_hold_no_stamps_are_a_row() -> None:
    for data in (b"hello", b"", b"a,b\n1,2\n", b"\x89HDF\r\n\x1a\nxx", b"PAR1xxxx"):
        (triplet,) = open_triplets(data)
        assert triplet.error, data
        assert triplet.source == "memory"


@pytest.mark.parametrize(
    "image", [Cutout2D(STAMPS[0], (15, 15), 21), NDData(STAMPS[0]), fits.PrimaryHDU(STAMPS[0])]
)
def test_one_image_by_itself_names_the_right_call(image: object) -> None:
    with pytest.raises(UsageError, match=r"together.*alone.*cut_triplets"):
        list(open_triplets(image))
    (triplet,) = open_triplets({"science": image})
    assert triplet.reference is None
    (whole,) = open_triplets([CCDData(plane, unit="adu") for plane in STAMPS])
    same(whole)


def test_channels_last_where_the_shape_says_so() -> None:
    for item in open_triplets(np.moveaxis(np.stack([STAMPS] * 4), 1, -1)):
        same(item)
    (item,) = open_triplets(np.moveaxis(STAMPS, 0, -1))
    same(item)
    np.testing.assert_array_equal(
        classify(np.moveaxis(STAMPS[None], 1, -1)).probabilities, classify(STAMPS[None]).probabilities
    )


POSITION = {"ra": 210.91, "dec": -4.25, "x": 1021.5, "y": 17.25}


def _fits(folder: Path, **position: Any) -> Path:
    hdulist(**position).writeto(folder / "x.fits")
    return folder / "x.fits"


def _table(folder: Path, **position: Any) -> Path:
    for name, plane in zip(NAMES, STAMPS, strict=True):
        fits.PrimaryHDU(plane).writeto(folder / f"{name}.fits")
    head = ",".join(["science", "reference", "difference", *position])
    row = ",".join(["SCI.fits", "REF.fits", "DIFF.fits", *map(str, position.values())])
    (folder / "t.csv").write_text(f"{head}\n{row}\n")
    return folder / "t.csv"


def _npz(folder: Path, **position: Any) -> Path:
    np.savez(folder / "x.npz", triplets=STAMPS[None], **{key: [value] for key, value in position.items()})
    return folder / "x.npz"


def _json(folder: Path, **position: Any) -> Path:
    stamps = {f"cutout{name}": plane.tolist() for name, plane in zip(NAMES, STAMPS, strict=True)}
    (folder / "x.json").write_text(json.dumps({"candidate": position, **stamps}))
    return folder / "x.json"


def _columns(folder: Path, **position: Any) -> Path:
    columns = [
        fits.Column(name, f"{plane.size}E", dim="(33,31)", array=plane.reshape(1, -1))
        for name, plane in zip(NAMES, STAMPS, strict=True)
    ]
    columns += [fits.Column(name, "D", array=[value]) for name, value in position.items()]
    fits.BinTableHDU.from_columns(columns).writeto(folder / "t.fits")
    return folder / "t.fits"


@pytest.mark.parametrize("write", [_fits, _table, _npz, _json, _columns])
def test_positions_are_known_for_every_format(write: Any, tmp_path: Path) -> None:
    (triplet,) = open_triplets(write(tmp_path, **POSITION))
    assert triplet.error is None
    # Pixels count from 1 in a packet, from 0 in the score table.
    found = {name: triplet.meta[name] + (name in "xy") for name in POSITION}
    assert found == POSITION
    assert all(type(triplet.meta[name]) is float for name in POSITION)


@pytest.mark.parametrize(
    ("ra", "dec", "degrees"),
    [
        ("14:03:38.4", "-04:15:00", (210.91, -4.25)),
        ("14 03 38.4", "-00 15 00.0", (210.91, -0.25)),
        ("14h03m38.4s", "+04d15m00s", (210.91, 4.25)),
        ("210.91", "-4.25", (210.91, -4.25)),
        ("unknown", "", (None, None)),
    ],
)
def test_positions_in_hours_and_degrees(
    ra: str, dec: str, degrees: tuple[float | None, ...], tmp_path: Path
) -> None:
    (triplet,) = open_triplets(_fits(tmp_path, RA=ra, DEC=dec))
    found = (triplet.meta.get("ra"), triplet.meta.get("dec"))
    assert found == tuple(None if value is None else pytest.approx(value) for value in degrees)


def test_real_packets_have_positions(shared_data: Path) -> None:
    for survey in ("ztf", "winter", "pgir"):
        files = sorted((shared_data / "packets" / survey).glob("*.avro*"))[:3]
        for triplet in open_triplets(files):
            assert all(type(triplet.meta[name]) is float for name in ("ra", "dec", "x", "y")), survey
