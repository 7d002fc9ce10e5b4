"""Tables on a terminal and in a pipe: columns that stand below each other."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

__all__ = ["columns"]


def columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lines with two or more spaces between the columns; a terminal gets no line that it would wrap."""
    table = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in table)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    return "\n".join(
        line if len(line) <= width else f"{line[: width - 1]}…" for line in map(str.rstrip, lines)
    )
