"""Draw scored triplets side by side: the README's picture, and that of other telescopes.

python docs/pictures/contact_sheet.py
    The example cutouts with what `4class` says of them.
python docs/pictures/contact_sheet.py other_telescopes.png PACKETS...
    Alerts of telescopes that no model was trained on, with what `realbogus` says of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from transientnet import Predictions, QualityFlag, Triplet, load_model, open_triplets
from transientnet.drawing.stamps import PALETTE, strip

DOCS = Path(__file__).resolve().parent.parent
COLUMNS = 3
#: Candidates of each survey.
MOST = 13


def draw(name: str, triplets: Sequence[Triplet], titles: Sequence[str]) -> None:
    """One strip a candidate: science, reference, difference."""
    rows = -(-len(triplets) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(9, 1.32 * rows))
    for axis in axes.flat:
        axis.axis("off")
    for axis, triplet, title in zip(axes.flat, triplets, titles, strict=False):
        axis.imshow(PALETTE[strip(triplet)], interpolation="nearest")
        axis.set_title(title, fontsize=min(9, 420 / len(title)), loc="left", pad=3)
    figure.subplots_adjust(0.01, 0.005, 0.99, 1 - 0.21 / rows, 0.04, 0.22)
    figure.savefig(DOCS / "pictures" / name, dpi=110, metadata={"Software": None})


def captions(names: Sequence[str], predictions: Predictions, shown: QualityFlag) -> list[str]:
    """What the model says of each candidate, and those flags of it that are to be shown."""
    lines = []
    for name, row in zip(names, predictions, strict=True):
        flags = ", ".join(f.lower().replace("_", " ") for f in QualityFlag.names(row.quality & shown))
        if row.label:
            best = max(row.probabilities.values())
            lines.append(f"{name}:  {row.label} {best:.2f}" + (f"  [{flags}]" if flags else ""))
        else:
            lines.append(f"{name}:  not scored: blank")
    return lines


def examples() -> None:
    """The simulated examples."""
    triplets = list(open_triplets(str(DOCS / "examples" / "cutouts")))
    predictions = load_model("4class").predict(triplets)
    assert np.isnan(predictions.probabilities[[t.id == "blank" for t in triplets]]).all()
    shown = QualityFlag.MISSING_REFERENCE | QualityFlag.MASKED
    names = [triplet.id.replace("_", " ") for triplet in triplets]
    draw("contact_sheet.png", triplets, captions(names, predictions, shown))


def other_telescopes(name: str, paths: Sequence[str]) -> None:
    """Alert packets of other surveys."""
    triplets = [triplet for path in paths for triplet in islice(open_triplets(path), MOST)]
    predictions = load_model("realbogus").predict(triplets)
    shown = ~(QualityFlag.RESAMPLED | QualityFlag.FWHM_ESTIMATED)
    names = [f"{triplet.meta.get('survey', '?')} {triplet.id[-6:]}" for triplet in triplets]
    draw(name, triplets, captions(names, predictions, shown))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        other_telescopes(sys.argv[1], sys.argv[2:])
    else:
        examples()
