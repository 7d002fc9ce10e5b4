"""Draw the pictures of the page "When it is wrong": simulated candidates and what the model says of them.

python docs/pictures/when_it_is_wrong.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from contact_sheet import draw  # noqa: E402

from training_reference.simulator import DECAM_LIKE, ZTF_LIKE, Simulated, Telescope, simulate  # noqa: E402
from transientnet import Triplet, load_model  # noqa: E402

#: A large telescope with small stamps, and a reference sharper than the exposure.
RUBIN_LIKE = replace(
    DECAM_LIKE, pixel_scale=0.2, size=41, fwhm=5.5, reference_fwhm=4.0, ellipticity=0.12,
    science_tracking=0.4, shape_error=0.1, science_smoothing=0.3,
)  # fmt: skip
DEFOCUSED = replace(RUBIN_LIKE, science_defocus=0.9, size=51)
ZTF, LARGE = ("1.0″/px", ZTF_LIKE), ("0.2″/px", RUBIN_LIKE)
SHOWN, TRIES = 6, 12


def bright(batch: Simulated) -> np.ndarray:
    return batch.saturated & (batch.snr > 150)


def trailed(batch: Simulated) -> np.ndarray:
    return (batch.trail > 1.5 * batch.fwhm) & (batch.snr > 10)


def faint(batch: Simulated) -> np.ndarray:
    return (batch.snr > 4) & (batch.snr < 7)


def detected(batch: Simulated) -> np.ndarray:
    return batch.snr > 6


#: Picture: the kinds of candidates, which of them, and telescopes.
PICTURES = {
    "bright": (("supernova", "hostless", "variable star"), bright, (ZTF, LARGE)),
    "trails": (("asteroid",), trailed, (ZTF, LARGE)),
    "faint": (("hostless", "noise peak"), faint, (ZTF, LARGE)),
    "residuals": (("dipole", "saturated core"), detected, (ZTF, LARGE)),
    "seeing": (("shape mismatch",), detected, (LARGE, ("out of focus", DEFOCUSED))),
    "cosmic_rays": (("cosmic ray",), detected, (ZTF, LARGE)),
    "reflections": (("ghost", "spike", "crosstalk"), detected, (ZTF, LARGE)),
}


def chosen(
    kinds: tuple[str, ...], wanted: Callable[[Simulated], np.ndarray], telescope: Telescope, seed: int
) -> list[tuple[str, Triplet]]:
    """Candidates of the kinds in turn, without missing pixels."""
    found: dict[str, list[tuple[str, Triplet]]] = {kind: [] for kind in kinds}
    each = -(-SHOWN // (2 * len(kinds)))
    for attempt in range(TRIES):
        batch = simulate(24 * len(kinds), 100 * seed + attempt, telescope=telescope, kinds=list(kinds) * 24)
        whole = np.isfinite(batch.triplets).all(axis=(1, 2, 3))
        for row in np.flatnonzero(wanted(batch) & whole):
            mine = found[str(batch.kind[row])]
            # One of a batch is enough: the next is under another seeing.
            if len(mine) == min(attempt + 1, each):
                continue
            name = f"{batch.kind[row]}, {batch.snr[row]:.0f}σ"
            mine.append((name, Triplet(*batch.triplets[row], fwhm=float(batch.fwhm[row]))))
    return [example for mine in found.values() for example in mine][: SHOWN // 2]


def main() -> None:
    """One picture for each family."""
    model = load_model("realbogus")
    for number, (name, (kinds, wanted, telescopes)) in enumerate(PICTURES.items()):
        examples = [
            (f"{where}: {title}", triplet)
            for where, telescope in telescopes
            for title, triplet in chosen(kinds, wanted, telescope, 40 + number)
        ]
        real = model.predict([triplet for _, triplet in examples]).probabilities[:, 1]
        titles = [f"{title}  p(real) {p:.2f}" for (title, _), p in zip(examples, real, strict=True)]
        draw(f"wrong_{name}.png", [triplet for _, triplet in examples], titles)


if __name__ == "__main__":
    main()
