"""One process at a time at a file: a lock that the system releases however its holder ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import TransientnetError

__all__ = ["exclusive"]


@contextmanager
def exclusive(path: Path, refusal: TransientnetError, *, timeout: float = 0.0) -> Iterator[None]:
    """Hold the lock of `path` while the block runs.

    Parameters
    ----------
    path : Path
        What is protected; the lock itself is ``.NAME.lock`` beside it and stays there.
    refusal : TransientnetError
        Raised where another process still holds the lock after `timeout`.
    timeout : float
        Seconds to wait.

    Raises
    ------
    TransientnetError
        The given `refusal`.
    OSError
        The folder does not exist or may not be written to.

    Notes
    -----
    File systems without locks (some network mounts) are not protected; filelock falls back to a file
    that exists or not, so a killed holder's lock is broken there by deleting it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=timeout)
    try:
        lock.acquire()
    except Timeout as error:
        raise refusal from error
    try:
        yield
    finally:
        lock.release()
