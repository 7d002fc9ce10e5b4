"""ZTF Avro packets on disk to CSV: against the broker habit, against the machine's floor, and by workers.

    python benchmarks/score_avro.py PACKETS [--n 2000] [--rounds 3]

PACKETS is a folder of ZTF alert packets, one or a few dozen; they are copied `n` times. The habit is what
brokers run: fastavro, gzip and `fits.open` per stamp, one network call per alert, the same ONNX file. The
floor is the time to gunzip the same bytes plus the bare network on ready tensors in batches of 64, on one
core, divided by the cores. Wall time, the best round; everything in turn within a round, so that a load
from elsewhere meets all alike.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fastavro
import numpy as np
from astropy.io import fits

from transientnet import load_model
from transientnet.classifier import Classifier
from transientnet.preprocess import preprocess
from transientnet.readers import open_triplets
from transientnet.readers.stamp import gunzip
from transientnet.scoring.engine import cores

CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")


def habit(files: list[Path], model: Classifier) -> None:
    """Score as alert brokers do."""
    with open("/dev/null", "w") as out:
        for file in files:
            with open(file, "rb") as stream:
                for packet in fastavro.reader(stream):
                    stamps = []
                    for name in CUTOUTS:
                        plain = gzip.decompress(packet[name]["stampData"])
                        with fits.open(io.BytesIO(plain)) as hdus:
                            stamp = np.nan_to_num(hdus[0].data.astype(np.float32))
                        stamp /= np.linalg.norm(stamp) or 1.0
                        full = np.zeros((63, 63), np.float32)
                        full[: stamp.shape[0], : stamp.shape[1]] = stamp
                        stamps.append(full)
                    p = model.probabilities(model.run(np.stack(stamps)[None])[0])
                    out.write(f"{packet['candid']},{p[0, 1]}\n")


def score(folder: Path, workers: int) -> None:
    """The command, process start included."""
    command = [sys.executable, "-m", "transientnet", "score", str(folder), "--workers", str(workers)]
    subprocess.run([*command, "-o", str(folder.parent / "scores.csv")], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("packets", type=Path)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sources = sorted(options.packets.glob("*.avro"))
    one, all_cores = load_model("realbogus", threads=1), load_model("realbogus")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "night"
        folder.mkdir()
        files = [folder / f"{i:07d}.avro" for i in range(options.n)]
        for i, file in enumerate(files):
            shutil.copyfile(sources[i % len(sources)], file)
        few = files[: max(64, options.n // 10)]

        packed = [
            record[name]["stampData"]
            for file in few
            for record in fastavro.reader(file.open("rb"))
            for name in CUTOUTS
        ]
        tensor = preprocess(list(open_triplets([str(f) for f in few])), one.contract).tensor

        def unpack() -> None:
            for stamp in packed:
                gunzip(stamp, 2**20)

        def network() -> None:
            for start in range(0, len(tensor), 64):
                one.run(tensor[start : start + 64])

        work: dict[str, tuple[Callable[[], None], int]] = {
            "habit": (lambda: habit(few, all_cores), len(few)),
            "gunzip": (unpack, len(few)),
            "network": (network, len(few)),
            "score_1": (lambda: score(folder, 1), len(files)),
            f"score_{cores()}": (lambda: score(folder, cores()), len(files)),
        }
        seconds: dict[str, float] = {}
        for _ in range(options.rounds):
            for name, (call, n) in work.items():
                started = time.perf_counter()
                call()
                took = (time.perf_counter() - started) / n
                seconds[name] = min(took, seconds.get(name, took))
    best = seconds[f"score_{cores()}"]
    floor = (seconds["gunzip"] + seconds["network"]) / cores()
    result = {
        "alerts": options.n,
        "cores": cores(),
        "microseconds_per_alert": {name: round(s * 1e6, 1) for name, s in seconds.items()},
        "alerts_per_second": round(1 / best),
        "times_the_habit": round(seconds["habit"] / best, 2),
        "share_of_floor": round(floor / best, 3),
        "all_cores_over_one_worker": round(seconds["score_1"] / best, 2),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
