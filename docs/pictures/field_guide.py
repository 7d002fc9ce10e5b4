"""Stamps of the labelling page's field guide: ``python docs/pictures/field_guide.py``.

Made from the simulated example cutouts.
"""

from __future__ import annotations

from pathlib import Path

from transientnet import open_triplets
from transientnet.drawing.stamps import encode_png, strip
from transientnet.label_page.app import GUIDE

DOCS = Path(__file__).resolve().parent.parent
STATIC = DOCS.parent / "transientnet" / "label_page" / "static"


def main() -> None:
    """One strip of science, reference, difference for each example that the guide shows."""
    for name in GUIDE:
        (triplet,) = open_triplets(str(DOCS / "examples" / "cutouts" / f"{name}.fits"))
        (STATIC / f"guide-{name}.png").write_bytes(encode_png(strip(triplet)))


if __name__ == "__main__":
    main()
