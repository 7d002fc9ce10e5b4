"""``transientnet adapt``: transfer a model onto a survey's own labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Bar, Quiet, StageLines, note, say

if TYPE_CHECKING:
    from ..transfer.outcome import AdaptResult

__all__ = ["adapt"]


def adapt(
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="CSV, ECSV or Parquet: label, and path | science,reference,difference | id; "
            "optional group, weight, split, pixel_scale, fwhm.",
        ),
    ] = None,
    unlabelled: Annotated[
        list[str] | None,
        typer.Option(
            "--unlabelled",
            help="A night's candidates without labels: file, glob or folder. Without --labels they choose "
            "the threshold; the network stays as it is.",
        ),
    ] = None,
    cutouts: Annotated[
        Path | None,
        typer.Option(help="File or folder that the table's ids (or rows, or relative paths) refer to."),
    ] = None,
    base: Annotated[str, typer.Option(help="Model to start from.")] = "realbogus",
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of the new model: new, empty, or from an earlier run."),
    ] = Path("adapted"),
    pixel_scale: Annotated[
        float | None, typer.Option(help="arcsec per pixel, where the table has none.")
    ] = None,
    fwhm: Annotated[float | None, typer.Option(help="Seeing in pixels, where the table has none.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the classes, if not 'label'.")] = None,
    group_column: Annotated[
        str | None, typer.Option(help="Column of the sky objects, if not 'group'.")
    ] = None,
    new_classes: Annotated[
        bool, typer.Option("--new-classes", help="Class names that look like misspellings are meant.")
    ] = False,
    compare_scratch: Annotated[
        int, typer.Option(metavar="N", help="Compare transfer, linear probe and scratch over N seeds.")
    ] = 0,
    label_noise: Annotated[
        bool, typer.Option("--label-noise", help="List the labels to look at again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the table and train nothing.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows with unusable stamps or contradicting labels.")
    ] = False,
    method: Annotated[str, typer.Option(help="transfer, or probe (the last layer alone).")] = "transfer",
    steps: Annotated[
        int | None, typer.Option(help="Steps per fold; by default from the number of labels.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of the grouped cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(help="Same seed, same model.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads of the training.")] = None,
    name: Annotated[str | None, typer.Option(help="The new model's name; default the folder's.")] = None,
    model_version: Annotated[str, typer.Option(help="The new model's version.")] = "1.0.0",
    licence: Annotated[str, typer.Option(help="Licence of the new model, for its card.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print metrics.json instead of the summary.")
    ] = False,
    stages: Annotated[
        bool, typer.Option("--stages", hidden=True, help="Each step as a line of JSON on stderr.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Adapt a model to your own labels, or to a night without any: calibrated, with a report."""
    from ..errors import UsageError
    from ..transfer.adapt import adapt as run
    from ..transfer.config import AdaptConfig

    config = AdaptConfig(
        method=method,
        folds=folds,
        steps=steps,
        compare_scratch=compare_scratch,
        label_noise=label_noise,
        skip_bad=skip_bad,
        new_classes=new_classes,
        label_column=label_column,
        group_column=group_column,
        seed=seed,
        device=device,
        threads=threads,
        name=name,
        version=model_version,
        licence=licence,
    )
    given: dict[str, Any] = {
        "cutouts": None if cutouts is None else str(cutouts),
        "pixel_scale": pixel_scale,
        "fwhm": fwhm,
        "base": base,
    }
    if dry_run:
        if labels is None:
            raise UsageError("--dry-run checks a table of --labels, and none is named")
        columns = {"label_column": label_column, "group_column": group_column}
        _check(labels, {**given, **columns, "new_classes": new_classes})
        return
    with StageLines() if stages else Bar("steps") as bar:
        result = run(
            labels, unlabelled=unlabelled or None, output=str(output), config=config, progress=bar, **given
        )
    if as_json:
        typer.echo((output / "metrics.json").read_text(encoding="utf-8"), nl=False)
    else:
        _summary(result)
    note(f"wrote {output}; {_duration(result.figures.seconds)}")
    if result.interrupted:
        raise KeyboardInterrupt


def _check(labels: Path, given: dict[str, Any]) -> None:
    from ..labels.checks import check_table

    checked = check_table(labels, **given)
    for line in checked.lines():
        typer.echo(line)
    if not checked.ok:
        raise typer.Exit(1)


def _summary(result: AdaptResult) -> None:
    from ..results.columns import plural
    from ..transfer.outcome import NightMetrics

    figures = result.figures
    if isinstance(figures, NightMetrics):
        typer.echo(figures.outcome)
        typer.echo(f"{result.record.id}: {result.model}")
        for level, threshold in result.record.metrics["completeness"].items():
            typer.echo(
                f"  {100 * float(level):g} % of injected sources lie at p(real) ≥ {threshold['value']:.3f}"
            )
        return
    judged = figures.cross_validation
    for notice in figures.labels.notices:
        say(notice)
    typer.echo(figures.outcome)
    typer.echo(f"{result.record.id}: {result.model}")
    for who, measured in (("new", judged.new), ("base", judged.base)):
        if measured is not None:
            values = [measured["metrics"][name] for name in ("balanced_accuracy", "auc")]
            accuracy, auc = (f"{v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for v in values)
            stamps, objects = plural(measured["n"], "stamp"), plural(measured["n_groups"], "object")
            rows = f"{stamps} of {objects}, left out of training"
            typer.echo(f"  {who:4} balanced accuracy {accuracy}  AUC {auc}  ({rows})")
    if figures.learning_rise:
        typer.echo(f"  {figures.learning_rise}")
    if figures.comparison:
        typer.echo(f"  {figures.comparison.sentence}")
    for doubt in figures.doubted_labels:
        typer.echo(f"  doubted: {doubt}")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
