"""Arrays in memory: what preprocess and bookkeeping add to the bare network.

    python benchmarks/score_arrays.py [--n 2048] [--rounds 9]

The bare network runs on ready tensors in batches of 64, with onnxruntime's own threads on all cores and with
one; `classify` is compared with it likewise, and CPU time of preprocess alone is shown. Everything in turn
within a round, so that a load from elsewhere meets all alike; medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numpy as np
from night import median, timed

from transientnet import Triplet, classify, load_model
from transientnet.models.classifier import Classifier
from transientnet.prepare.preprocess import preprocess

SIDE = 63


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=9)
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

    def network(model: Classifier) -> None:
        for start in range(0, len(tensor), 64):
            model.run(tensor[start : start + 64])

    work: dict[str, Callable[[], object]] = {
        "network": lambda: network(every),
        "classify_fwhm_given": lambda: classify(stamps, model=one, fwhm=2.0),
        "classify_fwhm_estimated": lambda: classify(stamps, model=one),
        "network_one_core": lambda: network(one),
        "classify_fwhm_given_one_core": lambda: classify(stamps, model=one, fwhm=2.0, workers=1),
        "preprocess_fwhm_given_one_core": lambda: prepare(known),
        "preprocess_fwhm_estimated_one_core": lambda: prepare(bare),
    }
    rounds = [
        {name: timed(call)[0] / options.n for name, call in work.items()} for _ in range(options.rounds)
    ]

    def added(name: str, network: str) -> float:
        return median(each[name] / each[network] - 1 for each in rounds)

    result = {
        "microseconds_per_triplet": {name: median((each[name] * 1e6 for each in rounds), 1) for name in work},
        "network_stamps_per_second": round(1 / median((each["network"] for each in rounds), 9)),
        "added_to_the_network_fwhm_given": added("classify_fwhm_given", "network"),
        "added_to_the_network_fwhm_estimated": added("classify_fwhm_estimated", "network"),
        "added_to_the_network_fwhm_given_one_core": added("classify_fwhm_given_one_core", "network_one_core"),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
