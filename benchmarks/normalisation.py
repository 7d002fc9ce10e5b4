"""Does it serve better to bring stamps to a pixel scale or to a FWHM in pixels? Real/bogus AUC under each.

    python benchmarks/normalisation.py --decam FOLDER --ztf FOLDER

Each FOLDER holds ``stamps.npz`` (``triplets``; DECam's ``tick_mask`` is missing pixels) and ``labels.csv``.
DECam (0.263 arcsec/px, labelled by people) is scored by the bundled model with its FWHM given, with the FWHM
estimated from the stamps, at its own sampling, and resampled to ZTF's 1.01 arcsec/px; ZTF with its stamps
spread by factors, as a telescope of finer pixels or a night of worse seeing would send them. All figures
have 95 % intervals that resample whole sky objects.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from transientnet import QualityFlag, Triplet, load_model
from transientnet.evaluation.metrics import roc_auc
from transientnet.evaluation.statistics import bootstrap
from transientnet.models.classifier import Classifier

FWHM_PER_SIGMA = 2.3548
DECAM_SCALE, ZTF_SCALE = 0.263, 1.01
#: A FWHM that is known to be sharp: the stamp is left at its own sampling.
SHARP = 2.0


@dataclass(frozen=True)
class Survey:
    """Labelled stamps (N, 3, H, W), their sky objects, and the seeing in pixels (NaN where unknown)."""

    stamps: npt.NDArray[np.float32]
    real: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.str_]
    fwhm: npt.NDArray[np.float64]

    def select(self, where: npt.NDArray[np.bool_]) -> Survey:
        return Survey(self.stamps[where], self.real[where], self.groups[where], self.fwhm[where])


def load(folder: Path, label: str, group: str, fwhm: str, factor: float) -> Survey:
    with np.load(folder / "stamps.npz", allow_pickle=False) as archive:
        stamps = archive["triplets"].astype(np.float32)
        if "tick_mask" in archive:
            stamps[:, :, archive["tick_mask"]] = np.nan
    with open(folder / "labels.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    known = np.array([row[label] in ("real", "bogus") for row in rows])
    seeing = np.array([float(row[fwhm] or "nan") for row in rows]) * factor
    labels = np.array([row[label] for row in rows])
    return Survey(stamps, labels == "real", np.array([row[group] for row in rows]), seeing).select(known)


def spread(stamps: npt.NDArray[np.float32], factor: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The same field with pixels finer by `factor`: flux conserved, and the photon noise that finer pixels
    have of themselves is added, so that the stamp is not betrayed by its smoothness."""
    from scipy.ndimage import zoom

    out = []
    for stamp in stamps.reshape(-1, *stamps.shape[2:]):
        sky = float(np.nanmedian(stamp))
        noise = 1.4826 * float(np.nanmedian(np.abs(stamp - sky)))
        fine = zoom(np.where(np.isfinite(stamp), stamp, sky), factor, order=3, grid_mode=True, mode="nearest")
        fine /= factor**2
        # Of f x f fine pixels the means keep the coarse pixel's noise, which the zoom carries already.
        white = rng.normal(0, noise / factor, fine.shape)
        blocks = white.reshape(stamp.shape[0], factor, stamp.shape[1], factor)
        blocks -= blocks.mean(axis=(1, 3), keepdims=True)
        fine += white
        holes = np.kron(~np.isfinite(stamp), np.ones((factor, factor), bool))
        fine[holes] = np.nan
        out.append(fine.astype(np.float32))
    return np.array(out).reshape(*stamps.shape[:2], *out[0].shape)


def to_scale(stamp: npt.NDArray[np.float32], ratio: float) -> npt.NDArray[np.float32]:
    """A stamp averaged onto pixels larger by `ratio`, NaN-aware, around the same centre."""
    height, width = stamp.shape
    rows, columns = (_weights(n, max(round(n / ratio) // 2 * 2 + 1, 1), ratio) for n in (height, width))
    seen = np.isfinite(stamp)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (rows @ np.where(seen, stamp, 0) @ columns.T) / (rows @ seen.astype(np.float64) @ columns.T)
    return np.asarray(means, np.float32)


def _weights(length: int, size: int, ratio: float) -> npt.NDArray[np.float64]:
    low = (np.arange(size) - size / 2) * ratio + length / 2
    edges = np.arange(length)
    return np.clip(np.minimum(low[:, None] + ratio, edges + 1) - np.maximum(low[:, None], edges), 0, None)


def report(name: str, classifier: Classifier, triplets: list[Triplet], survey: Survey) -> None:
    predictions = classifier.predict(triplets)
    p = predictions.probabilities[:, list(classifier.classes).index("real")]
    scored = np.isfinite(p)
    kept = survey.select(scored)
    auc = roc_auc(p[scored], kept.real)
    low, high = bootstrap(lambda w: roc_auc(p[scored], kept.real, w), kept.groups, len(kept.real))
    shrunk = np.mean((predictions.quality & QualityFlag.RESAMPLED) != 0)
    print(
        f"{name:44s} {scored.sum():5d} of {len(p):5d}  {auc:.4f} ({low:.4f}-{high:.4f})  {shrunk:6.1%}",
        flush=True,
    )


def triplets(stamps: Any, fwhm: Any = None) -> list[Triplet]:
    seeing = np.full(len(stamps), np.nan) if fwhm is None else np.broadcast_to(fwhm, len(stamps))
    return [
        Triplet(*images, fwhm=float(f) if np.isfinite(f) else None)
        for images, f in zip(stamps, seeing, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decam", type=Path)
    parser.add_argument("--ztf", type=Path)
    parser.add_argument("--most", type=int, default=400, help="ZTF stamps of each class")
    args = parser.parse_args()
    classifier = load_model("realbogus")
    print(f"{classifier.record.id}: broadest FWHM {classifier.contract.fwhm_px[1]} px")
    print(f"{'stamps':44s} {'scored':>13s}  AUC (95 % interval)     shrunk")

    if args.decam:
        decam = load(args.decam, "label", "snid", "psf", FWHM_PER_SIGMA)
        print(f"DECam, {DECAM_SCALE} arcsec/px, median FWHM {np.nanmedian(decam.fwhm):.1f} px")
        ratio = ZTF_SCALE / DECAM_SCALE
        report("DECam, FWHM given", classifier, triplets(decam.stamps, decam.fwhm), decam)
        report("DECam, FWHM estimated from the stamp", classifier, triplets(decam.stamps), decam)
        report("DECam, own sampling", classifier, triplets(decam.stamps, SHARP), decam)
        coarse = [[to_scale(plane, ratio) for plane in images] for images in decam.stamps]
        report(f"DECam, resampled to {ZTF_SCALE} arcsec/px", classifier, triplets(coarse, SHARP), decam)
        for target in (4.0, 3.0, 2.0):
            coarse = [
                [to_scale(plane, max(seeing / target, 1)) for plane in images]
                for images, seeing in zip(decam.stamps, decam.fwhm, strict=True)
            ]
            report(f"DECam, resampled to FWHM {target} px", classifier, triplets(coarse, SHARP), decam)
        fine = spread(decam.stamps, 2, np.random.default_rng(0))
        report("DECam spread by 2, FWHM given", classifier, triplets(fine, 2 * decam.fwhm), decam)
        report("DECam spread by 2, FWHM estimated", classifier, triplets(fine), decam)
        report("DECam spread by 2, own sampling", classifier, triplets(fine, SHARP), decam)

    if args.ztf:
        ztf = load(args.ztf, "vetted", "objectId", "fwhm_px", 1.0)
        rng = np.random.default_rng(0)
        chosen = np.zeros(len(ztf.real), bool)
        for kind in (True, False):
            members = np.flatnonzero(ztf.real == kind)
            chosen[rng.permutation(members)[: args.most]] = True
        ztf = replace(ztf.select(chosen), fwhm=np.full(chosen.sum(), SHARP))
        print(f"ZTF, {ZTF_SCALE} arcsec/px, labels by eye; its own sampling, then spread")
        report("ZTF, own sampling", classifier, triplets(ztf.stamps, ztf.fwhm), ztf)
        for factor in (2, 3, 4):
            fine = spread(ztf.stamps, factor, rng)
            name = f"ZTF spread by {factor}"
            report(f"{name}, FWHM given", classifier, triplets(fine, ztf.fwhm * factor), ztf)
            report(f"{name}, FWHM estimated", classifier, triplets(fine), ztf)
            report(f"{name}, own sampling", classifier, triplets(fine, SHARP), ztf)
            coarse = [[to_scale(plane, factor) for plane in images] for images in fine]
            report(f"{name}, resampled to {ZTF_SCALE} arcsec/px", classifier, triplets(coarse, SHARP), ztf)


if __name__ == "__main__":
    main()
