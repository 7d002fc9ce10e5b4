"""Draw the way of a candidate and what normalising does, from simulated frames and stamps.

python docs/pictures/pipeline.py

Writes pipeline.png (frames, stamps, normalised stamps, answer) and normalising.png (five telescopes
before and after).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from training_reference.simulator import DECAM_LIKE, ZTF_LIKE, simulate  # noqa: E402
from transientnet import Triplet, cut_triplets, load_model  # noqa: E402
from transientnet.drawing.charts import COLOURS  # noqa: E402
from transientnet.drawing.stamps import PALETTE, levels  # noqa: E402
from transientnet.prepare.preprocess import preprocess  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
CHANNELS = ("science", "reference", "difference")
PLACE = (150, 96)
RUBIN_LIKE = replace(DECAM_LIKE, pixel_scale=0.2, size=41, fwhm=4.6, reference_fwhm=4.2)
COARSE = replace(ZTF_LIKE, pixel_scale=4.35, size=61, fwhm=1.8, reference_fwhm=1.7, unit=0.4, background=3.0)
INFRARED = replace(
    ZTF_LIKE, pixel_scale=1.1, size=81, fwhm=2.4, reference_fwhm=2.3, unit=90.0, background=4e4
)
TELESCOPES = {
    "1.01″/px (like ZTF)": ZTF_LIKE,
    "0.26″/px (like DECam)": DECAM_LIKE,
    "0.2″/px (like Rubin)": RUBIN_LIKE,
    "4.35″/px (a wide camera)": COARSE,
    "1.1″/px, infrared (like WINTER)": INFRARED,
}


def panel(axes: Any, image: np.ndarray, title: str = "", stretch: str = "asinh") -> None:
    axes.imshow(PALETTE[levels(image, stretch)], origin="lower", interpolation="nearest")
    axes.set_title(title, fontsize=9, pad=3)
    axes.set_axis_off()


def frames() -> dict[str, np.ndarray]:
    """Full frames with stars, a galaxy, and a source that only science and difference have."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:240, :240]

    def source(at: tuple[float, float], flux: float, fwhm: float) -> np.ndarray:
        return flux * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) * 4 * np.log(2) / fwhm**2)

    sky = sum(
        source((a, b), f, 3.0)
        for a, b, f in zip(*rng.uniform(0, 240, (2, 45)), rng.pareto(1.1, 45) * 40, strict=True)
    ) + source((PLACE[0] + 6, PLACE[1] - 4), 120, 16)
    new = source(PLACE, 170, 3.0)
    noise = rng.normal(0, 6, (3, 240, 240))
    return {
        "science": (200 + sky + new + noise[0]).astype(np.float32),
        "reference": (200 + sky + 0.5 * noise[1]).astype(np.float32),
        "difference": (new + noise[0] - 0.5 * noise[1]).astype(np.float32),
    }


def pipeline() -> None:
    made = frames()
    (triplet,) = cut_triplets(
        *made.values(), {"x": [PLACE[0]], "y": [PLACE[1]]}, size=63, pixel_scale=1.0, fwhm=3.0
    )
    model = load_model("4class")
    tensor = preprocess([triplet], model.contract)[0][0]
    answer = model.predict([triplet])
    figure = plt.figure(figsize=(7.4, 8.2))
    grid = figure.add_gridspec(4, 3, height_ratios=(1, 1, 1, 0.62), hspace=0.3, wspace=0.06,
                               left=0.13, right=0.98, top=0.96, bottom=0.07)  # fmt: skip
    for k, name in enumerate(CHANNELS):
        axes = figure.add_subplot(grid[0, k])
        panel(axes, made[name], name)
        corner = PLACE[0] - 31.5, PLACE[1] - 31.5
        axes.add_patch(plt.Rectangle(corner, 63, 63, fill=False, edgecolor="#f0e442", linewidth=1.6))
        panel(figure.add_subplot(grid[1, k]), triplet.stamps[k])
        panel(figure.add_subplot(grid[2, k]), tensor[k], stretch="linear")
    axes = figure.add_subplot(grid[3, :])
    values = answer.probabilities[0][::-1]
    axes.barh(answer.classes[::-1], values, color=[COLOURS[3 - k] for k in range(4)])
    for k, value in enumerate(values):
        axes.text(value + 0.01, k, f"{value:.3f}", va="center", fontsize=10)
    axes.set(xlim=(0, 1.12), xlabel="calibrated probability")
    axes.spines[["top", "right"]].set_visible(False)
    for row, text in enumerate(("1  frames", "2  stamps", "3  normalised", "4  answer")):
        height = grid[row, 0].get_position(figure)
        figure.text(
            0.012, (height.y0 + height.y1) / 2, text, rotation=90, va="center", fontsize=12, weight="bold"
        )
    figure.savefig(PICTURES / "pipeline.png", dpi=100, metadata={"Software": None})


def normalising() -> None:
    contract = load_model("realbogus").contract
    figure, panels = plt.subplots(len(TELESCOPES), 4, figsize=(7.4, 10.4))
    for row, (name, telescope) in zip(panels, TELESCOPES.items(), strict=True):
        batch = simulate(60, 5, telescope=telescope, kinds=["supernova"] * 60)
        whole = np.isfinite(batch.triplets).all(axis=(1, 2, 3)) & (batch.snr > 15) & (batch.snr < 60)
        chosen = int(np.flatnonzero(whole)[0])
        stamps, fwhm = batch.triplets[chosen], float(batch.fwhm[chosen])
        triplet = Triplet(*stamps, fwhm=fwhm, pixel_scale=telescope.pixel_scale)
        tensor = preprocess([triplet], contract)[0][0]
        for axes, image in zip(row[:2], (stamps[0], stamps[2]), strict=True):
            panel(axes, image, stretch="linear")
        for axes, image in zip(row[2:], (tensor[0], tensor[2]), strict=True):
            # One scale for all telescopes: they stand on the same footing.
            axes.imshow(image, origin="lower", cmap="gray", vmin=-1.5, vmax=4, interpolation="nearest")
            axes.set_axis_off()
        size, sky = stamps.shape[-1], float(np.median(stamps[0]))
        facts = f"{name}: {size}×{size} px, FWHM {fwhm:.1f} px, sky {sky:.3g}"
        row[0].text(0, 1.04, facts, transform=row[0].transAxes, fontsize=9, weight="bold", va="bottom")
    figure.subplots_adjust(0.01, 0.005, 0.99, 0.932, 0.04, 0.16)
    for x, text in ((0.25, "As the telescope delivers them"), (0.75, "As the network sees them: 63×63 px")):
        figure.text(x, 0.982, text, ha="center", fontsize=11)
    for k in range(4):
        figure.text(0.13 + 0.247 * k, 0.963, CHANNELS[2 * (k % 2)], ha="center", fontsize=9)
    figure.savefig(PICTURES / "normalising.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    pipeline()
    normalising()
