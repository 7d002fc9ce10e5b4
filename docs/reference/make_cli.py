"""Write cli.md from the commands' own help: ``python docs/reference/make_cli.py``."""

from __future__ import annotations

import html
import os
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).with_name("cli.md")
EXIT_CODES = """
## Exit codes

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | a check that was asked for failed |
| 2 | the command makes no sense as written |
| 3 | the model is unavailable: offline, not found, download or checksum |
| 4 | no input could be read |
| 130 | interrupted |

Data goes to stdout, everything else to stderr.
"""


def text() -> str:
    """The page, from the package in the current environment."""
    command = [sys.executable, "-m", "typer", "transientnet.cli", "utils", "docs"]
    command += ["--name", "transientnet", "--title", "Command line"]
    environment = {**os.environ, "TERMINAL_WIDTH": "100"}
    made = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    lines = (line for line in html.unescape(made).splitlines() if "completion" not in line)
    return (
        "\n".join(line if line.startswith("$") else _escaped(line) for line in lines).rstrip()
        + "\n"
        + EXIT_CODES
    )


def _escaped(line: str) -> str:
    """No tags but in code, which is what stands between backticks."""
    return "`".join(part if k % 2 else part.replace("<", "&lt;") for k, part in enumerate(line.split("`")))


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
