"""A full frame is no stamp: it is refused with the command that cuts stamps from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from transientnet import QualityFlag, classify, open_triplets

NAMES = ("science", "reference", "difference")


def images(side: int) -> np.ndarray:
    """Noise with a source at the centre of science and difference: (3, side, side)."""
    y, x = np.indices((side, side)) - side // 2
    made = np.random.default_rng(side).normal(100, 5, (3, side, side))
    made[::2] += 300 * np.exp(-(x**2 + y**2) / 8)
    return made.astype(np.float32)


def write(folder: Path, side: int, form: str) -> Path:
    """The source to score: three files in a folder, one file, or one image alone."""
    folder.mkdir()
    made = dict(zip(NAMES, images(side), strict=True))
    if form == "files":
        for name, image in made.items():
            fits.writeto(folder / f"{name}.fits", image)
    elif form == "arrays":
        for name, image in made.items():
            np.save(folder / f"{name}.npy", image)
    elif form == "extensions":
        hdus = [fits.ImageHDU(image, name=name) for name, image in made.items()]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(folder / "night.fits")
    elif form == "alone":
        fits.writeto(folder / "night.fits", made["science"])
    else:
        for name, image in made.items():
            fits.writeto(folder / f"{name}.fits", image)
        (folder / "table.csv").write_text(f"{','.join(NAMES)}\n{','.join(f'{n}.fits' for n in NAMES)}\n")
        return folder / "table.csv"
    return folder


FORMS = ["files", "arrays", "extensions", "alone", "table"]


@pytest.mark.parametrize("form", FORMS)
def test_frames_are_a_row_that_names_the_command_to_cut_them(tmp_path: Path, form: str) -> None:
    table = classify(write(tmp_path / "night", 300, form), workers=1)
    assert len(table) == 1
    assert table.quality[0] & QualityFlag.UNREADABLE
    assert "300 x 300" in table.errors[0]
    assert "transientnet cut" in table.errors[0]


@pytest.mark.parametrize("form", FORMS)
def test_large_stamps_are_scored(tmp_path: Path, form: str) -> None:
    table = classify(write(tmp_path / "night", 201, form), workers=1)
    assert len(table) == 1
    assert not table.errors
    # An image alone lacks two of three.
    assert bool(table.labels[0]) == (form != "alone")


def test_a_layout_vouches_for_stamps_of_any_size(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("stamp_size = 300\n")
    folder = write(tmp_path / "night", 300, "files")
    table = classify(open_triplets(folder, layout=tmp_path / "my.toml"))
    assert not table.errors
    assert table.labels[0]


def test_a_stack_holds_stamps_whatever_their_size(tmp_path: Path) -> None:
    np.save(tmp_path / "trails.npy", np.stack([images(300)] * 2))
    assert not classify(tmp_path / "trails.npy").errors


def test_real_frames_of_decam_are_not_scored(shared_data: Path) -> None:
    table = classify(shared_data / "packets" / "frames_decam")
    assert len(table) == 1
    assert table.quality[0] & QualityFlag.UNREADABLE
    assert "transientnet cut" in table.errors[0]
