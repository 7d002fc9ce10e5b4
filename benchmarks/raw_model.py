"""The raw model against the Python path: the same answers on every stamp there is, and how fast.

    python benchmarks/raw_model.py [--data FOLDER] [--random 10000] [--models realbogus 3class 4class]
                                   [--repeats 9] [--no-speed]

Parity: simulated stamps, good and ugly, of many shapes; with ``--data``, the folder of survey data that the
tests use, every stamp of the sets ztf, decam and rubin (FWHM as listed, unknown, and three fixed ones) and
every packet. Exit 1 if one flag or one probability (by more than 1e-4) differs.

Speed: stamps per second of the raw model and of `Classifier.predict` on arrays in memory, batches of 64, in
turn within a round, medians of the rounds, on one core and on all.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from night import median, timed

from transientnet import load_model, open_triplets
from transientnet.models.raw import raw_path
from transientnet.models.raw_parity import Inputs, as_inputs, as_triplets, compare, hard_stamps, open_raw
from transientnet.settings import cores

BATCH = 64
FIXED_FWHM = (0.0, 2.0, 5.2, 9.0)


def survey_stamps(folder: Path) -> Iterator[Inputs]:
    """Every stamp of a set, with its own FWHM where the table has it, and with fixed ones."""
    stamps = np.load(folder / "stamps.npz")["triplets"].astype(np.float32)
    with open(folder / "labels.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = [name for name in ("fwhm_px", "fwhm_sci_px", "psf") if name in rows[0]]
    own = [float(row[columns[0]] or 0) if columns else 0.0 for row in rows]
    for fwhm in (np.array(own, np.float32), *(np.full(len(stamps), f, np.float32) for f in FIXED_FWHM)):
        for start in range(0, len(stamps), BATCH):
            yield Inputs(stamps[start : start + BATCH], fwhm[start : start + BATCH])


def packets(folder: Path) -> Iterator[Inputs]:
    """Every candidate of every packet, with the FWHM that the file says."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".csv" and "frames" not in str(path):
            yield from as_inputs(open_triplets(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--random", type=int, default=10_000)
    parser.add_argument("--models", nargs="+", default=["realbogus", "3class", "4class"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-speed", action="store_true")
    options = parser.parse_args()
    sources: dict[str, Callable[[], Iterable[Inputs]]] = {
        "simulated": lambda: hard_stamps(options.random, seed=2024)
    }
    if options.data:
        for name in ("ztf", "decam", "rubin"):
            sources[name] = lambda name=name: survey_stamps(options.data / name)
        sources["packets"] = lambda: packets(options.data / "packets")
    result: dict[str, dict[str, object]] = {}
    failed = False
    for model in options.models:
        classifier, session = load_model(model), open_raw(str(raw_path(model)), threads=cores())
        for name, inputs in sources.items():
            found = [compare(session, classifier, batch) for batch in inputs()]
            row = {
                "n": sum(one.n for one in found),
                "other_flags": sum(len(one.flags) for one in found),
                "beyond_tolerance": sum(len(one.rows) for one in found),
                "largest_deviation": max((one.deviation for one in found), default=0.0),
            }
            failed |= bool(row["other_flags"] or row["beyond_tolerance"])
            result[f"{model} {name}"] = row
    if not options.no_speed:
        result |= speed(options.repeats, options.data)
    print(json.dumps(result, indent=2))
    sys.exit(failed)


def speed(repeats: int, data: Path | None) -> dict[str, dict[str, object]]:
    """Stamps per second both ways."""
    rng = np.random.default_rng(0)
    stamps = {"simulated 63x63": rng.normal(200, 10, (512, 3, 63, 63)).astype(np.float32)}
    if data:
        for name in ("ztf", "decam", "rubin"):
            stamps[name] = np.load(data / name / "stamps.npz")["triplets"][:512].astype(np.float32)
    result: dict[str, dict[str, object]] = {}
    for threads in sorted({1, cores()}):
        classifier = load_model("realbogus", threads=threads)
        session = open_raw(str(raw_path("realbogus")), threads=threads)
        for name, images in stamps.items():
            for fwhm in (2.0, 0.0):
                inputs = Inputs(images, np.full(len(images), fwhm, np.float32))
                triplets = as_triplets(inputs)

                def raw(inputs: Inputs = inputs, session: object = session) -> None:
                    for start in range(0, len(inputs.fwhm), BATCH):
                        part = {key: value[start : start + BATCH] for key, value in inputs._asdict().items()}
                        session.run(None, part)  # type: ignore[attr-defined]

                rounds = [
                    (timed(raw)[0], timed(lambda: classifier.predict(triplets))[0])  # noqa: B023
                    for _ in range(repeats)
                ]
                result[f"{name}, fwhm {'given' if fwhm else 'unknown'}, {threads} threads"] = {
                    "raw_stamps_per_second": round(len(images) / median(each[0] for each in rounds)),
                    "python_stamps_per_second": round(len(images) / median(each[1] for each in rounds)),
                    "raw_over_python": round(median(each[1] / each[0] for each in rounds), 2),
                }
    return result


if __name__ == "__main__":
    main()
