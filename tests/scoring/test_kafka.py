"""Alerts from Kafka: at least once, offsets after the write. The broker is librdkafka's own mock cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transientnet import Predictions, QualityFlag, load_model

confluent_kafka = pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")
from transientnet.scoring.kafka import consume, producer_of  # noqa: E402

SCHEMA = {
    "type": "record",
    "name": "alert",
    "fields": [
        {"name": "candid", "type": "long"},
        *({"name": f"cutout{c}", "type": "bytes"} for c in ("Science", "Template", "Difference")),
    ],
}


def packet(number: int) -> bytes:
    """An Avro container with one alert, as ZTF sends it."""
    import io

    import fastavro
    from astropy.io import fits

    rng = np.random.default_rng(number)
    record: dict[str, Any] = {"candid": 10**12 + number}
    for name in ("Science", "Template", "Difference"):
        stamp = io.BytesIO()
        fits.PrimaryHDU(rng.normal(100, 5, (31, 31)).astype(np.float32)).writeto(stamp)
        record[f"cutout{name}"] = stamp.getvalue()
    file = io.BytesIO()
    fastavro.writer(file, SCHEMA, [record])
    return file.getvalue()


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """Address of a broker on loopback that lives as long as this client."""
    owner = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored"})
    metadata = owner.list_topics("alerts", timeout=20)
    (one,) = metadata.brokers.values()
    address = f"{one.host}:{one.port}"
    producer = confluent_kafka.Producer({"bootstrap.servers": address})
    for number in range(10):
        producer.produce("alerts", packet(number), partition=0)
    producer.produce("alerts", b"no packet at all", partition=0)
    producer.flush(20)
    yield address
    owner.flush(0)


def settings(broker: str, group: str) -> dict[str, Any]:
    # The mock cluster keeps a member that has left for as long as its session.
    return {"bootstrap.servers": broker, "group.id": group, "session.timeout.ms": 6000}


def test_what_was_not_written_comes_again_and_what_was_does_not(broker: str) -> None:
    model = load_model("realbogus")
    seen: list[Predictions] = []

    def fail_at_the_second(predictions: Predictions) -> None:
        if seen:
            raise OSError("disk full")
        seen.append(predictions)

    with pytest.raises(OSError, match="disk full"):
        consume(settings(broker, "g"), ["alerts"], model, fail_at_the_second, batch_size=4)
    count = consume(settings(broker, "g"), ["alerts"], model, seen.append, most=11 - len(seen[0]))
    assert count.rows == 11 - len(seen[0])
    rows = Predictions.concatenate(seen, model.classes, model.record.id)
    assert rows.ids.tolist()[:10] == [str(10**12 + n) for n in range(10)]
    assert rows.quality[10] == QualityFlag.UNREADABLE
    assert rows.sources[10] == "alerts[0]@10"


def test_scores_are_sent_on_as_json(broker: str, tmp_path: Path) -> None:
    model = load_model("realbogus")
    write = producer_of({"bootstrap.servers": broker}, "scores")
    consume(settings(broker, "h"), ["alerts"], model, write, most=3)
    reader = confluent_kafka.Consumer({**settings(broker, "i"), "auto.offset.reset": "earliest"})
    reader.subscribe(["scores"])
    messages = [message for message in reader.consume(3, timeout=20) if message.error() is None]
    reader.close()
    rows = [json.loads(message.value()) for message in messages]
    assert sorted(row["id"] for row in rows) == [str(10**12 + n) for n in range(3)]
    assert set(rows[0]) == {"id", "source", "label", "p_bogus", "p_real", "quality", "model"}
