"""``transientnet completeness``: what this telescope would lose, known before its first label."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import Quiet, note, say

__all__ = ["completeness"]


def completeness(
    cutouts: Annotated[
        list[str] | None, typer.Argument(help="Any night's candidates: files, globs or folders.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model with a class real or bogus.")
    ] = "realbogus",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path(
        "completeness"
    ),
    pixel_scale: Annotated[
        float | None, typer.Option(help="arcsec per pixel, if the files do not say.")
    ] = None,
    fwhm: Annotated[float | None, typer.Option(help="Seeing in pixels, if the files do not say.")] = None,
    science: Annotated[
        str | None, typer.Option(help="Science frame to inject into, instead of cutouts.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Reference frame, with --science.")] = None,
    difference: Annotated[str | None, typer.Option(help="Difference frame, with --science.")] = None,
    mask: Annotated[str | None, typer.Option(help="Mask frame, with --science.")] = None,
    layout: Annotated[str | None, typer.Option(help="Survey name, or a TOML file with field names.")] = None,
    injections: Annotated[int, typer.Option("--injections", "-n", min=1, help="Sources to inject.")] = 1000,
    trail: Annotated[
        float, typer.Option(min=0, help="Inject trails of this length, in units of the seeing.")
    ] = 0.0,
    zero_point: Annotated[
        float | None, typer.Option(help="Magnitude of a flux of one in the science stamps.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="p(real) from which a source counts as found.")
    ] = 0.5,
    min_recall: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Exit with 1 if recall at detection is below this."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the injections.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print metrics.json instead of the summary.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Inject sources into your own stamps or frames: recall, limits, thresholds; no label needed."""
    from ..errors import UsageError
    from ..evaluation.completeness import DETECTED
    from ..evaluation.completeness import completeness as measure
    from ..evaluation.completeness_report import summary, write_folder
    from ..evaluation.injection_frames import frame_stamps

    started = time.monotonic()
    source: Any = cutouts
    if science is not None:
        if cutouts:
            raise UsageError("--science injects into frames; leave out the cutouts")
        source = frame_stamps(
            science, reference, difference, mask=mask, pixel_scale=pixel_scale, fwhm=fwhm, seed=seed
        )
    elif reference or difference or mask:
        raise UsageError("--reference, --difference and --mask belong to a --science frame")
    elif not cutouts:
        raise UsageError("name cutouts, or a --science frame with its --reference and --difference")
    result = measure(
        source,
        model=model,
        layout=layout,
        pixel_scale=pixel_scale,
        fwhm=fwhm,
        injections=injections,
        trail=trail,
        zero_point=zero_point,
        threshold=threshold,
        seed=seed,
    )
    written = write_folder(result, output)
    if as_json:
        typer.echo((output / "metrics.json").read_text(encoding="utf-8"), nl=False)
    else:
        typer.echo("\n".join(summary(result)))
    note(f"wrote {', '.join(str(path) for path in written)}; {time.monotonic() - started:.1f} s")
    recall = result.recall()
    if min_recall is not None and not recall.value >= min_recall:
        say(f"recall at signal-to-noise {DETECTED:g} or more is {recall}, below {min_recall:g}")
        raise typer.Exit(1)
