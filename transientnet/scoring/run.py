"""A run over files, as ``transientnet score`` does it: one table, messages, counts, advice."""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any, Protocol

from ..errors import TransientnetWarning, UsageError
from ..models.classifier import Classifier
from ..readers.open import Input, Reading, find_inputs, paths_of
from ..results.columns import one_line
from ..results.predictions import Predictions
from ..results.tally import Tally
from ..results.writers import Writer, check_format
from ..triplet import Triplet
from .batches import Part
from .classify import raise_bad, score_inputs, score_triplets
from .cluster import connect, score_on_cluster
from .expected import Expected
from .interrupts import Interrupt
from .output import ScoreFile, output_errors
from .pictures import Pictures
from .watch import arrivals

__all__ = ["CsvStream", "Sink", "score_run"]

#: Endings of files that hold pixels and nothing else.
_BARE = (".npy", ".npz")


#: Rows that wait for the first position, before the table's columns are fixed.
_WAITING = 256


class Sink(Protocol):
    """Where the rows of a run go: `ScoreFile`, `CsvStream`, or what a program makes of them."""

    @property
    def begun(self) -> bool:
        """Whether the columns are fixed."""

    def begin(self, positions: bool) -> None:
        """Fix the columns: with ``ra``, ``dec``, ``x`` and ``y`` or without."""

    def append(self, part: Part) -> None:
        """Take the rows of a part."""

    def commit(self) -> None:
        """Make sure that what was appended stays."""


class CsvStream:
    """The table as CSV on a binary stream such as a pipe."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._writer = stream, Writer()
        self._positions: bool | None = None
        self._headed = False

    @property
    def begun(self) -> bool:
        """Whether the columns are fixed."""
        return self._positions is not None

    def begin(self, positions: bool) -> None:
        """Fix the columns."""
        self._positions = positions

    def append(self, part: Part) -> None:
        """Write the rows of a part, and before the first one the header."""
        self.write(part.predictions)

    def write(self, predictions: Predictions) -> None:
        """As `append`, for rows alone."""
        columns = predictions.columns(self._positions)
        with output_errors("standard output"):
            header = b"" if self._headed else self._writer.header(columns)
            self._stream.write(header + self._writer.rows(columns))
            self._stream.flush()
        self._headed = True

    def commit(self) -> None:
        """Nothing to do: a pipe forgets nothing."""


class _Columns:
    """Parts on their way into a table whose columns are fixed by what the first rows know.

    The same columns come out however the rows are cut into parts: with positions if one is among them, if
    the run has more than `_WAITING` rows of files that may hold some, or if it never ends; without if all
    rows are without.
    """

    def __init__(self, table: Sink, maybe: bool) -> None:
        self._table, self._maybe = table, maybe
        self._waiting: list[Part] = []
        self._rows = 0

    def append(self, part: Part) -> None:
        if self._table.begun:
            self._table.append(part)
            return
        self._waiting.append(part)
        self._rows += len(part.predictions)
        if part.predictions.positions or self._rows > _WAITING or not self._maybe:
            self.fix(self._maybe)

    def fix(self, positions: bool) -> None:
        """Write what waits, with or without positions."""
        if not self._table.begun:
            self._table.begin(positions)
        waiting, self._waiting = self._waiting, []
        for part in waiting:
            self._table.append(part)


def score_run(  # noqa: C901 (where all options of a run meet)
    sources: Sequence[str],
    classifier: Classifier,
    *,
    output: Path | None = None,
    sink: Sink | None = None,
    reading: Reading | None = None,
    threshold: float | None = None,
    sets: float | None = None,
    kinds: bool = False,
    workers: int | None = None,
    resume: bool = False,
    watch: Path | None = None,
    on_bad: str = "flag",
    gallery: Path | None = None,
    explain: Path | None = None,
    dask: str | None = None,
    name: str | None = None,
    triplets: Iterable[Triplet] | None = None,
    stop: Interrupt | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Tally:
    """Score files into a table that grows, with constant memory.

    Parameters
    ----------
    sources : sequence of str
        Files, globs and folders.
    classifier : Classifier
    output : Path, optional
        The score table; its ending chooses the format.
    sink : Sink, optional
        Takes the rows instead of `output`; by default they go to stdout as CSV.
    reading : Reading, optional
        How the files are read.
    threshold, sets, kinds, workers, on_bad
        As in `classify`.
    resume : bool
        Continue `output`: score only what is not in it.
    watch : Path, optional
        A folder to score, and then what arrives there until `stop` is asked; `output` is continued.
    gallery, explain : Path, optional
        A page of all candidates, and a folder of pictures of what each answer rests on.
    dask : str, optional
        Address of a Dask scheduler whose workers score.
    name : str, optional
        What those workers load the model by; by default the path of its file.
    triplets : iterable of Triplet, optional
        Candidates instead of files, such as those of `cut_triplets`.
    stop : Interrupt, optional
        Asked after each part.
    say : callable, optional
        Takes a message per row that could not be read or scored; by default they go to stderr.
    progress : callable, optional
        Called with the candidates scored, and how many there will be, None as long as that is not known.

    Returns
    -------
    Tally
        Counts over the rows of this run.

    Raises
    ------
    ReadError
        There is nothing to read; with ``on_bad="raise"`` also for the first candidate that is unreadable.
    UsageError
        Arguments contradict each other, or `output` cannot be continued.
    OutputError
        The table cannot be written.

    Warns
    -----
    TransientnetWarning
        The seeing of most candidates is not known, or most are unlike what the model was trained on.
    """
    if (gallery or explain) and (watch is not None or dask is not None or resume):
        raise UsageError("--gallery and --explain draw one run; leave out --watch, --dask and --resume")
    if on_bad not in ("flag", "raise"):
        raise UsageError(f"--on-bad must be flag or raise, not {on_bad!r}")
    if output is not None:
        check_format(output)
    elif resume:
        raise UsageError("--resume continues an --output, and none is named")
    reading, stop = reading or Reading(), stop or Interrupt()
    empty = classifier.joined([], threshold, sets, kinds)
    inputs: list[Input] = find_inputs(sources, reading.layout) if sources else []
    maybe = triplets is not None or watch is not None or not all(map(_bare, inputs))
    skips: list[int] = []
    tally = Tally()
    with ExitStack() as stack:
        table: Sink
        if output is not None:
            made_by = _made_by(classifier, reading, threshold, sets, kinds)
            file = ScoreFile(output, made_by, empty, resume=resume or watch is not None)
            table = stack.enter_context(file)
            inputs, skips = file.remaining(inputs)
        else:
            table = sink or CsvStream(sys.stdout.buffer)
        columns = _Columns(table, maybe)
        # Whatever ends the run, what is scored is written.
        stack.callback(lambda: columns.fix(maybe))
        if watch is not None:
            columns.fix(True)
        pictures = None
        if gallery or explain:
            pictures = stack.enter_context(Pictures(classifier, gallery, explain))

        def take(parts: Iterator[Part], found: Sequence[Input], begun: Sequence[int] = ()) -> None:
            """Parts into the table, messages and counts, until they end or an end is asked for."""
            ended, before = 0, tally.rows
            expected = Expected(found, begun) if progress is not None else None
            with closing(parts):  # type: ignore[type-var]
                for part in parts:
                    rows = classifier.decide(part.predictions, threshold, sets, kinds)
                    columns.append(part._replace(predictions=rows, triplets=()))
                    for row, message in rows.errors.items():
                        (say or _to_stderr)(_message(rows, row, message))
                    if on_bad == "raise":
                        raise_bad(rows)
                    if pictures is not None:
                        pictures.add(part)
                    tally.add(rows)
                    ended += sum(mark.ended for mark in part.marks)
                    if progress is not None and expected is not None:
                        total = expected.total(ended, tally.rows - before)
                        progress(tally.rows, None if total is None else before + total)
                    if stop.asked:
                        break
            columns.fix(maybe and stop.asked)
            table.commit()

        def local(found: Sequence[Input], skips: Sequence[int]) -> Iterator[Part]:
            keep = pictures is not None
            return score_inputs(found, classifier, reading, workers=workers, skips=skips, keep=keep)

        if triplets is not None:
            take(score_triplets(triplets, classifier, workers=workers, keep=pictures is not None), ())
        elif dask is not None:
            client = stack.enter_context(connect(dask))
            model = name or str(classifier.path)
            take(score_on_cluster(inputs, client, model, reading, skips=skips), inputs, skips)
        else:
            take(local(inputs, skips), inputs, skips)
        if watch is not None and not stop.asked:
            for arrived in arrivals(watch, stop, reading.layout):
                new, begun = file.remaining(arrived) if output is not None else (arrived, [])
                take(local(new, begun), new, begun)
        for advice in tally.advice(classifier.record.id, classifier.record.contract.fwhm_px[1]):
            warnings.warn(advice, TransientnetWarning, stacklevel=2)
    return tally


def _bare(item: Input) -> bool:
    """Whether an input can hold pixels alone, and no position."""
    return all(path.lower().endswith(_BARE) for path in paths_of(item))


def _made_by(
    classifier: Classifier, reading: Reading, threshold: float | None, sets: float | None, kinds: bool
) -> dict[str, Any]:
    return {
        "model": classifier.record.id,
        "weights": hashlib.sha256(Path(classifier.path).read_bytes()).hexdigest(),
        "layout": reading.layout,
        "pixel_scale": reading.pixel_scale,
        "fwhm": reading.fwhm,
        "threshold": threshold,
        "sets": sets,
        **({"kinds": True} if kinds else {}),
    }


def _message(rows: Predictions, row: int, message: str) -> str:
    where = str(rows.sources[row] or rows.ids[row])
    text = message if message.startswith(where) else f"{where}: {message}"
    return one_line([text])[0]


def _to_stderr(message: str) -> None:
    print(f"transientnet: {message}", file=sys.stderr)
