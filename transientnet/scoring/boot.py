"""How a worker process begins; some begin while their parent still loads its own modules."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from contextlib import suppress

__all__ = ["MANY_INPUTS", "prepare", "start"]

MANY_INPUTS = 1000
"""From this many inputs on, the half second that worker processes need to start is worth it."""

#: What a worker runs. Its stdout carries messages, so that whatever prints must be sent to stderr, and
#: one thread is all it may use: linear algebra libraries read these variables when they are loaded.
_BOOT = """
import json, os, sys
for name in ("OMP", "OPENBLAS", "MKL"):
    os.environ[name + "_NUM_THREADS"] = "1"
sys.path[:] = json.loads(sys.argv[1])
from transientnet.scoring.workers import main
main()
"""

#: Processes that wait for their first message.
_prepared: list[subprocess.Popen[bytes]] = []


def prepare(count: int) -> None:
    """Begin `count` worker processes, which `start` hands out; what is not wanted ends with this process."""
    if count and not _prepared:
        atexit.register(_end)
    with suppress(OSError):
        # Whoever starts one that is wanted says what is wrong.
        _prepared.extend(_begin() for _ in range(count))


def start() -> subprocess.Popen[bytes]:
    """A worker process: one that is prepared, else a new one.

    Raises
    ------
    OSError
        None can be started.
    """
    # Threads ask at the same time: whether one is left is known by taking it.
    with suppress(IndexError):
        while True:
            process = _prepared.pop(0)
            if process.poll() is None:
                return process
            _close(process)
    return _begin()


def _begin() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _BOOT, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C at the terminal is for the parent to decide.
        start_new_session=True,
    )


def _end() -> None:
    while _prepared:
        process = _prepared.pop()
        process.kill()
        process.wait()
        _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
