"""What a night costs as it grows: seconds, core-seconds and bytes read, from 1e2 alerts to 1e6.

    python benchmarks/growth.py PACKETS [--most 1000000] [--budget 480] [--picture growth.svg]

PACKETS is a folder of alert packets, one alert a file; nights of 100, 1000, … are made of links to them. It
stops before the next night would exceed `budget` seconds. Prints a table; costs per million alerts are those
of the largest night, once as it was and once without the start of the processes (the slope to the night
before it).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from night import Run, links, score

from transientnet.settings import cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("packets", type=Path)
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--budget", type=float, default=480.0)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    sources = sorted(options.packets.glob("*.avro"))
    runs: dict[int, Run] = {}
    count, left = 100, options.budget
    print("| alerts | seconds | core-seconds | GB read | alerts/s | core-s per 1e6 | parent MB | worker MB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    while count <= options.most and (not runs or 10 * runs[count // 10].wall < left):
        with tempfile.TemporaryDirectory() as temporary:
            folder, out = Path(temporary) / "night", Path(temporary) / "scores.csv"
            links(sources, folder, count)
            run = runs[count] = score([folder], out, "--workers", str(cores()))
        left -= run.wall
        print(
            f"| {count} | {run.wall:.1f} | {run.cpu:.1f} | {run.read / 1e9:.2f} | {count / run.wall:.0f} "
            f"| {run.cpu / count * 1e6:.0f} | {run.parent_mb:.0f} | {run.worker_mb:.0f} |",
            flush=True,
        )
        count *= 10
    most, before = max(runs), max(runs) // 10
    if before in runs:
        slope = (runs[most].cpu - runs[before].cpu) / (most - before) * 1e6
        print(
            f"\nPer million alerts beyond the start: {slope:.0f} core-seconds, "
            f"{runs[most].read / most * 1e6 / 1e9:.0f} GB read, on {cores()} cores."
        )
    if options.picture:
        draw(runs, options.picture)


def draw(runs: dict[int, Run], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    counts = list(runs)
    axes.loglog(counts, [run.wall for run in runs.values()], "o-", label="seconds")
    axes.loglog(counts, [run.cpu for run in runs.values()], "s--", label="core-seconds")
    axes.loglog(counts, [run.read / 1e9 for run in runs.values()], "^:", label="GB read")
    axes.set_xlabel("alerts")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
