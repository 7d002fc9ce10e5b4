"""``transientnet score``: vet tonight's cutouts."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..scoring.boot import MANY_INPUTS, prepare
from ..settings import cores
from .console import Bar, Quiet, note, say

if TYPE_CHECKING:
    from ..models.classifier import Classifier
    from ..readers.open import Reading
    from ..results.predictions import Predictions
    from ..scoring.batches import Part

__all__ = ["score"]

#: Rows that a terminal shows; a table of more belongs into a file.
_SHOWN = 1000


def score(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="FITS, Avro, Parquet, npy… files, globs or folders; - reads paths from stdin."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model name, name@version, or path to an .onnx.")
    ] = "realbogus",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Score table: .csv, .ecsv, .jsonl, .parquet, .fits or .vot."),
    ] = None,
    pixel_scale: Annotated[
        float | None, typer.Option(help="arcsec per pixel, if the files have none or a wrong one.")
    ] = None,
    fwhm: Annotated[float | None, typer.Option(help="Seeing in pixels, likewise.")] = None,
    layout: Annotated[str | None, typer.Option(help="Survey name, or a TOML file with field names.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Name the last of two classes (real) from this probability on."),
    ] = None,
    completeness: Annotated[
        float | None,
        typer.Option(
            help="Name real what lies above the threshold that keeps this share of injected sources, say "
            "0.95: the model's own if its record has one, else measured on these files."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that read and score; by default what pays here.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the output: score only what is not in it yet.")
    ] = False,
    watch: Annotated[
        Path | None, typer.Option(help="Folder to score now and whenever files arrive, until Ctrl-C.")
    ] = None,
    on_bad: Annotated[str, typer.Option(help="flag: a row for what cannot be read; raise: stop.")] = "flag",
    offline: Annotated[bool, typer.Option("--offline", help="Open no network connection.")] = False,
    sets: Annotated[
        float | None, typer.Option(help="Add the classes that hold the true one at this level, say 0.95.")
    ] = None,
    kinds: Annotated[
        bool, typer.Option("--kinds", help="Add which kind of bogus each rejected candidate is.")
    ] = False,
    gallery: Annotated[
        Path | None, typer.Option(help="Also write one web page that shows every candidate.")
    ] = None,
    explain: Annotated[
        Path | None, typer.Option(help="Folder for a picture per candidate of what the answer rests on.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option(help="Score on the Dask cluster of this scheduler, tcp://host:8786.")
    ] = None,
    catalog: Annotated[
        Path | None, typer.Option(help="Positions to cut out of --science, --reference, --difference.")
    ] = None,
    science: Annotated[Path | None, typer.Option(help="Science frame, with --catalog.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Reference frame, with --catalog.")] = None,
    difference: Annotated[Path | None, typer.Option(help="Difference frame, with --catalog.")] = None,
    from_file: Annotated[
        Path | None, typer.Option(help="Text file with the path of an input per line; - is stdin.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Score candidates and write one row each: id, source, label, p_<class>…, quality, model."""
    if not (dask or gallery or explain):
        # Much of a short run is the start of its processes: they load their modules while this one does.
        prepare(_processes(files or [], workers))
    from ..errors import EmptyInputError, OutputError, UsageError
    from ..models.classifier import load_model
    from ..readers.open import Reading
    from ..scoring.engine import hold_memory
    from ..scoring.interrupts import on_interrupt
    from ..scoring.run import score_run

    hold_memory()
    started = time.monotonic()
    sources = _sources(files or [], from_file)
    _check_sources(sources or files or from_file, watch, catalog, science, dask)
    if output is None and sys.__stdout__ is None:
        raise OutputError("standard output is closed: name a table with -o")
    classifier = load_model(model, offline=offline or None, threads=1)
    terminal = _Terminal(classifier.classes, classifier.record.id) if sys.stdout.isatty() else None
    if completeness is not None:
        if threshold is not None:
            raise UsageError("--completeness chooses the threshold; leave out --threshold")
        threshold = _threshold_for(
            completeness,
            classifier,
            None if catalog is not None else sources,
            Reading(layout, pixel_scale, fwhm),
        )
    with ExitStack() as stack:
        stop = stack.enter_context(on_interrupt(once=True))
        triplets = None
        if catalog is not None:
            from ..cutting.cut import cut_triplets

            triplets = cut_triplets(
                science, reference, difference, catalog, pixel_scale=pixel_scale, fwhm=fwhm
            )
        tally = score_run(
            sources,
            classifier,
            output=output,
            sink=terminal,
            reading=Reading(layout, pixel_scale, fwhm),
            threshold=threshold,
            sets=sets,
            kinds=kinds,
            workers=workers,
            resume=resume,
            watch=watch,
            on_bad=on_bad,
            gallery=gallery,
            explain=explain,
            dask=dask,
            name=model,
            triplets=triplets,
            stop=stop,
            say=say,
            progress=partial(stack.enter_context(Bar("candidates")), "scoring"),
        )
    if terminal is not None and output is None:
        terminal.finish()
    note(f"{tally.summary()}; {time.monotonic() - started:.1f} s")
    if stop.asked:
        if output is not None:
            say(f"interrupted; --resume continues {output}")
        raise typer.Exit(130)
    if tally.rows and tally.unreadable == tally.rows:
        raise EmptyInputError("none of the candidates could be read")


def _threshold_for(
    wanted: float, classifier: Classifier, sources: list[str] | None, reading: Reading
) -> float:
    """The threshold that keeps a share of injected sources: from the record, else from the files to score."""
    from ..errors import UsageError
    from ..evaluation.completeness import completeness

    stored = classifier.record.metrics.get("completeness", {}).get(f"{wanted:g}")
    if stored is not None:
        say(
            f"p(real) ≥ {stored['value']:.3f} keeps {100 * wanted:g} % of injected sources, by the record of "
            f"{classifier.record.id}"
        )
        return float(stored["value"])
    if not sources:
        raise UsageError(
            f"{classifier.record.id} has no threshold for a completeness of {wanted:g}, and sources can be "
            "injected into files alone: leave out --catalog and --watch, or give a --threshold that "
            "transientnet completeness finds"
        )
    measured = completeness(
        sources, model=classifier, layout=reading.layout, pixel_scale=reading.pixel_scale, fwhm=reading.fwhm
    )
    limit = measured.threshold_for(wanted)
    say(
        f"p(real) ≥ {limit.value:.3f} ({limit.low:.3f}–{limit.high:.3f}) keeps {100 * wanted:g} % of "
        f"{measured.recall().n} sources injected into {measured.stamps} stamps"
    )
    return limit.value


def _processes(files: list[str], workers: int | None) -> int:
    """Worker processes that folders are sure to need, by a look at how many files lie in them."""
    least = MANY_INPUTS if workers is None else workers
    count = cores() if workers is None else workers
    files_found = 0
    with suppress(OSError):
        for name in filter(os.path.isdir, files):
            with os.scandir(name) as entries:
                files_found += sum(1 for _ in islice(entries, least - files_found))
    return count if count > 1 and files_found >= least else 0


def _sources(files: list[str], from_file: Path | None) -> list[str]:
    """Files as named, and the lines of the lists of files."""
    from ..errors import EmptyInputError, ReadError, UsageError

    lists = [name for name in ("-",) if name in files] + ([] if from_file is None else [str(from_file)])
    if lists.count("-") > 1:
        raise UsageError("stdin can be read once: give - or --from-file -, not both")
    sources = [name for name in files if name != "-"]
    for name in lists:
        try:
            data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except (OSError, AttributeError) as error:
            raise ReadError(f"{name}: {getattr(error, 'strerror', None) or 'stdin is closed'}") from error
        lines = [os.fsdecode(line.rstrip(b"\r")) for line in data.split(b"\n")]
        named = [line for line in lines if line.strip()]
        if not named:
            raise EmptyInputError(f"{'stdin' if name == '-' else name}: it names no file")
        sources += named
    return sources


def _check_sources(
    files: object, watch: Path | None, catalog: Path | None, science: Path | None, dask: str | None
) -> None:
    from ..errors import UsageError

    if (catalog is None) != (science is None):
        raise UsageError("--catalog and --science belong together: positions, and the frame to cut them from")
    if catalog is not None and (files or watch is not None or dask is not None):
        raise UsageError("--catalog cuts stamps from frames; leave out files, --watch and --dask")
    if not files and watch is None and catalog is None:
        raise UsageError("name files or folders to score, a folder to --watch, or a --catalog")
    if watch is not None and dask is not None:
        raise UsageError("--watch scores on this machine; leave out --dask")


class _Terminal:
    """A table on the terminal, when the run has ended."""

    def __init__(self, classes: tuple[str, ...], model: str) -> None:
        self._classes, self._model = classes, model
        self._parts: list[Predictions] = []
        self._rows = 0
        self.begun = True

    def begin(self, positions: bool) -> None:
        pass

    def append(self, part: Part) -> None:
        if self._rows < _SHOWN:
            self._parts.append(part.predictions)
        self._rows += len(part.predictions)

    def commit(self) -> None:
        pass

    def finish(self) -> None:
        """Show the rows kept."""
        from ..results.columns import one_line
        from ..triplet import QualityFlag
        from .columns import columns

        named = any(part.kinds is not None for part in self._parts)
        rows = [
            [
                one_line([row.id])[0],
                row.label or "unusable",
                *([kind] if named else []),
                *(f"{p:.3f}" if p == p else "" for p in row.probabilities.values()),
                ", ".join(QualityFlag.names(row.quality)).lower().replace("_", " "),
            ]
            for predictions in self._parts
            for row, kind in zip(
                predictions,
                [""] * len(predictions) if predictions.kinds is None else predictions["kind"],
                strict=True,
            )
        ]
        header = [
            "id",
            "label",
            *(["kind"] if named else []),
            *(f"p({name})" for name in self._classes),
            "quality",
        ]
        typer.echo(f"{self._model}\n{columns(header, rows, self._classes)}")
        if self._rows > len(rows):
            say(f"{self._rows - len(rows):,} more rows; -o scores.csv keeps them all")
