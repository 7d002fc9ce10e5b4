"""Triplets per second and core of the simulator and of semi-synthesis.

    python benchmarks/simulator_speed.py [--batches 4]

Processor time, one thread: multiply by the cores that run processes of their own.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training_reference.semisynthetic import SemiSynthesizer
from training_reference.simulator import DECAM_LIKE, ZTF_LIKE, simulate

BATCH = 128


def rate(work: Callable[[int], object], batches: int) -> float:
    """Candidates per second of processor time, after one batch to warm up."""
    work(0)
    started = time.process_time()
    for seed in range(1, batches + 1):
        work(seed)
    return BATCH * batches / (time.process_time() - started)


def main() -> None:
    """Print a row per case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=4, help="batches of 128 per case")
    batches = parser.parse_args().batches
    source = simulate(BATCH, 0, telescope=ZTF_LIKE)
    maker = SemiSynthesizer(source.triplets, source.real, source.morphology, 0)
    cases: dict[str, Callable[[int], object]] = {
        "1.01 arcsec/px, 63x63, undersampled": lambda seed: simulate(BATCH, seed, telescope=ZTF_LIKE),
        "0.26 arcsec/px, 51x51": lambda seed: simulate(BATCH, seed, telescope=DECAM_LIKE),
        "telescopes at random": lambda seed: simulate(BATCH, seed),
        "semi-synthesis, 63x63": lambda seed: maker.draw(BATCH),
    }
    for name, work in cases.items():
        print(f"{name:40s} {rate(work, batches):7.0f} triplets/s/core")


if __name__ == "__main__":
    main()
