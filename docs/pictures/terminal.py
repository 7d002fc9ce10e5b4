"""Draw a terminal at work, step by step, from what the commands really print: ``docs/pictures/terminal.svg``.

python docs/pictures/terminal.py
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 66
COMMANDS = (
    "transientnet score cutouts/",
    "transientnet score cutouts/ -o night.csv --gallery night.html",
    "transientnet inspect cutouts/chip_edge.fits",
)
#: Seconds that a command is looked at before the next, and between two lines of what it prints.
PAUSE, LINE = 1.6, 0.06
WIDTH, HEIGHT, TOP, LEFT = 8.43, 19, 44, 16
STYLES = {"1": "b", **{str(colour): f"c{colour}" for colour in range(31, 37)}}
STYLE = """
svg { font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; }
text { fill: #e6edf3; white-space: pre; } .b { font-weight: 700; }
.c31 { fill: #ff9a8a; } .c32 { fill: #e6d74a; } .c33 { fill: #ffb45c; } .c34 { fill: #7cc0ff; }
.c35 { fill: #f0a3d6; } .c36 { fill: #56d4b0; }
g { opacity: 0; animation: show .01s linear forwards; }
@keyframes show { to { opacity: 1; } }
@media (prefers-reduced-motion: reduce) { g { animation: none; opacity: 1; } }
"""


def output(command: str, folder: str) -> list[str]:
    """What a terminal of `COLUMNS` is left with."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "TRANSIENTNET_OFFLINE": "1"}
    words = [sys.executable, "-m", *command.split()]
    process = subprocess.Popen(words, cwd=folder, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 4096):
            shown += block
    except OSError:
        pass  # the other end was closed
    os.close(ours)
    if process.wait():
        raise SystemExit(shown.decode())
    # A bar wipes its line before the next one is written over it.
    text = shown.decode().replace("\r", "")
    text = re.sub(r"[^\n]*\n\x1b\[\?25h\x1b\[1A\x1b\[2K", "", text)
    text = re.sub(r"\x1b\[(?:\?\d+[hl]|\d*[AK])", "", re.sub(r"[^\n]*\x1b\[2K", "", text))
    return [part for line in text.rstrip("\n").split("\n") for part in folded(line)]


def folded(line: str) -> list[str]:
    """A plain line as a terminal wraps it; coloured ones are short enough."""
    if "\x1b" in line:
        return [line]
    return [line[k : k + COLUMNS] for k in range(0, max(1, len(line)), COLUMNS)]


def spans(line: str) -> str:
    parts, style = [], ""
    for piece in re.split(r"(\x1b\[[\d;]*m)", line):
        if found := re.fullmatch(r"\x1b\[([\d;]*)m", piece):
            style = STYLES.get(found[1], "")
        elif piece:
            parts.append(f'<tspan class="{style}">{escape(piece)}</tspan>' if style else escape(piece))
    return "".join(parts)


def row(at: float, y: int, kind: str, text: str) -> str:
    return (
        f'<g style="animation-delay:{at:.2f}s"><text class="{kind}" x="{LEFT}" y="{y}" xml:space="preserve">'
        f"{text}</text></g>"
    )


def draw() -> str:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "docs" / "examples" / "cutouts", Path(folder) / "cutouts")
        steps = [(command, output(command, folder)) for command in COMMANDS]
    rows, y, at = [], TOP + 14, 0.3
    for command, lines in steps:
        for k, piece in enumerate(folded(f"$ {command}")):
            rows.append(row(at, y, "b", escape(piece)))
            y += HEIGHT
            at += 0.5 * (k == 0)
        for line in lines:
            rows.append(row(at, y, "", spans(line)))
            y += HEIGHT
            at += LINE
        y += HEIGHT // 2
        at += PAUSE
    width = round(COLUMNS * WIDTH + 2 * LEFT)
    dots = "".join(f'<circle cx="{22 + 20 * k}" cy="20" r="6" fill="#57606a"/>' for k in range(3))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y + 4}" role="img" '
        f'aria-label="A terminal: {escape("; ".join(COMMANDS))}"><style>{STYLE}</style>'
        f'<rect width="{width}" height="{y + 4}" rx="9" fill="#12161c" stroke="#57606a"/>{dots}'
        f"{''.join(rows)}</svg>\n"
    )


if __name__ == "__main__":
    (ROOT / "docs" / "pictures" / "terminal.svg").write_text(draw(), encoding="utf-8")
