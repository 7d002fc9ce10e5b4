"""Alert packets from Kafka, scored in micro-batches: at least once.

Offsets are committed only after the scores of their packets have been written, so a consumer that
dies gives its last batch again and loses nothing; a reader of the scores drops doubles by id.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import MissingDependencyError, ReadError
from ..models.classifier import BATCH_SIZE, Classifier
from ..readers.open import decode_packet
from ..readers.surveys import load_layout
from ..results.predictions import Predictions
from ..results.writers import writer_for
from ..triplet import Triplet
from .batches import Reading

__all__ = ["consume", "producer_of"]

#: Seconds to wait for a batch to fill before what is there is scored.
_PATIENCE = 1.0


def consume(
    settings: Mapping[str, Any],
    topics: list[str],
    classifier: Classifier,
    write: Callable[[Predictions], None],
    *,
    reading: Reading | None = None,
    stop: Callable[[], bool] = lambda: False,
    most: int | None = None,
) -> int:
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
    stop : callable
        Asked between micro-batches.
    most : int, optional
        End after this many messages.

    Returns
    -------
    int
        Number of messages scored.

    Raises
    ------
    ReadError
        The broker cannot be used, or a topic does not exist.
    """
    kafka = _kafka()
    reading = reading or Reading(batch_size=BATCH_SIZE)
    layout = load_layout(reading.layout)
    consumer = kafka.Consumer({"auto.offset.reset": "earliest", **settings, "enable.auto.commit": False})
    done = 0
    try:
        consumer.subscribe(topics)
        while not stop() and (most is None or done < most):
            room = reading.batch_size if most is None else min(reading.batch_size, most - done)
            messages = consumer.consume(room, timeout=_PATIENCE)
            packets: list[Triplet] = []
            for message in messages:
                if (error := message.error()) is not None:
                    raise ReadError(f"{', '.join(topics)}: {error.str()}")
                name = f"{message.topic()}[{message.partition()}]@{message.offset()}"
                packets.extend(decode_packet(message.value() or b"", name, layout))
            if messages:
                triplets = list(reading.open(packets))
                write(classifier.predict(triplets, batch_size=reading.batch_size))
                consumer.commit(asynchronous=False)
                done += len(messages)
    except kafka.KafkaException as error:
        raise ReadError(f"{', '.join(topics)}: {error.args[0].str()}") from error
    finally:
        consumer.close()
    return done


def producer_of(settings: Mapping[str, Any], topic: str) -> Callable[[Predictions], None]:
    """A `write` for `consume`: each row is a JSON message, its key the id; it waits for the broker."""
    producer = _kafka().Producer(dict(settings))
    rows = writer_for(Path("scores.jsonl"))

    def write(predictions: Predictions) -> None:
        failed: list[str] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error.str())

        for line in rows.rows(predictions).splitlines():
            producer.produce(topic, value=line, key=json.loads(line)["id"], on_delivery=delivered)
        producer.flush()
        if failed:
            raise ReadError(f"{topic}: {len(failed)} scores were not delivered: {failed[0]}")

    return write


def _kafka() -> Any:
    try:
        import confluent_kafka
    except ImportError as error:
        raise MissingDependencyError.for_extra("stream", "Reading from Kafka") from error
    return confluent_kafka
