"""Fuzz the readers guided by coverage: what reaches new code is kept and changed further.

    pip install atheris
    python benchmarks/guided_fuzz.py --seconds 600 [--targets avro fits …] [--work DIR]

Seeds are the files of ``tests/corpus``. Each target (a family of formats) has its share of the time in a
process of its own, instrumented by Atheris (libFuzzer). Half of the changes know the formats: record counts,
widths, block sizes, lengths, cards, members (`fuzz_readers.mutate`); the others are libFuzzer's. Findings are
exceptions that are not a `TransientnetError`, crashes, files that take 20 s of the processor, and more memory
than ``--memory``: the file is kept under ``--keep``, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import fuzz_readers

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "corpus"
#: Name under which a target's files are read (see `fuzz_readers.read`); the first is what most of them are.
TARGETS = {
    "avro": ("x.avro",),
    "fits": ("x.fits", "frame.fits"),
    "json": ("x.json",),
    "npy": ("x.npy",),
    "parquet": ("x.parquet", "catalog.parquet"),
    "hdf5": ("x.h5",),
    "tables": ("candidates.csv", "catalog.csv"),
    "archive": ("x.tar",),
    "layout": ("layout.toml",),
}
_SECONDS = 20


class _LateError(BaseException):
    """A file takes too long; no reader catches it, as some would a `TimeoutError`."""


def target_of(name: str) -> str:
    """Target that a seed of `fuzz_readers.simulated` belongs to."""
    if name.startswith(("catalog.", "candidates.")):
        return "tables"
    for pattern, target in (
        (r"\.tar", "archive"), (r"\.avro", "avro"), (r"\.json", "json"), (r"\.np[yz]", "npy"),
        (r"\.parquet", "parquet"), (r"\.h5", "hdf5"), (r"\.toml", "layout"),
    ):  # fmt: skip
        if re.search(pattern, name):
            return target
    return "fits"


def write_corpus() -> None:
    """Write the simulated seeds into ``tests/corpus``."""
    for name, raw in fuzz_readers.simulated().items():
        folder = CORPUS / target_of(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)


def fuzz(target: str, seconds: int, work: Path, keep: Path, memory: int, seed: int) -> None:
    """Fuzz one target in this process until the time is over; does not return."""
    import atheris

    with atheris.instrument_imports(include=["transientnet"]):
        from transientnet.errors import TransientnetError

        for module in ("avro", "arrays", "archive", "fits", "files", "hdf5", "json", "parquet"):
            __import__(f"transientnet.readers.{module}")
        __import__("transientnet.cutting.catalog")
        __import__("transientnet.cutting.cut")
    warnings.simplefilter("ignore")
    others = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    scratch = tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    path = Path(scratch, "input.bin")
    met: set[str] = set()

    def late(*_: object) -> None:
        raise _LateError(f"more than {_SECONDS} s")

    # Processor time: a busy machine is no hang.
    signal.signal(signal.SIGVTALRM, late)

    def one(data: bytes) -> None:
        path.write_bytes(data)
        for name in TARGETS[target]:
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
                fuzz_readers.read(str(path), name)
            except TransientnetError:
                pass
            except (Exception, _LateError) as error:
                frames = traceback.extract_tb(error.__traceback__)
                place = next((f for f in reversed(frames) if "transientnet" in f.filename), frames[-1])
                where = f"{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
                if where not in met:
                    met.add(where)
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{target}-{where}").write_bytes(data)
                    (keep / f"{target}-{where}.txt").write_text(traceback.format_exc())
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return fuzz_readers.mutate(data, rng, others)[:most] if data else b""
        changed: bytes = atheris.Mutate(data, most)
        return changed

    keep.mkdir(parents=True, exist_ok=True)
    options = [
        # Its own reports of slow inputs go by the clock on the wall, and name any input on a busy machine.
        f"-max_total_time={seconds}", f"-timeout={60 * _SECONDS}", f"-report_slow_units={60 * _SECONDS}",
        f"-rss_limit_mb={memory}",
        f"-artifact_prefix={keep}/{target}-", f"-seed={seed}", "-max_len=65536", "-print_final_stats=1",
    ]  # fmt: skip
    atheris.Setup(
        [sys.argv[0], *options, str(work / target), str(CORPUS / target)], one, custom_mutator=change
    )
    atheris.Fuzz()


def run(target: str, seconds: float, options: argparse.Namespace) -> tuple[int, int, int]:
    """Fuzz a target in new processes until its time is over; inputs tried, branches reached, early ends."""
    (options.work / target).mkdir(parents=True, exist_ok=True)
    until, tried, ends, edges = time.monotonic() + seconds, 0, 0, 0
    while (left := int(until - time.monotonic())) > 3:
        command = [
            sys.executable, __file__, "--one", target, "--seconds", str(left), "--work", options.work,
            "--keep", options.keep, "--memory", str(options.memory), "--seed", str(options.seed + ends),
        ]  # fmt: skip
        log = options.work / f"{target}.log"
        with open(log, "ab") as stream:
            code = subprocess.run([*map(str, command)], stdout=stream, stderr=stream, check=False).returncode
        text = log.read_text(errors="replace")
        counts = re.findall(r"number_of_executed_units: (\d+)", text) or re.findall(r"#(\d+)\t", text)
        tried += int(counts[-1]) if counts else 0
        edges = max(edges, *map(int, re.findall(r"cov: (\d+)", text)), 0)
        log.rename(options.work / f"{target}.{ends}.log")
        ends += code != 0
        if not counts:
            raise SystemExit(f"{target}: the fuzzer did not start:\n{text[-2000:]}")
    return tried, edges, ends


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=600, help="time for all targets together")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--work", type=Path, default=Path("fuzz-work"), help="where what was learned is kept")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--memory", type=int, default=1000, help="most memory of the process, MB")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", choices=TARGETS, help=argparse.SUPPRESS)
    parser.add_argument("--write-corpus", action="store_true", help="write the seeds of tests/corpus anew")
    options = parser.parse_args()
    options.work, options.keep = options.work.absolute(), options.keep.absolute()
    if options.write_corpus:
        write_corpus()
        return 0
    if options.one:
        fuzz(options.one, options.seconds, options.work, options.keep, options.memory, options.seed)
    before = set(options.keep.glob("*"))
    print(
        "| target | seconds | inputs | branches reached | ended early |\n| --- | ---: | ---: | ---: | ---: |"
    )
    for target in options.targets:
        started = time.monotonic()
        tried, edges, ends = run(target, options.seconds / len(options.targets), options)
        took = time.monotonic() - started
        print(f"| {target} | {took:.0f} | {tried:,} | {edges:,} | {ends} |", flush=True)
    findings = sorted(path.name for path in set(options.keep.glob("*")) - before)
    print(f"findings: {len(findings)}")
    for name in findings:
        print(f"  {options.keep / name}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
