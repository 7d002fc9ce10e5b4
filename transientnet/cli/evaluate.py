"""``transientnet evaluate``: how good a model is on your labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["evaluate"]

_LISTED = 3


def evaluate(
    labels: Annotated[Path, typer.Option(help="Table of stamps and labels: .csv, .ecsv or .parquet.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Model; give several to set them side by side.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("report"),
    cutouts: Annotated[
        Path | None, typer.Option(help="Folder or file with the stamps that the table names.")
    ] = None,
    pixel_scale: Annotated[float | None, typer.Option(help="arcsec per pixel, if nothing tells.")] = None,
    fwhm: Annotated[float | None, typer.Option(help="Seeing in pixels, if nothing tells.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the classes, if not 'label'.")] = None,
    group_column: Annotated[
        str | None, typer.Option(help="Column of the sky objects, if not 'group'.")
    ] = None,
    min_auc: Annotated[
        float | None, typer.Option(help="Exit with 1 if a model's area under the ROC curve is below this.")
    ] = None,
) -> None:
    """Measure models on labelled candidates: one report.html that opens offline, and metrics.json."""
    from ..evaluation.evaluate import measure

    measured = measure(
        labels,
        model or ["realbogus"],
        output,
        cutouts=cutouts,
        pixel_scale=pixel_scale,
        fwhm=fwhm,
        label_column=label_column,
        group_column=group_column,
    )
    failed = False
    for name, result in measured.items():
        auc = result["metrics"]["auc"]
        typer.echo(f"{name}\t{auc['value']:.4f}\t{auc['low']:.4f}\t{auc['high']:.4f}")
        if left := result["left_out"]:
            more = f"; and {len(left) - _LISTED} more" if len(left) > _LISTED else ""
            count = f"{len(left)} of {result['n'] + len(left)} left out"
            typer.echo(f"transientnet: {name}: {count}: {'; '.join(left[:_LISTED])}{more}", err=True)
        if min_auc is not None and not auc["value"] >= min_auc:
            typer.echo(f"transientnet: {name}: AUC {auc['value']:.4f} is below {min_auc:g}", err=True)
            failed = True
    typer.echo(f"transientnet: wrote {output / 'report.html'} and {output / 'metrics.json'}", err=True)
    if failed:
        raise typer.Exit(1)
