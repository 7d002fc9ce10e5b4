"""``transientnet evaluate``: how good a model is on your labels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import Quiet, note, say

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
    pixel_scale: Annotated[
        float | None, typer.Option(help="arcsec per pixel, where neither files nor table give it.")
    ] = None,
    fwhm: Annotated[
        float | None, typer.Option(help="Seeing in pixels, where neither files nor table give it.")
    ] = None,
    night: Annotated[
        int | None, typer.Option(min=1, help="Candidates a night; by default as many as are labelled.")
    ] = None,
    bogus_share: Annotated[
        float | None,
        typer.Option(help="Share of bogus in a night, 0 to 1; by default that of the labels."),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Candidates looked at in a night; by default a tenth of it.")
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the classes, if not 'label'.")] = None,
    group_column: Annotated[
        str | None, typer.Option(help="Column of the sky objects, if not 'group'.")
    ] = None,
    min_auc: Annotated[
        float | None, typer.Option(help="Exit with 1 if a model's area under the ROC curve is below this.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print metrics.json instead of the tables.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Measure models on labelled candidates: one report.html that opens offline, and metrics.json."""
    from ..evaluation.evaluate import measure
    from ..evaluation.night import Night
    from ..results.columns import plural
    from .columns import columns

    started = time.monotonic()
    measured = measure(
        labels,
        model or ["realbogus"],
        output,
        cutouts=cutouts,
        pixel_scale=pixel_scale,
        fwhm=fwhm,
        night=Night(night, bogus_share, budget),
        label_column=label_column,
        group_column=group_column,
    )
    failed = False
    for name, result in measured.items():
        if not as_json:
            counts = ", ".join(f"{n:,} {label}" for label, n in result["counts"].items())
            objects = plural(result["n_groups"], "sky object")
            typer.echo(f"{name}: {counts}; {objects}; {result['unusable']:,} not scored")
            typer.echo(columns(["figure", "value", "95 % interval", "n"], list(_rows(result))) + "\n")
        if left := result["left_out"]:
            more = f"; and {len(left) - _LISTED} more" if len(left) > _LISTED else ""
            count = f"{len(left)} of {result['n'] + len(left)} left out"
            say(f"{name}: {count}: {'; '.join(left[:_LISTED])}{more}")
        auc = result["metrics"]["auc"]["value"]
        if min_auc is not None and not auc >= min_auc:
            say(f"{name}: AUC {auc:.4f} is below {min_auc:g}")
            failed = True
    if as_json:
        typer.echo((output / "metrics.json").read_text(encoding="utf-8"), nl=False)
    note(f"wrote {output / 'report.html'} and {output / 'metrics.json'}; {time.monotonic() - started:.1f} s")
    if failed:
        raise typer.Exit(1)


def _rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    """Name, value, interval and number of candidates of each figure."""
    from ..drawing.nights import figure_text, night_figures
    from ..drawing.sections import figure_name

    for key, figure in result["metrics"].items():
        yield [figure_name(key), *figure_text(key, figure), str(result["n"])]
    for name, curve in result["curves"].items():
        for label, key, figure in night_figures(name, curve["night"]):
            yield [label, *figure_text(key, figure), str(curve["n_positive"])]
