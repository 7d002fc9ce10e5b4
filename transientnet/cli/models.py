"""``transientnet models``: what can be named, and what stands behind a name."""

from __future__ import annotations

import json
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="The models: list, show.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List every model that can be named."""
    from ..registry import list_models

    for record in list_models():
        typer.echo(f"{record.id}\t{', '.join(record.classes)}\t{record.description}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Model name, name@version, or path to an .onnx.")]) -> None:
    """Show a model's record as JSON."""
    from ..registry import resolve

    typer.echo(json.dumps(resolve(name)[1].to_dict(), indent=2))
