"""The command line: one file per command, thin over the library.

Data goes to stdout, everything else to stderr. Exit codes: 0 ok; 1 a check asked for failed;
2 usage; 3 model unavailable; 4 no input could be read; 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer

from .. import __version__
from ..errors import TransientnetError
from . import adapt, cut, doctor, evaluate, inspect, label, models, monitor, score, stream

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
app.command("adapt")(adapt.adapt)
app.command("evaluate")(evaluate.evaluate)
app.command("monitor")(monitor.monitor)
app.command("inspect")(inspect.inspect)
app.command("cut")(cut.cut)
app.command("label")(label.label)
app.add_typer(models.app, name="models")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Entry point: errors of the package become one line on stderr and an exit code."""
    # A warning is a line for the user here, not a place in our code.
    warnings.showwarning = lambda message, *_: typer.echo(f"transientnet: {message}", err=True)
    try:
        app()
    except TransientnetError as error:
        typer.echo(f"transientnet: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("transientnet: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our stdout has gone (`| head`): not an error of ours.
        sys.stderr.close()
        sys.exit(0)
