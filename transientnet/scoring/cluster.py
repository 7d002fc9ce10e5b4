"""Scoring on a cluster: Dask, and Spark's ``mapInArrow``, over the functions that one machine uses.

A worker process loads the model once and scores with one thread; more cores are more workers. Files are
opened where they are scored, so paths must mean the same on every machine, and so must the path of a
model that is a file.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError, UsageError
from ..models.classifier import BATCH_SIZE, Classifier, load_model
from ..readers.candidate import from_record
from ..readers.layouts import load_layout
from ..readers.open import Input, Reading, decode_packet, find_inputs
from ..results.predictions import Predictions
from ..triplet import Triplet
from .batches import Part, Unit, batches, score, units
from .engine import in_order

if TYPE_CHECKING:
    import pandas
    import pyarrow

__all__ = [
    "connect",
    "read_packets",
    "score_arrow",
    "score_arrow_batches",
    "score_dask",
    "score_on_cluster",
    "score_packets",
    "worker_model",
]

#: Inputs per task: some tenths of a second of work.
_TASK_INPUTS = 256


@lru_cache(maxsize=4)
def worker_model(name: str) -> Classifier:
    """A model with one thread, loaded once by each process that scores.

    Parameters
    ----------
    name : str
        As `load_model` takes it.

    Returns
    -------
    Classifier
    """
    return load_model(name, device="cpu", threads=1)


def score_arrow(
    batch: pyarrow.RecordBatch,
    *,
    model: str = "realbogus",
    layout: str | None = None,
    pixel_scale: float | None = None,
    fwhm: float | None = None,
    positions: bool = False,
) -> pyarrow.RecordBatch:
    """Score the rows of a record batch: the function under every engine that speaks Arrow.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        A candidate per row: columns (or structs) named like stamps that hold FITS bytes or lists of
        pixels, as brokers write them; or one binary column of whole Avro packets. Other columns give id,
        seeing and pixel scale.
    model, layout, pixel_scale, fwhm
        As in `classify` and `open_triplets`.
    positions : bool
        Add the columns ``ra``, ``dec``, ``x`` and ``y``, null where they are not known.

    Returns
    -------
    pyarrow.RecordBatch
        The score table's columns, a row per candidate in the same order; no rows for no rows. ``quality`` is
        an int32: Spark has no unsigned integers.
    """
    reading = Reading(layout, pixel_scale, fwhm)
    scores = score_packets(_packets(batch), model, reading).to_arrow(positions)
    at = scores.schema.get_field_index("quality")
    return scores.set_column(at, "quality", scores.column(at).cast("int32"))


def score_arrow_batches(
    batches: Iterable[pyarrow.RecordBatch], **options: Any
) -> Iterator[pyarrow.RecordBatch]:
    """`score_arrow` over an iterator: ``df.mapInArrow(score_arrow_batches, schema)`` in Spark."""
    for batch in batches:
        yield score_arrow(batch, **options)


def score_dask(
    source: Any,
    *,
    client: Any = None,
    model: str = "realbogus",
    layout: str | None = None,
    pixel_scale: float | None = None,
    fwhm: float | None = None,
    positions: bool = False,
) -> Any:
    """Score on a Dask cluster, lazily.

    Parameters
    ----------
    source : dask.dataframe.DataFrame, dask.bag.Bag, path, list of paths, glob or directory
        A data frame with a column per stamp; a bag of packets, as bytes or as decoded records; or files
        as `classify` takes them, such as the partitions of a Parquet or HATS catalogue.
    client : distributed.Client, optional
        By its number of threads files are cut into tasks.
    model, layout, pixel_scale, fwhm
        As in `classify` and `open_triplets`.
    positions : bool
        Add the columns ``ra``, ``dec``, ``x`` and ``y``, NaN where they are not known.

    Returns
    -------
    dask.dataframe.DataFrame
        The score table. Partitions and rows keep the order of the source; nothing is scored yet.
    """
    try:
        bags: Any = importlib.import_module("dask.bag")
        frames: Any = importlib.import_module("dask.dataframe")
    except ImportError as error:
        raise MissingDependencyError.for_extra("dask", "score_dask()") from error
    reading = Reading(layout, pixel_scale, fwhm)
    options = {"model": model, "reading": reading, "positions": positions}
    meta = _frame([], worker_model(model), positions)
    if isinstance(source, frames.DataFrame):
        return source.map_partitions(_score_frame, **options, meta=meta)
    if isinstance(source, bags.Bag):
        parts = source.map_partitions(_score_bag, **options).to_delayed()
        return frames.from_delayed(parts, meta=meta, verify_meta=False)
    tasks = list(units(find_inputs(source, layout), _per_task(client)))
    if not tasks:
        raise UsageError("there is nothing to score")
    return frames.from_map(_score_files, tasks, **options, meta=meta)


def connect(address: str) -> Any:
    """A client of the scheduler at `address`.

    Raises
    ------
    MissingDependencyError
        Without the ``dask`` extra.
    UsageError
        No scheduler answers there.
    """
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise MissingDependencyError.for_extra("dask", "Scoring on a cluster") from error
    try:
        return distributed.Client(address, timeout="10s")
    except (OSError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {address}: {error}") from error


def score_on_cluster(
    inputs: Sequence[Input], client: Any, model: str, reading: Reading, *, skips: Sequence[int] = ()
) -> Iterator[Part]:
    """As `score_inputs`, on a Dask cluster: parts in order, a bounded number of tasks at a time."""

    def work(unit: Unit) -> list[Part]:
        # Scored again where a worker died, so the task must not be remembered by its arguments.
        future = client.submit(_parts, unit, model, reading, pure=False)
        parts: list[Part] = future.result()
        return parts

    threads = max(2, sum(client.nthreads().values()))
    return in_order(work, units(inputs, _TASK_INPUTS, skips), threads)


def _per_task(client: Any) -> int:
    return _TASK_INPUTS if client is None else max(1, _TASK_INPUTS // max(1, len(client.nthreads())))


def _parts(unit: Unit, model: str, reading: Reading, *, identify: bool = True) -> list[Part]:
    classifier = worker_model(model)
    found = batches(unit.inputs, reading, BATCH_SIZE, skips=unit.skips, identify=identify)
    return [score(classifier, batch) for batch in found]


def _frame(parts: Sequence[Predictions], classifier: Classifier, positions: bool) -> pandas.DataFrame:
    return classifier.joined(parts).to_pandas(positions)


def _score_files(unit: Unit, model: str, reading: Reading, positions: bool) -> pandas.DataFrame:
    parts = _parts(unit, model, reading, identify=False)
    return _frame([part.predictions for part in parts], worker_model(model), positions)


def _score_frame(frame: pandas.DataFrame, model: str, reading: Reading, positions: bool) -> pandas.DataFrame:
    scores = score_packets(frame.to_dict("records"), model, reading).to_pandas(positions)
    return scores.set_index(frame.index)


def _score_bag(packets: Iterable[Any], model: str, reading: Reading, positions: bool) -> pandas.DataFrame:
    return score_packets(packets, model, reading).to_pandas(positions)


def _packets(batch: pyarrow.RecordBatch) -> list[Any]:
    """Packets in a batch's only binary column, else its rows as records."""
    import pyarrow as pa

    kinds = batch.schema.types
    if len(kinds) == 1 and (pa.types.is_binary(kinds[0]) or pa.types.is_large_binary(kinds[0])):
        packets: list[Any] = batch.column(0).to_pylist()
    else:
        packets = batch.to_pylist()
    return packets


def read_packets(packets: Iterable[Any], reading: Reading) -> Iterator[Triplet]:
    """Triplets of packets in memory.

    Parameters
    ----------
    packets : iterable of bytes or mapping
        Alert packets, each of which may hold several candidates, or decoded records with cutouts.
    reading : Reading

    Yields
    ------
    Triplet
        In order; a packet that cannot be read is one with `Triplet.error` set.
    """
    return reading.open(_decoded(packets, reading))


def score_packets(
    packets: Iterable[Any], model: str = "realbogus", reading: Reading | None = None
) -> Predictions:
    """Score packets in memory.

    Parameters
    ----------
    packets : iterable of bytes or mapping
        As `read_packets` takes them.
    model : str
    reading : Reading, optional

    Returns
    -------
    Predictions
        A row per candidate, in order.
    """
    classifier = worker_model(model)
    return classifier.joined(list(classifier.stream(read_packets(packets, reading or Reading()))))


def _decoded(packets: Iterable[Any], reading: Reading) -> Iterator[Triplet]:
    layout = load_layout(reading.layout)
    for number, packet in enumerate(packets):
        if isinstance(packet, (bytes, bytearray, memoryview)):
            yield from decode_packet(bytes(packet), str(number), layout)
        elif isinstance(packet, Mapping):
            yield from_record(packet, id=str(number), source="", layout=layout)
        else:
            yield Triplet.unreadable(str(number), "", f"a packet is bytes or a record, not {type(packet)}")
