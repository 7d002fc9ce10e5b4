"""The one style of tables: columns that stand below each other, numbers to the right, labels in colour."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence

__all__ = ["columns", "fields"]

#: Numbers, with a unit or an interval behind them.
_NUMBER = re.compile(r"(?:[-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?(?: %)?(?: to [-+]?[\d,.]+)?|unknown|)")
#: Blue, orange, green, magenta, yellow, cyan: in this order they are told apart with any colour vision.
_COLOURS = (34, 33, 36, 35, 32, 31)


def columns(header: Sequence[str], rows: Sequence[Sequence[object]], classes: Sequence[str] = ()) -> str:
    """Lines with two or more spaces between the columns; a terminal gets no line that it would wrap.

    Parameters
    ----------
    header : sequence of str
    rows : sequence of sequences
        As many cells as the header has.
    classes : sequence of str
        Cells that a terminal shows in colour, one for each class.
    """
    from rich.console import Console

    table = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    numbers = [
        len(table) > 1 and all(_NUMBER.fullmatch(row[i]) for row in table[1:]) for i in range(len(header))
    ]
    terminal = sys.stdout.isatty()
    plain = not terminal or Console().no_color
    width = shutil.get_terminal_size().columns if terminal else sys.maxsize
    colours = {name: _COLOURS[k % len(_COLOURS)] for k, name in enumerate(classes)} if not plain else {}
    lines = []
    for row in table:
        cells = [
            cell.rjust(w) if number else cell.ljust(w)
            for cell, w, number in zip(row, widths, numbers, strict=True)
        ]
        line = "  ".join(cells).rstrip()
        line = line if len(line) <= width else f"{line[: width - 1]}…"
        lines.append(_coloured(line, row, colours))
    if not plain:
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    return "\n".join(lines)


def _coloured(line: str, row: Sequence[str], colours: Mapping[str, int]) -> str:
    for cell in row:
        if cell in colours:
            return re.sub(
                rf"(?<!\S){re.escape(cell)}(?!\S)", f"\x1b[{colours[cell]}m{cell}\x1b[0m", line, count=1
            )
    return line


def fields(*cells: str) -> str:
    """Cells of one line that is printed as it comes: by tabs in a pipe, below each other on a terminal."""
    if not sys.stdout.isatty():
        return "\t".join(cells)
    return "  ".join(
        [cell.ljust(width) for cell, width in zip(cells, (22, 6), strict=False)] + [*cells[2:]]
    ).rstrip()
