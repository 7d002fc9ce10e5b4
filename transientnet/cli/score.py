"""``transientnet score``: vet tonight's cutouts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..predictions import Predictions

__all__ = ["score"]


def score(
    files: Annotated[list[str], typer.Argument(help="FITS, Avro, npy, npz… files, globs or folders.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model name, name@version, or path to an .onnx.")
    ] = "realbogus",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Score table: .csv, .ecsv, .jsonl or .parquet.")
    ] = None,
    pixel_scale: Annotated[
        float | None, typer.Option(help="arcsec per pixel, if the files do not tell.")
    ] = None,
    fwhm: Annotated[float | None, typer.Option(help="Seeing in pixels, if the files do not tell.")] = None,
    layout: Annotated[str | None, typer.Option(help="Survey name, or a TOML file with field names.")] = None,
) -> None:
    """Score candidates and write one row each: id, source, label, p_<class>…, quality, model."""
    from ..classifier import load_model
    from ..errors import EmptyInputError
    from ..predictions import Predictions, check_format, write_csv
    from ..readers import open_triplets
    from ..triplet import QualityFlag

    if output is not None:
        check_format(output)
    classifier = load_model(model)
    triplets = open_triplets(files, layout=layout, pixel_scale=pixel_scale, fwhm=fwhm)
    predictions = Predictions.concatenate(
        list(classifier.stream(triplets)), classifier.classes, classifier.record.id
    )
    for row, message in predictions.errors.items():
        typer.echo(f"transientnet: {predictions.sources[row] or predictions.ids[row]}: {message}", err=True)
    if output is not None:
        predictions.write(output)
    elif sys.stdout.isatty():
        _print_table(predictions)
    else:
        write_csv(predictions, sys.stdout)
    if len(predictions) and (predictions.quality & QualityFlag.UNREADABLE).all():
        raise EmptyInputError("none of the candidates could be read")


def _print_table(predictions: Predictions) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..triplet import QualityFlag

    table = Table("id", "label", *predictions.classes, "quality", title=predictions.model)
    for row in predictions:
        cells = (f"{p:.3f}" for p in row.probabilities.values())
        table.add_row(
            row.id, row.label or "[dim]unusable[/]", *cells, " ".join(QualityFlag.names(row.quality)).lower()
        )
    Console().print(table)
