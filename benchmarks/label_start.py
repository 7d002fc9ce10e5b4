"""Seconds from ``transientnet label`` to a page that answers, for a night of candidates in one npz.

python benchmarks/label_start.py --candidates 10000
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=63)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    y, x = np.indices((options.size, options.size)) - options.size // 2
    with tempfile.TemporaryDirectory() as folder:
        stamps = rng.normal(100, 5, (options.candidates, 3, options.size, options.size)).astype(np.float32)
        stamps[:, [0, 2]] += (
            300 * rng.random((options.candidates, 1, 1, 1)) * np.exp(-(x**2 + y**2) / 8)
        ).astype(np.float32)
        np.savez(Path(folder) / "night.npz", triplets=stamps)
        command = [
            sys.executable,
            "-m",
            "transientnet",
            "label",
            f"{folder}/night.npz",
            "-o",
            f"{folder}/my.csv",
            "--port",
            "0",
        ]
        began = time.perf_counter()
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            address = next(
                found[1] for line in server.stderr if (found := re.search(r"Open (http://\S+)", line))
            )

            def ask(path: str) -> dict[str, object]:
                with urllib.request.urlopen(f"{address}api/{path}", timeout=60) as response:
                    return dict(json.load(response))

            session = ask("session?labeller=ana")
            ready = time.perf_counter() - began
            while not dict(ask("progress?labeller=ana")["progress"])["model"]:  # type: ignore[call-overload]
                time.sleep(0.2)
            print(
                f"{len(session['ids'])} candidates: the page answers after {ready:.1f} s, "  # type: ignore[arg-type]
                f"ordered by the model after {time.perf_counter() - began:.1f} s"
            )
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
