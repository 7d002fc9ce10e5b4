"""``transientnet doctor``: what this installation can do, and whether it works."""

from __future__ import annotations

import typer

__all__ = ["doctor"]


def doctor() -> None:
    """Check the installation: versions, the provider that really runs, the bundled models."""
    import importlib.metadata
    import platform

    from .. import __version__
    from ..classifier import load_model
    from ..registry import list_models

    typer.echo(f"transientnet {__version__}, Python {platform.python_version()} on {platform.platform()}")
    for name in ("onnxruntime", "numpy", "astropy", "fastavro"):
        typer.echo(f"{name} {importlib.metadata.version(name)}")
    for record in list_models():
        typer.echo(f"{record.id} runs on {load_model(record.id).device}")
