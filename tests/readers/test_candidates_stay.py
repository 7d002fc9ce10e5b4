"""A candidate never disappears: what a folder, a file or a layout promises is a row, or a message."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from transientnet import Triplet, open_triplets
from transientnet.errors import TransientnetWarning
from transientnet.readers.layouts import Layout

STAMPS = np.random.default_rng(3).normal(100, 5, (3, 21, 21)).astype(np.float32)


def write(path: Path, names: tuple[str, ...], planes: np.ndarray = STAMPS) -> Path:
    hdus = [fits.ImageHDU(plane, name=name) for name, plane in zip(names, planes, strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def by_name(source: object) -> dict[str, Triplet]:
    return {Path(triplet.source).name: triplet for triplet in open_triplets(source)}


def test_a_folder_and_a_glob_have_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path / "good.fits", ("SCI", "REF", "DIFF"))
    (tmp_path / "empty.fits").touch()
    (tmp_path / "zeros.fits").write_bytes(bytes(5760))
    (tmp_path / "noise.fits.gz").write_bytes(np.random.default_rng(1).bytes(3000))
    (tmp_path / "text.fit").write_text("404 Not Found\n")
    (tmp_path / "list.fits").write_text("id,label\n1,real\n")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUM")
    (tmp_path / "gone.fits").symlink_to(tmp_path / "nowhere.fits")
    (tmp_path / "moved").symlink_to(tmp_path / "elsewhere")
    folder, glob = by_name(tmp_path), by_name(str(tmp_path / "*"))
    assert folder.keys() == glob.keys()
    assert [name for name, triplet in folder.items() if triplet.error is None] == ["good.fits"]
    assert all(folder[name].error == glob[name].error for name in folder)
    assert "No such file" in (folder["gone.fits"].error or "")


def test_what_belongs_to_something_else_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "good.fits", ("SCI", "REF", "DIFF"))
    for name in (
        "README",
        "night.log",
        "notes.txt",
        "labels.csv",
        "settings.json",
        "empty",
        "x.png",
        ".x.fits",
    ):
        (tmp_path / name).write_text(
            "" if name == "empty" else "{}" if name.endswith("json") else "a,b\n1,2\n"
        )
    (tmp_path / "old.txt").symlink_to(tmp_path / "nowhere.txt")
    assert list(by_name(tmp_path)) == ["good.fits"]


@pytest.fixture
def nodes() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tn"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_and_sockets_are_left_out_with_a_word_and_never_opened(nodes: Path) -> None:
    write(nodes / "good.fits", ("SCI", "REF", "DIFF"))
    os.mkfifo(nodes / "a.fits")
    os.mkfifo(nodes / "control")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(nodes / "b.fits"))
        with pytest.warns(TransientnetWarning) as caught:
            assert list(by_name(nodes)) == ["good.fits"]
    words = " ".join(str(warning.message) for warning in caught)
    assert all(
        text in words for text in ("a.fits: a named pipe", "control: a named pipe", "b.fits: a socket")
    )
    # What is named by itself is a row.
    (triplet,) = open_triplets(nodes / "a.fits")
    assert "named pipe" in (triplet.error or "")


@pytest.fixture
def nobody(nodes: Path) -> Iterator[Path]:
    """A folder, and rights that end at its permissions."""
    nodes.chmod(0o755)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not hasattr(os, "geteuid"):
        pytest.skip("no permissions of this kind on this system")
    if root:
        os.seteuid(65534)
    yield nodes
    if root:
        os.seteuid(0)


def test_what_may_not_be_read_is_a_row(nodes: Path, request: pytest.FixtureRequest) -> None:
    for name in ("open", "closed"):
        (nodes / name).mkdir()
        write(nodes / name / "x.fits", ("SCI", "REF", "DIFF"))
    for name in ("y.fits", "packet", "notes.txt"):
        (nodes / "open" / name).write_bytes((nodes / "open/x.fits").read_bytes())
        (nodes / "open" / name).chmod(0)
    (nodes / "closed").chmod(0)
    request.getfixturevalue("nobody")
    rows = by_name(nodes)
    assert sorted(rows) == ["closed", "packet", "x.fits", "y.fits"]
    assert rows["x.fits"].error is None
    assert all("ermission denied" in (rows[name].error or "") for name in ("closed", "packet", "y.fits"))


@pytest.mark.parametrize("tag", ["AT2024var", "AT2024rms", "SN2023err", "2024dq", "psfobj", "weighty"])
@pytest.mark.parametrize("pattern", ["{0}_{1}", "{1}_{0}"])
def test_names_of_objects_are_no_names_of_maps(tmp_path: Path, tag: str, pattern: str) -> None:
    names = [pattern.format(c, t) for t in (tag, "AT2024abc") for c in ("SCI", "REF", "DIFF")]
    planes = np.concatenate([STAMPS, STAMPS + 1])
    triplets = list(open_triplets(write(tmp_path / "night.fits", tuple(names), planes)))
    assert [triplet.id.upper() for triplet in triplets] == [tag.upper(), "AT2024ABC"]
    for i, triplet in enumerate(triplets):
        np.testing.assert_array_equal(np.stack(triplet.stamps), STAMPS + i)


@pytest.mark.parametrize(
    "name", ["VAR", "SCI_VAR", "SCIVAR", "REF_RMS", "ERR_2", "Uncertainty1", "WEIGHT_MAP", "BKG", "SCI_ERR"]
)
def test_maps_beside_the_stamps_are_no_stamps(tmp_path: Path, name: str) -> None:
    planes = np.concatenate([STAMPS, STAMPS[:1]])
    (triplet,) = open_triplets(write(tmp_path / "x.fits", ("SCI", "REF", "DIFF", name), planes))
    np.testing.assert_array_equal(np.stack(triplet.stamps), STAMPS)


@pytest.mark.parametrize("name", ["MASK", "DQ", "BPM", "FLAGS", "SCI_MASK", "SCIMASK", "badpix"])
def test_a_mask_has_the_same_names_everywhere(tmp_path: Path, name: str) -> None:
    bad = np.zeros((21, 21), np.int16)
    bad[2, 3] = 4
    path = write(tmp_path / "x.fits", ("SCI", "REF", "DIFF"))
    fits.append(path, bad, fits.Header({"EXTNAME": name}))
    (triplet,) = open_triplets(path)
    assert np.isnan(triplet.science[2, 3])
    assert np.isnan(triplet.science).sum() == 1


@pytest.mark.parametrize("wanted", [("science", "CALIB"), ("reference", "TMPL2"), ("science", "7")])
def test_an_extension_that_the_layout_names_is_not_replaced_by_another(
    tmp_path: Path, wanted: tuple[str, str]
) -> None:
    channel, name = wanted
    path = write(tmp_path / "x.fits", ("SCI", "REF", "DIFF"))
    (triplet,) = open_triplets(path, layout=Layout(fields={channel: (name,)}))
    assert triplet.error is not None
    assert all(text in triplet.error for text in (channel, name, "1: SCI", "2: REF", "3: DIFF"))


def test_a_layout_that_lists_a_stamp_which_a_file_lacks(tmp_path: Path) -> None:
    layout = Layout(fields={"science": ("SCI",), "reference": ("REF",), "difference": ("DIFF",)})
    path = write(tmp_path / "x.fits", ("SCI", "DIFF"), STAMPS[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (triplet,) = open_triplets(path, layout=layout)
    assert triplet.error is None
    assert triplet.reference is None


@pytest.mark.parametrize("tag", ["AT2024var", "AT2024rms", "ZTF18abc"])
def test_a_lone_candidate_may_be_named_in_its_extensions(tag: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", (f"SCI_{tag}", f"REF_{tag}", f"DIFF_{tag}"))
    (triplet,) = open_triplets(path)
    assert triplet.error is None
    for stamp, expected in zip(triplet.stamps, STAMPS, strict=True):
        np.testing.assert_array_equal(stamp, expected)
