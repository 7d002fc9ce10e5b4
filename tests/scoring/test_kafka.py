"""Alerts from Kafka: at least once, offsets after the write, whatever befalls the broker and the group."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transientnet import Predictions, QualityFlag, load_model
from transientnet.errors import ReadError

confluent_kafka = pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")
from kafka_broker import PATIENCE, Broker  # noqa: E402

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


def names(numbers: range) -> list[str]:
    return [str(10**12 + number) for number in numbers]


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model("realbogus", threads=1)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"))
    yield broker
    broker.close()


def settings(broker: Broker, group: str, **others: Any) -> dict[str, Any]:
    return {
        "bootstrap.servers": broker.address, "group.id": group, "session.timeout.ms": 1200,
        "heartbeat.interval.ms": 150, "reconnect.backoff.max.ms": 300, "log_level": 0, **others,
    }  # fmt: skip


class Member:
    """A consumer in a thread, until it is stopped."""

    def __init__(self, model: Any, settings: dict[str, Any], topic: str, slow: float = 0.0) -> None:
        self.parts: list[Predictions] = []
        self.ended = threading.Event()
        self.failure: BaseException | None = None
        self.slow = slow
        self._work = threading.Thread(target=self._run, args=(model, settings, topic))
        self._work.start()

    def _run(self, model: Any, settings: dict[str, Any], topic: str) -> None:
        try:
            consume(settings, [topic], model, self._write, batch_size=5, stop=self.ended.is_set)
        except BaseException as error:
            self.failure = error

    def _write(self, predictions: Predictions) -> None:
        self.parts.append(predictions)
        time.sleep(self.slow)

    @property
    def ids(self) -> list[str]:
        return [name for part in self.parts for name in part.ids.tolist()]

    @property
    def sources(self) -> list[str]:
        return [name for part in self.parts for name in part.sources.tolist()]

    def stop(self) -> None:
        self.ended.set()
        self._work.join(PATIENCE)
        assert not self._work.is_alive()
        if self.failure is not None:
            raise self.failure


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_what_was_not_written_comes_again_and_what_was_does_not(broker: Broker, model: Any) -> None:
    broker.topic("once", 1)
    broker.send("once", {0: [packet(number) for number in range(10)]})
    seen: list[Predictions] = []

    def fail_at_the_second(predictions: Predictions) -> None:
        if seen:
            raise OSError("disk full")
        seen.append(predictions)

    with pytest.raises(OSError, match="disk full"):
        consume(settings(broker, "g"), ["once"], model, fail_at_the_second, batch_size=4)
    count = consume(settings(broker, "g"), ["once"], model, seen.append, most=10 - len(seen[0]))
    assert count.rows == 10 - len(seen[0])
    assert [name for part in seen for name in part.ids.tolist()] == names(range(10))
    assert broker.committed("once", "g", 1) == [10]


def test_poison_is_a_flagged_row_and_the_offset_behind_it_is_committed(broker: Broker, model: Any) -> None:
    good = packet(0)
    poison = [
        b"no packet at all",
        None,
        b"",
        good[: len(good) // 2],
        b'{"candid": 1}',
        b"Obj\x01" + b"\xff" * 64,
    ]
    broker.topic("poison", 1)
    broker.send("poison", {0: [*poison, good]})
    seen: list[Predictions] = []
    consume(settings(broker, "g"), ["poison"], model, seen.append, most=len(poison) + 1)
    rows = Predictions.concatenate(seen, model.classes, model.record.id)
    assert rows.sources.tolist() == [f"poison[0]@{offset}" for offset in range(len(poison) + 1)]
    assert [bool(flags & QualityFlag.UNREADABLE) for flags in rows.quality] == [True] * len(poison) + [False]
    assert broker.committed("poison", "g", 1) == [len(poison) + 1]


def test_real_packets_of_several_partitions_all_arrive(broker: Broker, model: Any, shared_data: Path) -> None:
    packets = [path.read_bytes() for path in sorted((shared_data / "packets" / "ztf").glob("*.avro"))]
    share = (packets * 9)[:100]
    assert sum(map(len, share)) > 7_000_000
    broker.topic("whole", 3)
    broker.send("whole", dict.fromkeys(range(3), share))
    seen: list[Predictions] = []
    consume(settings(broker, "g"), ["whole"], model, seen.append, most=300)
    rows = Predictions.concatenate(seen, model.classes, model.record.id)
    assert set(rows.sources) == {f"whole[{part}]@{offset}" for part in range(3) for offset in range(100)}
    assert broker.committed("whole", "g", 3) == [100] * 3


def test_scores_are_sent_on_as_json(broker: Broker, model: Any) -> None:
    broker.topic("alerts", 1)
    broker.topic("scores", 1)
    broker.send("alerts", {0: [packet(number) for number in range(3)]})
    write = producer_of({"bootstrap.servers": broker.address}, "scores")
    consume(settings(broker, "h"), ["alerts"], model, write, most=3)
    rows = [json.loads(value) for value in broker.read("scores", 3)]
    assert sorted(row["id"] for row in rows) == names(range(3))
    assert set(rows[0]) == {"id", "source", "label", "p_bogus", "p_real", "quality", "model"}


def test_members_that_come_and_go_share_a_topic_and_count_it_exactly(broker: Broker, model: Any) -> None:
    broker.topic("shared", 3)
    packets = {part: [packet(number) for number in range(part, 60, 3)] for part in range(3)}
    broker.send("shared", {part: messages[:10] for part, messages in packets.items()})
    first = Member(model, settings(broker, "g"), "shared")
    until(lambda: len(first.ids) >= 5, "the first member reads")
    first.slow = 0.2
    second = Member(model, settings(broker, "g"), "shared")
    time.sleep(1)
    broker.send("shared", {part: messages[10:] for part, messages in packets.items()})
    until(lambda: len({*first.ids, *second.ids}) == 60 and bool(second.ids), "both members read")
    first.stop()
    broker.send("shared", {part: [packet(60 + part)] for part in range(3)})
    until(lambda: set(names(range(60, 63))) <= set(second.ids), "the second member takes over")
    second.stop()
    rows = dict(zip(first.sources + second.sources, first.ids + second.ids, strict=True))
    assert sorted(rows.values()) == names(range(63))
    assert broker.committed("shared", "g", 3) == [21] * 3


def test_a_broker_that_is_away_is_waited_for_and_the_count_is_exact(broker: Broker, model: Any) -> None:
    broker.topic("away", 1)
    broker.send("away", {0: [packet(number) for number in range(20)]})
    member = Member(model, settings(broker, "g", **{"socket.timeout.ms": 1000}), "away")
    try:
        until(lambda: len(member.ids) >= 5, "the member reads")
        broker.freeze()
        # Longer than a request may take.
        time.sleep(1.2)
    finally:
        broker.thaw()
    broker.send("away", {0: [packet(number) for number in range(20, 30)]})
    until(lambda: set(names(range(30))) <= set(member.ids), "the member goes on")
    member.stop()
    rows = dict(zip(member.sources, member.ids, strict=True))
    assert list(rows.values()) == names(range(30))
    assert broker.committed("away", "g", 1) == [30]


def test_a_batch_that_takes_longer_than_the_group_waits_does_not_end_the_run(
    broker: Broker, model: Any
) -> None:
    broker.topic("slow", 1)
    broker.send("slow", {0: [packet(number) for number in range(10)]})
    member = Member(model, settings(broker, "g", **{"max.poll.interval.ms": 1200}), "slow", slow=2.0)
    until(lambda: bool(member.ids), "the member reads")
    member.slow = 0.0
    until(lambda: set(names(range(10))) <= set(member.ids), "the member joins again")
    member.stop()
    assert set(member.ids) == set(names(range(10)))
    assert broker.committed("slow", "g", 1) == [10]


def test_a_run_outlives_a_broker_that_is_killed_and_started_again(tmp_path: Path, model: Any) -> None:
    broker = Broker(tmp_path)
    with contextlib.closing(broker):
        broker.topic("killed", 1)
        broker.send("killed", {0: [packet(number) for number in range(10)]})
        member = Member(model, settings(broker, "g", **{"socket.timeout.ms": 1000}), "killed")
        until(lambda: len(member.ids) == 10, "the member reads")
        broker.kill()
        time.sleep(0.5)
        broker.start()
        broker.topic("killed", 1)
        broker.send("killed", {0: [packet(number) for number in range(10, 15)]})
        until(lambda: set(names(range(15))) <= set(member.ids), "the member goes on")
        member.stop()
        assert sorted(set(member.ids)) == names(range(15))
        assert broker.committed("killed", "g", 1) == [5]


def test_a_topic_that_does_not_exist_is_an_error(broker: Broker, model: Any) -> None:
    options = settings(broker, "g", **{"allow.auto.create.topics": False})
    with pytest.raises(ReadError, match="absent"):
        consume(options, ["absent"], model, lambda _: None)
