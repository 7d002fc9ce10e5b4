"""Arrays in memory: what preprocess and bookkeeping add to the bare network.

    python benchmarks/score_arrays.py [--n 2048] [--rounds 5]

Wall time on all cores of `classify`, of the bare network on ready tensors with onnxruntime's own threads, and
CPU time of preprocess alone on one core; the best round of each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from transientnet import Triplet, classify, load_model
from transientnet.preprocess import preprocess

SIDE = 63


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    stamps = rng.normal(200, 10, (options.n, 3, SIDE, SIDE)).astype(np.float32)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    stamps[:, ::2] += (rng.uniform(0, 3000, (options.n, 1, 1)) * np.exp(-(x**2 + y**2) / 2.0))[:, None]
    one, every = load_model("realbogus", threads=1), load_model("realbogus")
    bare = [Triplet(*stamp) for stamp in stamps]
    known = [Triplet(*stamp, fwhm=2.0) for stamp in stamps]
    tensor = preprocess(bare, one.contract).tensor

    def prepare(triplets: list[Triplet]) -> None:
        for start in range(0, len(triplets), 64):
            preprocess(triplets[start : start + 64], one.contract)

    def network(model: object) -> None:
        for start in range(0, len(tensor), 64):
            model.run(tensor[start : start + 64])  # type: ignore[attr-defined]

    work: dict[str, tuple[Callable[[], object], Callable[[], float]]] = {
        "network_wall": (lambda: network(every), time.perf_counter),
        "classify_fwhm_estimated_wall": (lambda: classify(stamps, model=one), time.perf_counter),
        "classify_fwhm_given_wall": (lambda: classify(stamps, model=one, fwhm=2.0), time.perf_counter),
        "network_one_core_cpu": (lambda: network(one), time.process_time),
        "preprocess_fwhm_estimated_cpu": (lambda: prepare(bare), time.process_time),
        "preprocess_fwhm_given_cpu": (lambda: prepare(known), time.process_time),
    }
    best: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, (call, clock) in work.items():
            started = clock()
            call()
            took = (clock() - started) / options.n * 1e6
            best[name] = min(took, best.get(name, took))
    result = {
        "microseconds_per_triplet": {name: round(value, 1) for name, value in best.items()},
        "added_to_the_network_fwhm_given": round(
            best["classify_fwhm_given_wall"] / best["network_wall"] - 1, 3
        ),
        "added_to_the_network_fwhm_estimated": round(
            best["classify_fwhm_estimated_wall"] / best["network_wall"] - 1, 3
        ),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
