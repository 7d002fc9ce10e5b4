"""ZTF Avro packets on disk to CSV: against the broker habit, against the machine's floor, and by workers.

    python benchmarks/score_avro.py PACKETS [--n 20000] [--rounds 3]

PACKETS is a folder of ZTF alert packets, one or a few dozen; a night of `n` files is made of links to them.
The habit is what brokers run: fastavro, gzip and `fits.open` per stamp, one network call per alert, the same
ONNX file. The floor is the time to gunzip the same bytes plus the bare network on ready tensors in batches
of 64, on one core, divided by the cores. Slices of habit and floor alternate with the runs of the command, so
that a load from elsewhere meets all alike; what is printed are medians of the rounds' ratios. The command's
time is that of whole processes; `steady` leaves the start of the processes out, by the difference to a run
over a tenth of the night.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import fastavro
import numpy as np
from astropy.io import fits
from night import Run, links, median, score, timed

from transientnet import load_model
from transientnet.files.compressed import gunzip
from transientnet.models.classifier import Classifier
from transientnet.prepare.preprocess import preprocess
from transientnet.readers.open import open_triplets
from transientnet.settings import cores

CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
#: Alerts of one slice of habit and floor.
SLICE = 192


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("packets", type=Path)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    one, every = load_model("realbogus", threads=1), load_model("realbogus")
    with tempfile.TemporaryDirectory() as temporary:
        folder, part, out = (Path(temporary) / name for name in ("night", "part", "scores.csv"))
        sources = sorted(options.packets.glob("*.avro"))
        files = links(sources, folder, options.n)
        links(sources, part, options.n // 10)
        few = files[:SLICE]
        packed = [
            record[name]["stampData"]  # type: ignore[index, call-overload]
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

        slices: dict[str, Callable[[], None]] = {
            "habit": lambda: habit(few, every),
            "gunzip": unpack,
            "network": network,
        }
        rounds: list[dict[str, float]] = []
        for _ in range(options.rounds):
            seen: dict[str, list[tuple[float, float]]] = {name: [] for name in slices}
            runs: dict[str, Run] = {}
            for name, inputs, workers in (
                ("part", part, cores()),
                ("one", folder, 1),
                ("all", folder, cores()),
            ):
                for slice_name, call in slices.items():
                    seen[slice_name].append(timed(call))
                runs[name] = score([inputs], out, "--workers", str(workers))
            for slice_name, call in slices.items():
                seen[slice_name].append(timed(call))
            rounds.append(_round(seen, runs, options.n))
    print(json.dumps({"alerts": options.n, "cores": cores(), **_medians(rounds)}, indent=2))


def _round(seen: dict[str, list[tuple[float, float]]], runs: dict[str, Run], n: int) -> dict[str, float]:
    wall = {name: sum(w for w, _ in times) / len(times) / SLICE for name, times in seen.items()}
    cpu = {name: sum(c for _, c in times) / len(times) / SLICE for name, times in seen.items()}
    whole, part = runs["all"], runs["part"]
    steady = (whole.wall - part.wall) / (n - n // 10)
    steady_cpu = (whole.cpu - part.cpu) / (n - n // 10)
    floor = (wall["gunzip"] + wall["network"]) / cores()
    return {
        **{f"{name}_us": w * 1e6 for name, w in wall.items()},
        "score_us": whole.wall / n * 1e6,
        "score_core_us": whole.cpu / n * 1e6,
        "steady_core_us": steady_cpu * 1e6,
        "alerts_per_second": n / whole.wall,
        "times_the_habit": wall["habit"] * n / whole.wall,
        "times_the_habit_steady": wall["habit"] / steady,
        "share_of_floor": floor * n / whole.wall,
        "share_of_floor_steady": floor / steady,
        "share_of_floor_steady_cpu": (cpu["gunzip"] + cpu["network"]) / steady_cpu,
        "all_cores_over_one_worker": runs["one"].wall / whole.wall,
    }


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: median((each[key] for each in rounds), 1 if key.endswith("us") else 2) for key in rounds[0]}


if __name__ == "__main__":
    main()
