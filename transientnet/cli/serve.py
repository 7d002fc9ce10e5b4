"""``transientnet serve``: scores over HTTP, for pipelines in any language."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import say

__all__ = ["serve"]


def serve(
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model name, name@version, or path to an .onnx.")
    ] = "realbogus",
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="8766, or another that is free, if not given.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File that holds the token which requests must carry; required beyond loopback."),
    ] = None,
    pixel_scale: Annotated[float | None, typer.Option(help="arcsec per pixel, for all requests.")] = None,
    fwhm: Annotated[float | None, typer.Option(help="Seeing in pixels, for all requests.")] = None,
    layout: Annotated[str | None, typer.Option(help="Survey name, or a TOML file with field names.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Probability from which on 'real' is named.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Batches at a time; by default all cores.")
    ] = None,
    max_body: Annotated[int, typer.Option(min=1, help="Mebibytes that one request may send.")] = 64,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait; more get a 503.")] = 256,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch no model over the network.")] = False,
) -> None:
    """Score what is sent over HTTP: POST an alert packet, a FITS file or an npz to /score, get JSON."""
    from ..errors import MissingDependencyError, UsageError
    from ..models.classifier import load_model
    from ..readers.layouts import load_layout
    from ..readers.open import Reading

    try:
        from ..scoring.serve import make_service
        from ..scoring.serve import serve as run
        from ..scoring.web import LOOPBACK
    except ImportError as error:
        raise MissingDependencyError.for_extra("serve", "Serving") from error
    local = host in LOOPBACK
    token = None
    if token_file is not None:
        token = token_file.read_text(encoding="utf-8").strip()
        if len(token) < 16 or not token.isascii() or not token.isprintable():
            raise UsageError(f"{token_file}: a token has 16 or more printable ASCII characters")
    elif not local:
        raise UsageError(
            f"{host} can be reached from other machines: name a --token-file "
            "(`openssl rand -hex 24 > token` makes one), and let requests carry it"
        )
    load_layout(layout)
    app = make_service(
        load_model(model, offline=offline or None, threads=1),
        reading=Reading(layout, pixel_scale, fwhm),
        threshold=threshold,
        token=token,
        local=local,
        workers=workers,
        max_body=max_body * 2**20,
        max_waiting=max_waiting,
    )
    run(app, host=host, port=port, say=say)
