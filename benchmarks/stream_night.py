"""A night of ten million alerts through ``stream``: latencies, and the cores that keep them short.

    python benchmarks/stream_night.py PACKETS [--alerts 10000000] [--visit 40000] [--every 39] [--spread 5]

Measured: core-seconds that a micro-batch of 1 to 64 packets costs `consume` between the Kafka client and the
disk: decoding, scoring, rows written and synced. A micro-batch of n packets costs a + b·n. The client's own
work is not in it.

Simulated with that: `alerts` come in visits of `visit`, one `every` so many seconds, each spread over
`spread` seconds as its detectors end. One consumer a core, one partition a consumer, alerts dealt out
evenly. A consumer takes what is there when 64 packets are, or a second has gone by, as `consume` does.
Latency is from the arrival of a packet to its row on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from transientnet import Triplet, load_model
from transientnet.models.classifier import Classifier
from transientnet.readers.layouts import load_layout
from transientnet.readers.open import Reading, decode_packet
from transientnet.scoring.kafka import appender

SIZES = (1, 4, 16, 64)
BATCH, PATIENCE = 64, 1.0
"""Of `consume`: most packets of a micro-batch, and seconds that it waits for them."""


def measured(packets: list[bytes], classifier: Classifier, rounds: int) -> dict[int, float]:
    """Core-seconds of a micro-batch, by its packets; the sizes take turns."""
    reading, layout = Reading(), load_layout(None)
    spent: dict[int, list[float]] = {size: [] for size in SIZES}
    with tempfile.TemporaryDirectory() as folder, appender(Path(folder) / "scores.csv") as write:
        for number in range(rounds + 2):
            for size in SIZES:
                begun = time.process_time()
                batch: list[Triplet] = []
                for k in range(size):
                    at = number * size + k
                    batch.extend(decode_packet(packets[at % len(packets)], f"night[0]@{at}", layout))
                write(classifier.predict(list(reading.open(batch)), batch_size=BATCH))
                spent[size].append(time.process_time() - begun)
    # The first rounds warm up.
    return {size: float(np.median(times[2:])) for size, times in spent.items()}


def line(costs: dict[int, float]) -> tuple[float, float]:
    """Seconds of a micro-batch as such, and of each of its packets."""
    sizes = np.array(list(costs), float)
    # Relative errors count: a batch of one matters as much as one of 64.
    weight = 1 / np.array(list(costs.values()))
    slope, offset = np.polyfit(sizes, np.array(list(costs.values())), 1, w=weight)
    return max(float(offset), 0.0), float(slope)


def latencies(arrivals: np.ndarray, start: float, each: float) -> tuple[np.ndarray, float]:
    """Seconds from arrival to row of one consumer's packets, and the seconds that it worked."""
    found, free, at, busy = np.empty(len(arrivals)), 0.0, 0, 0.0
    while at < len(arrivals):
        asked = free + max(0.0, np.floor(arrivals[at] - free)) * PATIENCE
        full = arrivals[at + BATCH - 1] if at + BATCH <= len(arrivals) else np.inf
        taken = max(asked, min(full, asked + PATIENCE))
        count = min(BATCH, int(np.searchsorted(arrivals, taken, "right")) - at)
        cost = start + each * count
        free, busy = taken + cost, busy + cost
        found[at : at + count] = free - arrivals[at : at + count]
        at += count
    return found, busy


def night(cores: int, options: argparse.Namespace, start: float, each: float) -> dict[str, float]:
    """One consumer's share of the night; the others fare alike."""
    rng = np.random.default_rng(0)
    visits = -(-options.alerts // options.visit)
    share = options.visit // cores
    arrivals = np.sort(rng.uniform(0, options.spread, (visits, share)), axis=1)
    found, busy = latencies((arrivals + options.every * np.arange(visits)[:, None]).ravel(), start, each)
    p50, p99, p999 = np.quantile(found, (0.5, 0.99, 0.999))
    return {
        "cores": cores,
        "p50_s": round(float(p50), 2),
        "p99_s": round(float(p99), 2),
        "p99.9_s": round(float(p999), 2),
        "busy": round(busy / (visits * options.every), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("packets", type=Path)
    parser.add_argument("--alerts", type=int, default=10_000_000)
    parser.add_argument("--visit", type=int, default=40_000)
    parser.add_argument("--every", type=float, default=39.0)
    parser.add_argument("--spread", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=40, help="micro-batches of each size that are measured")
    parser.add_argument("--wanted", type=float, default=5.0, help="seconds that p99 shall stay under")
    options = parser.parse_args()
    packets = [path.read_bytes() for path in sorted(options.packets.glob("*.avro"))]
    costs = measured(packets, load_model("realbogus", threads=1), options.rounds)
    start, each = line(costs)
    rows = [night(cores, options, start, each) for cores in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 64)]
    enough = next(
        (cores for cores in range(1, 257) if night(cores, options, start, each)["p99_s"] < options.wanted),
        None,
    )
    print(
        json.dumps(
            {
                "core_ms_per_batch": {size: round(cost * 1e3, 3) for size, cost in costs.items()},
                "core_us_start": round(start * 1e6, 1),
                "core_us_each": round(each * 1e6, 1),
                "nights": rows,
                f"cores_for_p99_under_{options.wanted:g}_s": enough,
                "core_hours": round(options.alerts / BATCH * (start + each * BATCH) / 3600, 2),
                "load": os.getloadavg()[0],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
