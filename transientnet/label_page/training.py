"""``transientnet adapt`` started from the page, on the labels made so far."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ContractError
from ..files.strict_json import parse_json

__all__ = ["Training"]

KEPT_LINES = 12


class Training:
    """One training at a time, in a process of its own.

    Parameters
    ----------
    table : Path
        The labels.
    base : str
        Model to start from.
    output : Path
        Folder that `adapt` fills; ``model.onnx`` in it is the result.
    options : sequence of str
        Further options of ``transientnet adapt``.

    Attributes
    ----------
    state : {"unavailable", "idle", "running", "ordering", "done", "failed"}
    """

    def __init__(self, table: Path, base: str, output: Path, options: Sequence[str] = ()) -> None:
        self.table, self.base, self.output, self.options = table, base, output, tuple(options)
        self.state = "idle" if importlib.util.find_spec("torch") else "unavailable"
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._stage: dict[str, Any] | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def busy(self) -> bool:
        """Whether a training runs, or its result is being put to use."""
        return self.state in ("running", "ordering")

    def status(self) -> dict[str, Any]:
        """State, last stage (``stage``, ``done``, ``total``) and last lines of the program, for the page."""
        return {"state": self.state, "stage": self._stage, "lines": list(self._lines)}

    async def run(self) -> Path | None:
        """Train; gives the new model's file, None if it failed (the last lines say why)."""
        self.state = "running"
        self._lines.clear()
        self._stage = None
        command = [sys.executable, "-m", "transientnet", "adapt", "--labels", str(self.table)]
        command += ["--base", self.base, "-o", str(self.output), "--stages", *self.options]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        assert self._process.stdout is not None
        # A progress bar ends its lines with \r: read what comes, not line by line.
        rest = ""
        while chunk := await self._process.stdout.read(4096):
            *lines, rest = (rest + chunk.decode("utf-8", "replace")).replace("\r", "\n").split("\n")
            self._hear(lines)
        self._hear([rest])
        code = await self._process.wait()
        model = self.output / "model.onnx"
        if code == 0 and model.is_file():
            return model
        self.state = "failed"
        return None

    def _hear(self, lines: Sequence[str]) -> None:
        for line in filter(str.strip, lines):
            if line.startswith('{"stage"'):
                with suppress(ContractError):
                    self._stage = parse_json(line.encode(), "a stage of the training")
            else:
                self._lines.append(line.rstrip())

    def stop(self) -> None:
        """End a running training; what it saved stays."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def fail(self, reason: str) -> None:
        """The new model cannot be used."""
        self._lines.append(reason)
        self.state = "failed"
