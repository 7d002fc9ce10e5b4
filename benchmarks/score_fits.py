"""FITS triplets on disk to CSV, against a loop over `fits.open`.

    python benchmarks/score_fits.py [FILES] [--n 8000] [--rounds 3]

FILES is a folder of triplets, one candidate a file; without it they are simulated: science, reference and
difference as named extensions of 63 x 63 pixels, with the header that a pipeline writes. A night of `n` files
is made of links to them. The loop opens each file with `fits.open`, divides each stamp by its norm and calls
the same ONNX file once per candidate. Slices of the loop alternate with runs of the command; medians.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from astropy.io import fits
from night import links, median, score, timed

from transientnet import load_model
from transientnet.models.classifier import Classifier
from transientnet.settings import cores

NAMES = ("SCI", "REF", "DIFF")
SLICE = 192


def simulate(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-31:32, -31:32]
    for i in range(count):
        images = rng.normal(200, 10, (3, 63, 63))
        images[::2] += rng.uniform(50, 3000) * np.exp(-(x**2 + y**2) / 2.0)
        header = fits.Header({"CANDID": i, "RA": rng.uniform(0, 360), "DEC": 30.0, "SEEING": 0.94})
        hdus = [fits.PrimaryHDU(header=header)]
        for name, image in zip(NAMES, images, strict=True):
            cards = {f"CD{k}_{k}": 0.4 / 3600 for k in (1, 2)} | {"MAGZP": 25.0, "EXPTIME": 60.0}
            hdus.append(fits.ImageHDU(image.astype(np.float32), fits.Header(cards), name=name))
        fits.HDUList(hdus).writeto(folder / f"c{i:04d}.fits")


def loop(files: list[Path], model: Classifier) -> None:
    """Score as a script does."""
    with open("/dev/null", "w") as out:
        for file in files:
            with fits.open(file) as hdus:
                stamps = [np.nan_to_num(hdus[name].data.astype(np.float32)) for name in NAMES]
            stamps = [stamp / (np.linalg.norm(stamp) or 1.0) for stamp in stamps]
            p = model.probabilities(model.run(np.stack(stamps)[None].astype(np.float32))[0])
            out.write(f"{file},{p[0, 1]}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="?")
    parser.add_argument("--n", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    every = load_model("realbogus")
    with tempfile.TemporaryDirectory() as temporary:
        folder, out = Path(temporary) / "night", Path(temporary) / "scores.csv"
        source = options.files
        if source is None:
            source = Path(temporary) / "simulated"
            source.mkdir()
            simulate(source, 200)
        files = links(sorted(source.glob("*.fits")), folder, options.n)
        rounds = []
        for _ in range(options.rounds):
            before = timed(lambda: loop(files[:SLICE], every))
            run = score([folder], out, "--workers", str(cores()))
            after = timed(lambda: loop(files[:SLICE], every))
            wall = (before[0] + after[0]) / (2 * SLICE)
            rounds.append((wall * 1e6, run.wall / options.n * 1e6, wall * options.n / run.wall))
    result = {
        "files": options.n,
        "cores": cores(),
        "loop_us": median((each[0] for each in rounds), 1),
        "score_us": median((each[1] for each in rounds), 1),
        "times_the_loop": median(each[2] for each in rounds),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
