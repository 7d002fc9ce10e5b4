"""Peak memory of the parent and of each worker, by the number of stamps.

    python benchmarks/memory.py PACKETS [--counts 1000 10000 100000] [--a-file 1 1000]

PACKETS is a folder of alert packets that share a schema. Nights of each count are made of links to them: one
alert a file, or (with 1000) to files of a thousand alerts. Exit code 1 where a parent exceeds 600 MB or a
worker 400 MB. A million stamps take some six minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from night import links, many_alerts, score

from transientnet.settings import cores

#: Limits in MB.
PARENT, WORKER = 600, 400


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("packets", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--a-file", type=int, nargs="+", default=[1, 1000])
    options = parser.parse_args()
    sources = sorted(options.packets.glob("*.avro"))
    worst = [0.0, 0.0]
    print("| stamps | alerts a file | seconds | parent, peak MB | worker, peak MB |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for each in options.a_file:
        for count in options.counts:
            with tempfile.TemporaryDirectory() as temporary:
                folder, out = Path(temporary) / "night", Path(temporary) / "scores.csv"
                if each == 1:
                    links(sources, folder, count)
                else:
                    many = Path(temporary) / "many.avro"
                    many_alerts(sources, many, each)
                    links([many], folder, max(1, count // each))
                run = score([folder], out, "--workers", str(cores()))
                memory = [run.parent_mb, run.worker_mb]
            print(f"| {count} | {each} | {run.wall:.1f} | {memory[0]:.0f} | {memory[1]:.0f} |", flush=True)
            worst = [max(pair) for pair in zip(worst, memory, strict=True)]
    return int(worst[0] > PARENT or worst[1] > WORKER)


if __name__ == "__main__":
    sys.exit(main())
