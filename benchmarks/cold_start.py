"""How long a user waits: for the import, for the help, and for the row of one FITS file.

    python benchmarks/cold_start.py [FILE] [--rounds 11]

Wall time from process start, the import's from inside; medians, with the best beside them. Exit code 1 where
a median exceeds its limit: 0.15 s, 0.3 s, and 0.45 s to the row of ``transientnet score FILE``. Core-seconds
of that last command say what it takes where other work slows the machine; the load is printed too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from night import installed, median

LIMITS = {"import": 0.15, "help": 0.3, "score_one_file": 0.45}
EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "cutouts" / "asteroid.fits"
IMPORT = "import time; t = time.perf_counter(); import transientnet; print(time.perf_counter() - t)"


def importing() -> float:
    run = subprocess.run(
        [sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True, env=installed()
    )
    return float(run.stdout)


def helping() -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "transientnet", "--help"]
    subprocess.run(command, check=True, capture_output=True, env=installed())
    return time.perf_counter() - started


def scoring(file: Path) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "transientnet", "score", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=installed()) as process:
        assert process.stdout is not None
        header, row = process.stdout.readline(), process.stdout.readline()
        took = time.perf_counter() - started
        process.communicate()
    if not header or not row:
        raise SystemExit(f"{file}: no row came")
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=EXAMPLE)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    seen: dict[str, list[float]] = {name: [] for name in LIMITS}
    spent: list[float] = []
    importing()  # compiles
    scoring(options.file)
    for _ in range(options.rounds):
        seen["import"].append(importing())
        seen["help"].append(helping())
        before = _core_seconds()
        seen["score_one_file"].append(scoring(options.file))
        spent.append(_core_seconds() - before)
    result: dict[str, object] = {
        name: {"median_s": median(times, 3), "best_s": round(min(times), 3), "limit_s": LIMITS[name]}
        for name, times in seen.items()
    }
    result["score_one_file_core_s"] = median(spent, 3)
    result["load"] = os.getloadavg()[0]
    print(json.dumps(result, indent=2))
    return int(any(median(times, 3) > LIMITS[name] for name, times in seen.items()))


def _core_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
