"""Draw what transfer changes: scores of a simulated foreign telescope before and after.

python docs/pictures/transfer.py

It refits the last layer of `realbogus` on 160 simulated labels, and scores 400 other candidates.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from training_reference.simulator import DECAM_LIKE, Simulated, simulate  # noqa: E402
from transientnet import AdaptConfig, Triplet, adapt, load_model  # noqa: E402
from transientnet.drawing.charts import COLOURS  # noqa: E402
from transientnet.evaluation.metrics import roc_auc  # noqa: E402

#: Out of focus, badly aligned, and with a subtraction that leaves residuals.
FOREIGN = replace(
    DECAM_LIKE, pixel_scale=0.33, size=61, fwhm=6.0, reference_fwhm=4.6, science_defocus=0.8,
    registration=0.35, kernel_error=0.15, shape_error=0.25, ellipticity=0.15,
)  # fmt: skip
KINDS = (
    "supernova",
    "hostless",
    "variable star",
    "dipole",
    "shape mismatch",
    "noise peak",
    "cosmic ray",
    "ghost",
)
LABELS, OTHERS = 160, 400


def batch(n: int, seed: int) -> Simulated:
    return simulate(n, seed, telescope=FOREIGN, kinds=[KINDS[k % len(KINDS)] for k in range(n)])


def main() -> None:
    train, test = batch(LABELS, 1), batch(OTHERS, 2)
    labels = ["real" if real else "bogus" for real in train.real]
    candidates = [Triplet(*t, fwhm=float(f)) for t, f in zip(test.triplets, test.fwhm, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        result = adapt(
            labels, cutouts=train.triplets, groups=np.arange(LABELS).astype(str),
            fwhm=float(np.median(train.fwhm)), output=f"{folder}/foreign",
            config=AdaptConfig(method="probe", skip_bad=True, threads=2),
        )  # fmt: skip
        after = load_model(str(result.model)).predict(candidates).probabilities[:, 1]
    before = load_model("realbogus").predict(candidates).probabilities[:, 1]
    usable = np.isfinite(before) & np.isfinite(after)
    figure, panels = plt.subplots(2, 1, figsize=(7.4, 6), sharex=True, sharey=True, layout="constrained")
    for axes, scores, name in (
        (panels[0], before, "realbogus as it is"),
        (panels[1], after, f"last layer refitted on {LABELS} labels"),
    ):
        for k, (label, wanted) in enumerate((("bogus", False), ("real", True))):
            mine = scores[usable & (test.real == wanted)]
            style = {"color": COLOURS[k], "linestyle": ("-", "--")[k], "linewidth": 2, "label": label}
            share = np.full(len(mine), 100 / len(mine))
            axes.hist(mine, np.linspace(0, 1, 26), histtype="step", weights=share, **style)
        right = 100 * ((scores >= 0.5) == test.real)[usable].mean()
        area = roc_auc(scores[usable], test.real[usable])
        axes.set_title(f"{name}: AUC {area:.3f}, {right:.0f} % right at 0.5", loc="left", fontsize=11)
        axes.set_ylabel("share of the class (%)")
    panels[0].legend()
    panels[1].set_xlabel(f"p(real) of {int(usable.sum())} other candidates")
    figure.savefig(ROOT / "docs" / "pictures" / "transfer.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
