"""Files that appear whole or not at all, also for readers on other machines."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing", "write_atomically"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new file beside `path`, which takes its place when the block ends without an error.

    Parameters
    ----------
    path : path
        Its folder must exist. An old file stays as it is until then, and if the block fails.

    Yields
    ------
    Path
        An empty file to write to (by name: it is opened anew), with `path`'s ending, synced to disk
        before it is renamed.
    """
    target = Path(path)
    descriptor, name = tempfile.mkstemp(
        prefix=f".{target.stem}.", suffix=f".part{target.suffix}", dir=target.parent
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        # mkstemp makes a file for its owner alone; a product is for the team.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a whole file, text as UTF-8; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
