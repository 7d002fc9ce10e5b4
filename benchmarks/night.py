"""What the benchmarks share: nights made of a few packets, and commands that are watched while they run."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

#: Seconds between two looks at the processes of a command.
_LOOK = 0.05


def installed() -> dict[str, str]:
    """The environment of an installed package: modules are compiled once, not by every process."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Run(NamedTuple):
    """What a command took: seconds, core-seconds of all its processes, peak memory in MB, bytes read."""

    wall: float
    cpu: float
    parent_mb: float
    worker_mb: float
    read: int


def links(sources: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """`count` files made of `sources`: hard links to one copy of each beside `folder`."""
    folder.mkdir()
    kept = []
    for i, source in enumerate(sources):
        copy = folder.parent / f"{folder.name}_source{i}{source.suffix}"
        copy.write_bytes(source.read_bytes())
        kept.append(copy)
    files = [folder / f"{i:07d}{kept[i % len(kept)].suffix}" for i in range(count)]
    for i, file in enumerate(files):
        os.link(kept[i % len(kept)], file)
    return files


def many_alerts(sources: Sequence[Path], path: Path, count: int) -> None:
    """One Avro file of `count` alerts out of packets that share a schema with the first one."""
    import fastavro

    records: list[Any] = []
    schema: Any = None
    for source in sources:
        with source.open("rb") as file:
            reader = fastavro.reader(file)
            schema = schema or reader.writer_schema
            if reader.writer_schema == schema:
                records += reader
    with path.open("wb") as file:
        fastavro.writer(file, schema, (records[i % len(records)] for i in range(count)))


def score(inputs: Iterable[Path], out: Path, *options: str) -> Run:
    """``transientnet score`` as a user runs it, process start included, on a table that is not there yet."""
    for stale in out.parent.glob(out.name + "*"):
        stale.unlink()
    paths = [str(path) for path in inputs]
    return watched([sys.executable, "-m", "transientnet", "score", *paths, "-o", str(out), *options])


def watched(command: Sequence[str]) -> Run:
    """Run a command to its end and look at it and its children meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(command, env=installed())
    peak: dict[int, float] = {}
    read = 0
    while process.poll() is None:
        alive = (process.pid, *_children(process.pid))
        for pid in alive:
            peak[pid] = max(peak.get(pid, 0.0), _status(pid, "status", "VmHWM:") * 1024 / 1e6)
        # What an ended child had read counts as its parent's.
        read = max(read, sum(_status(pid, "io", "rchar:") for pid in alive))
        time.sleep(_LOOK)
    wall = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:6])}… ended with exit code {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    parent = peak.pop(process.pid, 0.0)
    return Run(wall, cpu, parent, max(peak.values(), default=0.0), read)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except OSError:
        pass
    return found


def _status(pid: int, file: str, key: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds of a call, and core-seconds of this thread: others may spin from the call before."""
    wall, cpu = time.perf_counter(), time.thread_time()
    call()
    return time.perf_counter() - wall, time.thread_time() - cpu


def median(values: Iterable[float], digits: int = 2) -> float:
    """Median, rounded for print."""
    return round(statistics.median(values), digits)
