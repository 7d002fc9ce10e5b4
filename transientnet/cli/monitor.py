"""``transientnet monitor``: has the survey drifted away from what the model knows?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..files.strict_json import dump_json
from .console import say

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
        float, typer.Option(help="Least population stability index of a shift that matters.")
    ] = 0.2,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON.")] = False,
) -> None:
    """Compare a night's scores, flags and stamps with what is expected; exit with 1 if any has shifted.

    A night like the reference is called shifted at most once in twenty times, however few candidates it has.
    """
    from ..errors import UsageError
    from ..evaluation import drift as room
    from ..models.registry.resolve import resolve
    from ..readers.open import open_triplets
    from ..results.columns import plural
    from .columns import columns

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
    verdicts = room.verdicts(drifts, limit)
    header = ["quantity", "n", "psi", "ks", "p", "shifted"]
    rows = [
        [d.name, d.n, f"{d.psi:.3f}", "" if d.ks != d.ks else f"{d.ks:.3f}", f"{d.p:.2g}", verdict]
        for d, verdict in zip(drifts, verdicts, strict=True)
    ]
    if as_json:
        found = [d._asdict() | {"shifted": v} for d, v in zip(drifts, verdicts, strict=True)]
        typer.echo(dump_json(found))
    else:
        typer.echo(columns(header, rows))
    if "too few" in verdicts:
        count = plural(len(night.quality), "candidate")
        verb = "is" if len(night.quality) == 1 else "are"
        say(f"{count} {verb} too few to tell a shift of {100 * room.LARGE:g} % of them from chance")
    if worst := [d.name for d, verdict in zip(drifts, verdicts, strict=True) if verdict == "yes"]:
        say(f"shifted: {', '.join(worst)}")
        raise typer.Exit(1)
