"""Alert packets from Kafka, scored in micro-batches: at least once.

Offsets are committed only after the scores of their packets have been written, so a consumer that
dies gives its last batch again and loses nothing; a reader of the scores drops doubles by ``source``. A
broker that is away for a while is waited for: what could not be committed is committed with the next batch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import MissingDependencyError, ReadError, UsageError
from ..files.locks import exclusive
from ..models.classifier import BATCH_SIZE, Classifier
from ..readers.layouts import Layout, load_layout
from ..readers.open import Reading, decode_packet
from ..results.predictions import Predictions
from ..results.tally import Tally
from ..results.writers import writer_for
from ..triplet import Triplet
from .batches import Batch, cut, score
from .output import output_errors

__all__ = ["appender", "consume", "producer_of"]

#: Seconds to wait for a batch to fill before what is there is scored.
_PATIENCE = 1.0
#: Bytes that are looked at in one go for the end of a line.
_TAIL = 65536


def consume(
    settings: Mapping[str, Any],
    topics: list[str],
    classifier: Classifier,
    write: Callable[[Predictions], None],
    *,
    reading: Reading | None = None,
    batch_size: int = BATCH_SIZE,
    stop: Callable[[], bool] = lambda: False,
    most: int | None = None,
) -> Tally:
    """Score packets of Kafka topics until `stop` says so.

    Parameters
    ----------
    settings : mapping
        For `confluent_kafka.Consumer`: ``bootstrap.servers``, ``group.id``… Offsets are committed here, not
        by the client.
    topics : list of str
    classifier : Classifier
    write : callable
        Takes the scores of one micro-batch and returns when they are safe; only then are their
        offsets committed.
    reading : Reading, optional
    batch_size : int
        Most messages of a micro-batch.
    stop : callable
        Asked between micro-batches.
    most : int, optional
        End after this many messages.

    Returns
    -------
    Tally
        Counts over the candidates scored.

    Raises
    ------
    ReadError
        The broker cannot be used, or a topic does not exist.
    """
    kafka = _kafka()
    reading = reading or Reading()
    layout = load_layout(reading.layout)
    consumer = kafka.Consumer({"auto.offset.reset": "earliest", **settings, "enable.auto.commit": False})
    done, tally, written = 0, Tally(), _Written(kafka, consumer)
    try:
        consumer.subscribe(topics, on_revoke=written.left)
        while not stop() and (most is None or done < most):
            room = batch_size if most is None else min(batch_size, most - done)
            messages: list[Any] = []
            for message in consumer.consume(room, timeout=_PATIENCE):
                if (error := message.error()) is not None:
                    if error.code() == kafka.KafkaError._MAX_POLL_EXCEEDED:
                        # A batch took so long that the group went on without this member: it joins again.
                        continue
                    raise ReadError(f"{', '.join(topics)}: {error.str()}")
                messages.append(message)
            if messages:
                triplets = reading.open(_packets(messages, layout))
                parts = [score(classifier, Batch(some, ())) for some in cut(triplets, batch_size)]
                scores = classifier.joined([part.predictions for part in parts])
                write(scores)
                written.add(messages)
                done += len(messages)
                tally.add(scores)
            written.commit()
    except kafka.KafkaException as error:
        raise ReadError(f"{', '.join(topics)}: {error.args[0].str()}") from error
    finally:
        consumer.close()
    return tally


def _packets(messages: list[Any], layout: Layout) -> Iterator[Triplet]:
    for message in messages:
        name = f"{message.topic()}[{message.partition()}]@{message.offset()}"
        try:
            yield from decode_packet(message.value() or b"", name, layout)
        except MemoryError:
            yield Triplet.unreadable(name, name, "it asks for more memory than there is")


class _Written:
    """Offsets behind the packets whose scores are written, until the broker has them."""

    def __init__(self, kafka: Any, consumer: Any) -> None:
        self._kafka = kafka
        self._consumer = consumer
        self._next: dict[tuple[str, int], int] = {}

    def add(self, messages: list[Any]) -> None:
        for message in messages:
            self._next[message.topic(), message.partition()] = message.offset() + 1

    def left(self, _: Any, partitions: list[Any]) -> None:
        """Commit a last time, and forget partitions that another member of the group may read from now on."""
        self.commit()
        for each in partitions:
            self._next.pop((each.topic, each.partition), None)

    def commit(self) -> None:
        """Commit what is written; where the broker is away or the group changes, the next call does it."""
        if not self._next:
            return
        offsets = [self._kafka.TopicPartition(*where, offset) for where, offset in self._next.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except self._kafka.KafkaException as error:
            if error.args[0].code() not in _passing(self._kafka):
                raise
        else:
            self._next.clear()


def _passing(kafka: Any) -> set[int]:
    """Errors of a commit that end with the broker's absence or the group's change."""
    error = kafka.KafkaError
    return {
        error._TRANSPORT, error._TIMED_OUT, error._TIMED_OUT_QUEUE, error._ALL_BROKERS_DOWN,
        error._WAIT_COORD, error._ASSIGNMENT_LOST, error.REQUEST_TIMED_OUT,
        error.COORDINATOR_LOAD_IN_PROGRESS, error.COORDINATOR_NOT_AVAILABLE, error.NOT_COORDINATOR,
        error.REBALANCE_IN_PROGRESS, error.ILLEGAL_GENERATION, error.UNKNOWN_MEMBER_ID,
    }  # fmt: skip


def producer_of(settings: Mapping[str, Any], topic: str) -> Callable[[Predictions], None]:
    """A `write` for `consume`: each row is a JSON message, its key the id; it waits for the broker."""
    producer = _kafka().Producer(dict(settings))
    rows = writer_for(Path("scores.jsonl"))

    def write(predictions: Predictions) -> None:
        failed: list[str] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error.str())

        for line in rows.rows(predictions.columns()).splitlines():
            producer.produce(topic, value=line, key=json.loads(line)["id"], on_delivery=delivered)
        producer.flush()
        if failed:
            raise ReadError(f"{topic}: {len(failed)} scores were not delivered: {failed[0]}")

    return write


@contextmanager
def appender(path: Path) -> Iterator[Callable[[Predictions], None]]:
    """A `write` for `consume`: rows behind those that `path` has, safe on disk when it returns.

    A last line that a full disk or a crash has cut off is cut away: its packet was not committed, and comes
    again. A file that was begun without the columns ra, dec, x and y goes on without them.

    Parameters
    ----------
    path : Path
        ``.csv`` or ``.jsonl``.

    Raises
    ------
    UsageError
        The file has another format or other columns, or another process writes to it.
    OutputError
        It cannot be written.
    """
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise UsageError(f"{path}: a stream is appended to a .csv or a .jsonl")
    writer = writer_for(path)
    refusal = UsageError(f"{path} is being written by another run")
    with output_errors(path), exclusive(path, refusal), open(path, "a+b") as stream:
        stream.seek(0)
        first = stream.readline()
        _cut_torn_line(stream)
        new = stream.tell() == 0
        positions = new or any(b"%s" % mark in first for mark in (b",ra,", b'"ra":'))

        def write(predictions: Predictions) -> None:
            nonlocal new, first
            columns = predictions.columns(positions)
            header = writer.header(columns)
            if header and not new and header != first:
                raise UsageError(
                    f"{path} has other columns: {first.decode('utf-8', 'replace').strip()}; name another file"
                )
            stream.write((header if new else b"") + writer.rows(columns))
            stream.flush()
            os.fsync(stream.fileno())
            new, first = False, header if new else first

        yield write


def _cut_torn_line(stream: IO[bytes]) -> None:
    """Cut a file behind its last whole line, and go there."""
    end = stream.seek(0, os.SEEK_END)
    kept = end
    tail = b""
    while kept > 0:
        start = max(0, kept - _TAIL)
        stream.seek(start)
        tail = stream.read(kept - start)
        newline = tail.rfind(b"\n")
        if newline >= 0:
            kept = start + newline + 1
            break
        kept = start
    if kept < end:
        stream.truncate(kept)
    stream.seek(kept)


def _kafka() -> Any:
    try:
        import confluent_kafka
    except ImportError as error:
        raise MissingDependencyError.for_extra("stream", "Reading from Kafka") from error
    return confluent_kafka
