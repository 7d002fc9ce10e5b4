"""What a command says to a person: stderr, whatever became of it."""

from __future__ import annotations

from contextlib import suppress

import typer

__all__ = ["say"]


def say(message: str) -> None:
    """One line on stderr; if that is full or closed, there is nobody to tell."""
    with suppress(OSError, ValueError):
        typer.echo(f"transientnet: {message}", err=True)
