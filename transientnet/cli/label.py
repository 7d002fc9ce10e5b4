"""``transientnet label``: make the labels that `adapt` and `evaluate` read."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["label"]


def label(
    cutouts: Annotated[list[str], typer.Argument(help="FITS, Avro, npy, npz… files, globs or folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Label table to write, .csv.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Orders the candidates: name, name@version, or an .onnx.")
    ] = "realbogus",
    classes: Annotated[
        str | None, typer.Option(help="Names of the classes, e.g. real,bogus; the model's if not given.")
    ] = None,
    random_share: Annotated[float, typer.Option(help="Part of the queue that is drawn at random.")] = 0.2,
    keys: Annotated[str, typer.Option(help="Letters of the classes, e.g. real=j,bogus=k.")] = "",
    link: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ADDRESS of a page about a candidate, with {ra}, {dec} or {id}; repeatable."),
    ] = None,
    goal: Annotated[int, typer.Option(help="Labels to reach; the page shows pace and time left.")] = 200,
    share: Annotated[
        bool, typer.Option("--share", help="Serve the local network, too: whoever has the address can label.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 8765 or a free one if not given.")
    ] = None,
    train_options: Annotated[
        str, typer.Option(help="Options of 'transientnet adapt' for the page's 'Train now', in quotes.")
    ] = "",
    pixel_scale: Annotated[
        float | None, typer.Option(help="arcsec per pixel, where the files do not state it.")
    ] = None,
    fwhm: Annotated[
        float | None, typer.Option(help="Seeing in pixels, where the files do not state it.")
    ] = None,
    layout: Annotated[str | None, typer.Option(help="Survey name, or a TOML file with field names.")] = None,
) -> None:
    """Label candidates in the browser: a local page, one key per class."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from ..errors import UsageError
    from ..label_page.serve import serve

    try:
        training = shlex.split(train_options)
    except ValueError as error:
        raise UsageError(f"--train-options {train_options!r} cannot be split into words: {error}") from error

    columns = (SpinnerColumn(), TextColumn("{task.completed} candidates read"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("read", total=None)

        def say(line: str) -> None:
            bar.stop()
            typer.echo(line, err=True)

        serve(
            cutouts,
            output,
            model=model,
            classes=None if classes is None else classes.split(","),
            random_share=random_share,
            port=port,
            train_options=training,
            keys=_pairs("--keys", keys.split(",") if keys else []),
            links=list(_pairs("--link", link or []).items()),
            goal=max(1, goal),
            share=share,
            options={"layout": layout, "pixel_scale": pixel_scale, "fwhm": fwhm},
            say=say,
            progress=lambda count: bar.update(task, completed=count),
        )


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    """NAME=VALUE texts as a mapping."""
    from ..errors import UsageError

    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UsageError(f"{option} {text!r}: expected NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs
