"""``transientnet monitor``: has the survey drifted away from what the model knows?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["monitor"]


def monitor(
    scores: Annotated[Path, typer.Argument(help="Tonight's score table: .csv, .ecsv, .jsonl or .parquet.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model; by default the one that the table names.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="A good night's score table to compare with, instead of the model's own."),
    ] = None,
    cutouts: Annotated[
        list[str] | None, typer.Option(help="The night's stamps, to compare their statistics too.")
    ] = None,
    limit: Annotated[
        float, typer.Option(help="Population stability index above which to exit with 1.")
    ] = 0.2,
) -> None:
    """Compare a night's scores, flags and stamps with what is expected; exit with 1 past the limit."""
    from ..errors import UsageError
    from ..evaluation import drift as room
    from ..models.registry.resolve import resolve
    from ..readers.open import open_triplets

    night = room.read_scores(scores)
    name = model or night.model
    record = resolve(name)[1] if reference is None or cutouts else None
    expected = room.read_scores(reference) if reference else room.needs_reference(record) if record else {}
    known = expected.classes if isinstance(expected, room.ScoreTable) else tuple(expected["scores"])
    if set(known) != set(night.classes):
        raise UsageError(f"{scores} has the classes {', '.join(night.classes)}, not {', '.join(known)}")
    drifts = room.compare_scores(night, expected) + room.compare_flags(night, expected)
    if cutouts and record:
        drifts += room.compare_inputs(open_triplets(cutouts), record.contract, room.needs_reference(record))
    typer.echo("quantity\tn\tpsi\tks\tp\tshifted")
    for drift in drifts:
        shifted = "yes" if drift.psi > limit else "no"
        typer.echo(f"{drift.name}\t{drift.n}\t{drift.psi:.3f}\t{drift.ks:.3f}\t{drift.p:.2g}\t{shifted}")
    if worst := [drift.name for drift in drifts if not drift.psi <= limit]:
        typer.echo(f"transientnet: past the limit of {limit:g}: {', '.join(worst)}", err=True)
        raise typer.Exit(1)
