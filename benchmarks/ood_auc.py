"""How well are foreign and corrupted stamps told from a model's own kind?

    python benchmarks/ood_auc.py --data ../shared/data [--model realbogus]

Half of the ZTF objects fit each method, the other half stands for what must pass; then the halves
change places. Prints, per method, the area under the ROC curve (foreign against own, mean of both
halves), and for the method that the model's flag rests on the interval and the share that is flagged.
Foreign telescopes should not be flagged where the model judges them well; broken stamps should.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from transientnet import Classifier, Triplet, load_model, open_triplets
from transientnet.evaluation.metrics import roc_auc
from transientnet.evaluation.statistics import bootstrap
from transientnet.models.outliers import fit_reference, input_statistics, ood_score
from transientnet.prepare.preprocess import preprocess

PER_CORRUPTION = 400
Stamps = list[np.ndarray]


def smoothed(stamp: np.ndarray) -> np.ndarray:
    image = np.where(np.isfinite(stamp), stamp, np.nanmedian(stamp))
    return sum(np.roll(image, (a, b), (0, 1)) for a in range(-2, 3) for b in range(-2, 3)) / 25


def corruptions(rng: np.random.Generator) -> dict[str, Callable[[Stamps], Stamps]]:
    def bars(stamps: Stamps) -> Stamps:
        for stamp in stamps:
            stamp[:, rng.integers(0, 63, 6)] = np.nanmax(stamp)
        return stamps

    return {
        "channels turned": lambda s: [s[1], s[2], s[0]],
        "science, difference swapped": lambda s: [s[2], s[1], s[0]],
        "bright columns": bars,
        "saturated at 70th percentile": lambda s: [np.minimum(x, np.nanpercentile(x, 70)) for x in s],
        "gradient": lambda s: [x + 20 * np.nanstd(x) * np.linspace(0, 1, 63) for x in s],
        "pixels shuffled": lambda s: [rng.permutation(x.ravel()).reshape(x.shape) for x in s],
        "smoothed": lambda s: [smoothed(x) for x in s],
    }


def samples(data: Path, own: list[Triplet]) -> Iterator[tuple[str, list[Triplet]]]:
    rng = np.random.default_rng(0)
    yield "pure noise", [Triplet(*rng.normal(100, 10, (3, 63, 63)), fwhm=2.0) for _ in range(PER_CORRUPTION)]
    chosen = rng.choice(len(own), PER_CORRUPTION, replace=False)
    for name, spoil in corruptions(rng).items():
        yield (
            name,
            [Triplet(*spoil([stamp.copy() for stamp in own[i].stamps]), fwhm=own[i].fwhm) for i in chosen],
        )
    with np.load(data / "decam" / "stamps.npz") as source:
        stamps = source["triplets"].astype(np.float32)
        stamps[:, :, source["tick_mask"]] = np.nan
    yield "DECam stamps", [Triplet(*stamp) for stamp in stamps]
    for survey in ("winter", "pgir", "turbo", "decam", "rubin", "ztf"):
        paths = sorted((data / "packets" / survey).glob("*.avro"))
        yield f"{survey} packets", [t for t in open_triplets(paths) if t.error is None]


def measured(classifier: Classifier, triplets: list[Triplet]) -> tuple[np.ndarray, ...]:
    """Tensor, flags, logits, features and oddity (NaN where the network gives none) of usable triplets."""
    parts = []
    for start in range(0, len(triplets), 64):
        tensor, quality, usable = preprocess(triplets[start : start + 64], classifier.contract)
        if usable.any():
            answers = classifier.run_all(tensor[usable])
            oddity = answers.get("oddity", np.full((int(usable.sum()), 1), np.nan, np.float32))[:, 0]
            parts.append((tensor[usable], quality[usable], answers["logits"], answers["features"], oddity))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def whitening(train: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-6
    values, vectors = np.linalg.eigh(np.cov(((train - mean) / spread).T))
    return lambda x: ((x - mean) / spread) @ vectors / np.sqrt(values + 0.01 * values.mean())


def nearest(train: np.ndarray, x: np.ndarray, k: int = 5) -> np.ndarray:
    squares = (x**2).sum(axis=1)[:, None] + (train**2).sum(axis=1) - 2 * x @ train.T
    return np.sort(squares, axis=1)[:, k - 1]


def methods(train: tuple, classes: tuple[str, ...], groups: np.ndarray) -> dict[str, Callable]:
    tensor, quality, logits, features, oddity = train
    white, statistics = whitening(features), input_statistics(tensor)
    white_inputs = whitening(statistics)
    own = np.full(logits.shape, 1 / logits.shape[1])
    reference = fit_reference(tensor, own, quality, classes, groups=groups)
    return {
        "energy": lambda t, q, z, f, o: -np.log(np.exp(z - z.max()).sum(axis=1)) - z.max(),
        "features, Mahalanobis": lambda t, q, z, f, o: (white(f) ** 2).sum(axis=1),
        "features, 5th neighbour": lambda t, q, z, f, o: nearest(white(features), white(f)),
        "inputs, Mahalanobis": lambda t, q, z, f, o: (white_inputs(input_statistics(t)) ** 2).sum(axis=1),
        "inputs, 5th neighbour": lambda t, q, z, f, o: nearest(
            white_inputs(statistics), white_inputs(input_statistics(t))
        ),
        "inputs, normal scores": lambda t, q, z, f, o: ood_score(t, q, reference),
        **({} if np.isnan(oddity).any() else {"the network's own output": lambda t, q, z, f, o: o}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="realbogus")
    arguments = parser.parse_args()
    classifier = load_model(arguments.model, threads=1)
    with open(arguments.data / "ztf" / "labels.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with np.load(arguments.data / "ztf" / "stamps.npz") as source:
        stamps = source["triplets"]
    own = [Triplet(*s, fwhm=float(r["fwhm_px"] or "nan")) for s, r in zip(stamps, rows, strict=True)]
    groups = np.unique([row["objectId"] for row in rows], return_inverse=True)[1]
    half = groups % 2 == 0
    home = measured(classifier, own)
    foreign = {name: measured(classifier, triplets) for name, triplets in samples(arguments.data, own)}
    table: dict[str, dict[str, list[float]]] = {}
    detail: dict[str, list[tuple[float, float, float, float]]] = {}
    for train in (half, ~half):
        fitted = methods(tuple(part[train] for part in home), classifier.classes, groups[train])
        # The flag rests on the last one: its threshold is the record's, or 1.
        flag = list(fitted)[-1]
        limit = classifier.record.reference.get("oddity", {}).get("threshold", 1.0)
        for method, score in fitted.items():
            passing = score(*(part[~train] for part in home))
            for name, parts in foreign.items():
                scores = np.concatenate([passing, score(*parts)])
                truth = np.arange(len(scores)) >= len(passing)
                area = roc_auc(scores, truth)
                table.setdefault(method, {}).setdefault(name, []).append(area)
                if method == flag:
                    sky = np.concatenate([groups[~train], groups.max() + 1 + np.arange(len(parts[0]))])
                    low, high = bootstrap(
                        lambda w, s=scores, y=truth: roc_auc(s, y, w), sky, len(sky), resamples=200
                    )
                    detail.setdefault(name, []).append((area, low, high, (scores[truth] > limit).mean()))
    print(f"{'method':33}" + "".join(f"{name[:10]:>11}" for name in foreign))
    for method, areas in table.items():
        print(f"{method:33}" + "".join(f"{np.mean(values):11.3f}" for values in areas.values()))
    print(f"\n{flag:30}{'n':>6}{'AUC':>8}  95 % interval   flagged")
    for name, values in detail.items():
        area, low, high, flagged = np.mean(values, axis=0)
        print(
            f"{name:30}{len(foreign[name][0]):6}{area:8.3f}  {low:.3f} to {high:.3f}  {100 * flagged:6.1f} %"
        )


if __name__ == "__main__":
    main()
