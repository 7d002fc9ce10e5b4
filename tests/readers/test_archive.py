"""Tar archives of packets: whole nights as surveys hand them out."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from alerts import STAMPS, assert_stamps, fits_bytes, packet, ztf_alert, ztf_schema

from transientnet import classify, open_triplets


def members(tmp_path: Path, count: int = 4) -> dict[str, bytes]:
    return {
        f"night/{i}.avro": packet(tmp_path / f"{i}.avro", ztf_schema(), ztf_alert(i)).read_bytes()
        for i in range(count)
    }


def pack(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("night")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("mode", ["w:", "w:gz"])
@pytest.mark.parametrize("name", ["night.tar", "no_ending"])
def test_a_night_in_an_archive_is_read_as_its_packets_are(tmp_path: Path, mode: str, name: str) -> None:
    files = members(tmp_path)
    triplets = list(open_triplets(pack(tmp_path / name, files, mode)))
    loose = [triplet for file in files for triplet in open_triplets(tmp_path / Path(file).name)]
    assert [t.id for t in triplets] == [t.id for t in loose]
    for triplet in triplets:
        assert_stamps(triplet)
        assert triplet.source == str(tmp_path / name)
        assert triplet.meta["survey"] == "ZTF"


def test_other_members_are_flagged_and_the_rest_is_scored(tmp_path: Path) -> None:
    (good,) = members(tmp_path, 1).items()
    science = fits_bytes(STAMPS["science"])
    files = {"README": b"about this night\n", "a.npy": b"\x93NUMPY", "one.fits": science, good[0]: good[1]}
    predictions = classify(pack(tmp_path / "night.tar.gz", files), workers=1)
    assert len(predictions) == 4
    assert predictions.ids[0] == "README"
    errors = {triplet.id: triplet.error for triplet in open_triplets(tmp_path / "night.tar.gz")}
    assert "not in a supported format" in errors["README"]
    assert "damaged or not a NumPy file" in errors["a"]
    assert errors["one"] is None
    assert np.isfinite(predictions.probabilities[3]).all()


def test_an_archive_that_breaks_off_keeps_what_came_before(tmp_path: Path) -> None:
    path = pack(tmp_path / "night.tar", members(tmp_path), "w:")
    with tarfile.open(path) as archive:
        third = archive.getmembers()[3].offset_data
    path.write_bytes(path.read_bytes()[: third + 1000])
    *whole, last = open_triplets(path)
    assert len(whole) == 2
    for triplet in whole:
        assert_stamps(triplet)
    assert last.error is not None
    assert "damaged after 2 files" in last.error


def test_what_a_header_claims_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSIENTNET_MEMORY", "1")
    path = tmp_path / "bomb.tar"
    huge = tarfile.TarInfo("huge.fits")
    huge.size = 2**32
    extended = tarfile.TarInfo("extended")
    extended.type, extended.size = tarfile.XHDTYPE, 2**32
    for member in (huge, extended):
        path.write_bytes(member.tobuf() + bytes(2048))
        (triplet,) = open_triplets(path)
        assert triplet.error is not None
        assert "beyond the limit" in triplet.error
    # A sparse member of few bytes that unfolds to many.
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**32)}
    body = b"1\n0\n10\n".ljust(512, b"\0") + b"SIMPLE  = "
    sparse = tarfile.TarInfo("sparse.fits")
    sparse.size, sparse.pax_headers = len(body), pax
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(sparse, io.BytesIO(body))
    (triplet,) = open_triplets(path)
    assert triplet.error is not None


def test_an_empty_archive_says_so(tmp_path: Path) -> None:
    (triplet,) = open_triplets(pack(tmp_path / "night.tar", {}, "w:"))
    assert triplet.error == "an archive without files"
