"""Draw the README's picture: the example cutouts with what `4class` says of them.

python docs/pictures/contact_sheet.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from transientnet import QualityFlag, load_model, open_triplets
from transientnet.thumbnails import strip

DOCS = Path(__file__).resolve().parent.parent
COLUMNS = 3


def main() -> None:
    triplets = list(open_triplets(str(DOCS / "examples" / "cutouts")))
    predictions = load_model("4class").predict(triplets)
    rows = -(-len(triplets) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(12, 1.72 * rows))
    for axis in axes.flat:
        axis.axis("off")
    for axis, triplet, row in zip(axes.flat, triplets, predictions, strict=False):
        axis.imshow(strip(triplet), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        best = max(row.probabilities.values())
        said = f"{row.label} {best:.2f}" if row.label else "not scored: blank"
        flags = QualityFlag.names(row.quality & (QualityFlag.MISSING_REFERENCE | QualityFlag.MASKED))
        note = (
            f"  [{', '.join(name.lower().replace('_', ' ') for name in flags)}]"
            if flags and row.label
            else ""
        )
        axis.set_title(f"{triplet.id.replace('_', ' ')}:  {said}{note}", fontsize=9, loc="left", pad=3)
    assert np.isnan(predictions.probabilities[[t.id == "blank" for t in triplets]]).all()
    figure.subplots_adjust(0.01, 0.005, 0.99, 0.965, 0.04, 0.22)
    figure.savefig(DOCS / "pictures" / "contact_sheet.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
