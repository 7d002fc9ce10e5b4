"""Examples of each family of candidates as pictures, for a model's card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..files.atomic import write_atomically
from ..triplet import Triplet
from .stamps import GAP, encode_png, strip

__all__ = ["family_pictures"]

_GAP_WIDTH = 10


def family_pictures(families: Mapping[str, Sequence[Triplet]], folder: Path, side: int = 63) -> list[str]:
    """Write a picture of each family's examples, and give the lines of Markdown that show them.

    Parameters
    ----------
    families : mapping of str to sequence of Triplet
        Name of a class or kind to its examples, each drawn as science, reference and difference.
    folder : Path
        Where ``family-NAME.png`` go: that of the card.
    side : int
        Pixels of each stamp.

    Returns
    -------
    list of str
        A table in Markdown, a row for each family that has examples; empty if none has.
    """
    lines: list[str] = []
    for name, triplets in families.items():
        if not triplets:
            continue
        strips = [strip(triplet, side) for triplet in triplets]
        gap = np.full((side, _GAP_WIDTH), GAP, np.uint8)
        picture = np.concatenate([part for one in strips for part in (gap, one)][1:], axis=1)
        file = f"family-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.png"
        write_atomically(folder / file, encode_png(picture))
        count = f"{len(triplets)} examples" if len(triplets) > 1 else "an example"
        lines.append(f"| {name} | ![{count} of {name}: science, reference, difference]({file}) |")
    return ["| family | science, reference, difference |", "| --- | --- |", *lines] if lines else []
