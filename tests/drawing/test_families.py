"""Pictures of families for a model's card."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from transientnet import Triplet
from transientnet.drawing.families import family_pictures


def test_each_family_has_a_picture_and_a_row(tmp_path: Path) -> None:
    stamp = np.random.default_rng(0).normal(size=(21, 31))
    whole, alone = Triplet(stamp, stamp, stamp), Triplet(stamp)
    families = {"cosmic ray": [whole, alone, whole], "real": [alone], "residual": []}
    lines = family_pictures(families, tmp_path, side=40)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["family-cosmic-ray.png", "family-real.png"]
    assert len(lines) == 4
    assert "(family-cosmic-ray.png)" in lines[2]
    assert "3 examples of cosmic ray" in lines[2]
    assert "an example of real" in lines[3]
    widths = {}
    for path in tmp_path.iterdir():
        widths[path.name], height = struct.unpack(">II", path.read_bytes()[16:24])
        assert height == 40
    assert widths["family-cosmic-ray.png"] > 3 * widths["family-real.png"]


def test_without_examples_there_is_no_table(tmp_path: Path) -> None:
    assert family_pictures({"real": []}, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
