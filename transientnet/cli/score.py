"""``transientnet score``: vet tonight's cutouts."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..models.classifier import Classifier
    from ..models.record import ModelRecord
    from ..results.predictions import Predictions
    from ..scoring.batches import Part
    from ..triplet import QualityFlag
    from .pictures import Pictures

__all__ = ["score"]

#: Rows that a terminal shows; a table of more belongs into a file.
_SHOWN = 1000

#: Candidates from which on "most of them" says something of the telescope.
_ENOUGH = 10


def score(
    files: Annotated[
        list[str] | None, typer.Argument(help="FITS, Avro, Parquet, npy… files, globs or folders.")
    ] = None,
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
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Name the last of two classes (real) from this probability on."),
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
) -> None:
    """Score candidates and write one row each: id, source, label, p_<class>…, quality, model."""
    from ..errors import EmptyInputError, UsageError
    from ..models.classifier import load_model
    from ..results.writers import check_format
    from ..scoring.batches import Reading, find_inputs
    from ..scoring.classify import score_inputs, score_triplets
    from ..scoring.engine import hold_memory

    hold_memory()

    _check_sources(files, watch, catalog, science, dask)
    if (gallery or explain) and (watch is not None or dask is not None or resume):
        raise UsageError("--gallery and --explain draw one run; leave out --watch, --dask and --resume")
    if on_bad not in ("flag", "raise"):
        raise UsageError(f"--on-bad must be flag or raise, not {on_bad!r}")
    if output is not None:
        check_format(output)
    elif resume:
        raise UsageError("--resume continues an --output, and none is named")
    classifier = load_model(model, offline=offline or None, threads=1)
    if threshold is not None and len(classifier.classes) != 2:
        raise UsageError(
            f"--threshold decides between two classes; {classifier.record.id} has {len(classifier.classes)}"
        )
    reading = Reading(layout, pixel_scale, fwhm)
    find = partial(find_inputs, layout=layout)
    with ExitStack() as stack:
        stop = stack.enter_context(_interrupts())
        table: _Table = (
            _Table(classifier, threshold, sets)
            if output is None
            else stack.enter_context(
                _File(classifier, threshold, sets, output, reading, resume=resume or watch is not None)
            )
        )
        pictures = None
        if gallery or explain:
            from .pictures import Pictures

            pictures = stack.enter_context(Pictures(classifier, gallery, explain))
        run = _Run(table, on_bad == "raise", stop, pictures)
        if catalog is not None:
            from ..cutting.frames import cut_triplets

            triplets = cut_triplets(
                science, reference, difference, catalog, pixel_scale=pixel_scale, fwhm=fwhm
            )
            seen = triplets if pictures is None else pictures.tap(triplets)
            run.score(score_triplets(seen, classifier, reading, workers=workers), 0)
        sources = [*(files or []), *([] if watch is None else [str(watch)])]
        listed = _listed(sources, find, empty_is_fine=watch is not None)
        later: Iterable[list[Any]] = ()
        if watch is not None:
            from ..scoring.watch import arrivals

            # Before the first candidate is scored: what arrives during that must not be missed.
            later = arrivals(watch, listed, stop, layout)
        inputs, skip = table.remaining(listed)
        if pictures is not None and files:
            from ..readers.open import open_triplets

            opened = open_triplets(files, layout=layout, pixel_scale=pixel_scale, fwhm=fwhm)
            parts = score_triplets(pictures.tap(opened), classifier, reading, workers=workers)
        elif dask is None:
            parts = score_inputs(inputs, classifier, reading, workers=workers, skip=skip)
        else:
            from ..scoring.cluster import connect, score_on_cluster

            client = stack.enter_context(connect(dask))
            parts = score_on_cluster(inputs, client, model, reading, skip=skip)
        run.score(parts, len(inputs))
        table.commit()
        for inputs in later:
            run.score(score_inputs(inputs, classifier, reading, workers=workers), len(inputs))
            table.commit()
        table.finish()
        run.advise(classifier.record)
        run.summarise()
    if stop.asked:
        if output is not None:
            typer.echo(f"transientnet: interrupted; --resume continues {output}", err=True)
        raise typer.Exit(130)
    if run.rows and run.unreadable == run.rows:
        raise EmptyInputError("none of the candidates could be read")


def _check_sources(
    files: list[str] | None, watch: Path | None, catalog: Path | None, science: Path | None, dask: str | None
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


def _listed(sources: list[str], find: Any, *, empty_is_fine: bool) -> list[Any]:
    from ..errors import EmptyInputError

    try:
        found: list[Any] = find(sources)
    except EmptyInputError:
        if not empty_is_fine:
            raise
        return []
    return found


class _Stop:
    """Whether Ctrl-C was pressed."""

    asked = False


@contextmanager
def _interrupts() -> Iterator[_Stop]:
    """Let the first Ctrl-C end the run in order; the second one ends it at once."""
    stop = _Stop()

    def ask(*_: object) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


class _Run:
    """Parts into the table, messages to stderr, and the sums of the run."""

    def __init__(self, table: _Table, raise_bad: bool, stop: _Stop, pictures: Pictures | None) -> None:
        self._table, self._raise_bad, self._stop, self._pictures = table, raise_bad, stop, pictures
        self._started = time.monotonic()
        self._labels: dict[str, int] = {}
        self.rows = self.unreadable = 0
        self._unknown_seeing = self._foreign = 0

    def score(self, parts: Iterable[Part], inputs: int) -> None:
        """Take parts until they end or Ctrl-C is pressed."""
        from ..scoring.classify import raise_bad
        from ..triplet import QualityFlag

        with _progress(inputs) as advance:
            for part in parts:
                predictions = self._table.append(part)
                for row, message in predictions.errors.items():
                    where = predictions.sources[row] or predictions.ids[row]
                    text = message if message.startswith(str(where)) else f"{where}: {message}"
                    typer.echo(f"transientnet: {text}", err=True)
                if self._raise_bad:
                    raise_bad(predictions)
                if self._pictures is not None:
                    self._pictures.add(predictions)
                self.rows += len(predictions)
                self.unreadable += _flagged(predictions, QualityFlag.UNREADABLE)
                self._unknown_seeing += _flagged(predictions, QualityFlag.FWHM_ASSUMED)
                self._foreign += _flagged(predictions, QualityFlag.OUT_OF_DISTRIBUTION)
                for label in predictions.labels.tolist():
                    self._labels[label] = self._labels.get(label, 0) + 1
                advance(sum(mark.ended for mark in part.marks), self.rows)
                if self._stop.asked:
                    break
        if hasattr(parts, "close"):
            parts.close()

    def summarise(self) -> None:
        """One line for a person."""
        if not sys.stderr.isatty():
            return
        seconds = time.monotonic() - self._started
        counts = ", ".join(f"{n} {label or 'unusable'}" for label, n in sorted(self._labels.items()))
        typer.echo(f"{self.rows} candidates: {counts or 'none'}; {seconds:.1f} s", err=True)

    def advise(self, record: ModelRecord) -> None:
        """What a person should know of most of the rows before trusting the table."""
        if self.rows < _ENOUGH:
            return
        if 2 * self._unknown_seeing > self.rows:
            typer.echo(
                f"transientnet: the seeing of {self._unknown_seeing} of {self.rows} candidates is not known, "
                "and no source is bright enough to measure it: "
                f"above {record.contract.fwhm_px[1]:g} pixels give --fwhm",
                err=True,
            )
        if 2 * self._foreign > self.rows:
            typer.echo(
                f"transientnet: {self._foreign} of {self.rows} candidates are unlike what {record.id} was "
                "trained on: look at some before you trust the numbers; "
                "`transientnet adapt` transfers it onto your labels",
                err=True,
            )


def _flagged(predictions: Predictions, flag: QualityFlag) -> int:
    return int(((predictions.quality & flag) != 0).sum())


class _Table:
    """Where rows go: stdout, as CSV on a pipe and as a table on a terminal."""

    def __init__(self, classifier: Classifier, threshold: float | None, sets: float | None) -> None:
        self._decide = partial(_decide, conformal=classifier.record.conformal, threshold=threshold, sets=sets)
        self._empty = self._decide(classifier.predict([]))
        self._shown: list[Predictions] = []
        self._rows = 0

    def remaining(self, inputs: list[Any]) -> tuple[list[Any], int]:
        """Inputs to score, and rows of the first one that the table has."""
        return inputs, 0

    def append(self, part: Part) -> Predictions:
        """Take the rows of a part; gives them as they stand in the table."""
        from ..results.writers import Writer

        predictions = self._decide(part.predictions)
        if not sys.stdout.isatty():
            writer = Writer()
            _to_pipe((b"" if self._rows else writer.header(predictions)) + writer.rows(predictions))
        elif self._rows < _SHOWN:
            self._shown.append(predictions)
        self._rows += len(predictions)
        return predictions

    def commit(self) -> None:
        """Make sure that what was appended stays."""

    def finish(self) -> None:
        """Show what was kept for the terminal."""
        if not sys.stdout.isatty():
            return
        _print_table(self._shown, self._empty)
        if self._rows > (shown := sum(map(len, self._shown))):
            typer.echo(
                f"transientnet: {self._rows - shown} more rows; -o scores.csv keeps them all", err=True
            )


def _to_pipe(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


class _File(_Table):
    """A file that grows, with its journal."""

    def __init__(
        self,
        classifier: Classifier,
        threshold: float | None,
        sets: float | None,
        path: Path,
        reading: Any,
        *,
        resume: bool,
    ) -> None:
        import hashlib

        from ..scoring.output import ScoreFile

        super().__init__(classifier, threshold, sets)
        made_by = {
            "model": classifier.record.id,
            "weights": hashlib.sha256(Path(classifier.path).read_bytes()).hexdigest(),
            "layout": reading.layout,
            "pixel_scale": reading.pixel_scale,
            "fwhm": reading.fwhm,
            "threshold": threshold,
            "sets": sets,
        }
        self._file = ScoreFile(path, made_by, self._empty, resume=resume)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def remaining(self, inputs: list[Any]) -> tuple[list[Any], int]:
        return self._file.remaining(inputs)

    def append(self, part: Part) -> Predictions:
        predictions = self._decide(part.predictions)
        self._file.append(part._replace(predictions=predictions))
        return predictions

    def commit(self) -> None:
        self._file.commit()

    def finish(self) -> None:
        pass


def _decide(
    predictions: Predictions, conformal: Any, threshold: float | None, sets: float | None
) -> Predictions:
    """Labels by the threshold, and prediction sets, where they are asked for."""
    from dataclasses import replace

    if sets is not None:
        from ..models.calibration import prediction_sets

        members = prediction_sets(predictions.probabilities, conformal, sets)
        predictions = replace(predictions, sets=members)
    return replace(predictions, threshold=threshold)


@contextmanager
def _progress(inputs: int) -> Iterator[Any]:
    """A bar over the inputs with rate and time left, where stderr is a terminal."""
    if not sys.stderr.isatty() or inputs == 0:
        yield lambda ended, rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    started = time.monotonic()
    with Progress(
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("scoring", total=inputs, rate="")

        def advance(ended: int, rows: int) -> None:
            rate = rows / max(1e-9, time.monotonic() - started)
            bar.update(task, advance=ended, rate=f"{rows} candidates, {rate:.0f}/s")

        yield advance


def _print_table(parts: list[Predictions], empty: Predictions) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..triplet import QualityFlag

    table = Table("id", "label", *empty.classes, "quality", title=empty.model)
    for predictions in parts:
        for row in predictions:
            cells = (f"{p:.3f}" for p in row.probabilities.values())
            flags = " ".join(QualityFlag.names(row.quality)).lower()
            table.add_row(row.id, row.label or "[dim]unusable[/]", *cells, flags)
    Console().print(table)
