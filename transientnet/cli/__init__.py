"""The command line: one file per command, thin over the library.

Data goes to stdout, everything else to stderr. Exit codes: 0 ok; 1 a check asked for failed;
2 usage; 3 model unavailable; 4 no input could be read; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from typing import Annotated

import typer

from .. import __version__
from ..errors import OutputError, TransientnetError
from . import (
    adapt,
    completeness,
    cut,
    doctor,
    evaluate,
    inspect,
    label,
    models,
    monitor,
    score,
    serve,
    stream,
)
from .console import say

__all__ = ["app", "main"]

app = typer.Typer(
    name="transientnet",
    help="Vet difference-image candidates of any telescope, and transfer the models onto your own labels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


app.command("score")(score.score)
app.command("stream")(stream.stream)
app.command("serve")(serve.serve)
app.command("adapt")(adapt.adapt)
app.command("evaluate")(evaluate.evaluate)
app.command("completeness")(completeness.completeness)
app.command("monitor")(monitor.monitor)
app.command("inspect")(inspect.inspect)
app.command("cut")(cut.cut)
app.command("label")(label.label)
app.add_typer(models.app, name="models")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Entry point: errors of the package become one line on stderr and an exit code."""
    _fill_closed_streams()
    # A warning is a line for the user here, not a place in our code.
    warnings.showwarning = lambda message, *_: say(str(message))
    stdout, pipe = sys.stdout, _stdout_file()
    code = _run()
    if sys.stdout is not stdout or _stdout_file() != pipe:
        # Typer, or rich below it, gave up because the reader of our stdout has gone (`| head`): no error.
        code = 0
    try:
        stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            if not code:
                say(f"standard output: cannot be written: {error.strerror}")
            code = code or OutputError.exit_code
        # What is still buffered has nowhere to go; Python would complain of it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _fill_closed_streams() -> None:
    """Let nothing that is opened later become the standard stream that the caller has closed."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != descriptor:
                    os.dup2(opened, descriptor)
                    os.close(opened)
                mode = "r" if name == "stdin" else "w"
                setattr(sys, name, open(descriptor, mode, encoding="utf-8"))  # noqa: SIM115


def _stdout_file() -> tuple[int, int] | None:
    """Which file stdout is, None if it is closed."""
    try:
        status = os.fstat(1)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _run() -> int | str | None:
    """Run the command; its exit code."""
    try:
        app()
    except TransientnetError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except OSError as error:
        # What the system refuses: a full disk, a folder without permission. Its errors name the file.
        where = f"{error.filename}: " if error.filename else ""
        say(f"{where}{error.strerror or error}")
        return OutputError.exit_code
    except SystemExit as end:
        return end.code
    return 0
