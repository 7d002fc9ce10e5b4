"""The service: the command's rows, bounds on what it holds, and no answer beyond its description."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from alerts import packet, ztf_alert, ztf_schema
from browsing import environment, stamps

from transientnet import classify, load_model
from transientnet.models.classifier import Classifier
from transientnet.readers.open import Reading
from transientnet.scoring.gather import Gatherer, Job, score_jobs
from transientnet.scoring.serve import make_service

TOKEN = "0123456789abcdef-a-token"


@contextmanager
def service(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``transientnet serve``: the process and its address."""
    command = [sys.executable, "-m", "transientnet", "serve", "--port", "0", "--workers", "1", *options]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"(http://[^ ]+?): ", line)
        assert found, line + process.stderr.read()
        yield process, found[1]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with service("--max-body", "1") as (_, address):
        yield address


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_model("realbogus", threads=1)


@pytest.fixture
def alert(tmp_path: Path) -> Path:
    return packet(tmp_path / "alert.avro", ztf_schema(), ztf_alert(0), ztf_alert(1))


def npz(n: int) -> bytes:
    file = io.BytesIO()
    np.savez(file, triplets=stamps(n), id=np.array([f"c{k}" for k in range(n)]))
    return file.getvalue()


def metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


def assert_like(rows: list[dict[str, Any]], expected: Any) -> None:
    columns = expected.columns(positions=True)
    assert len(rows) == len(expected)
    for number, row in enumerate(rows):
        assert set(row) == {*columns, "flags", "error"}
        for name in ("id", "label", "quality", "model"):
            assert row[name] == columns[name][number]
        for name in ("p_bogus", "p_real"):
            assert row[name] == pytest.approx(float(columns[name][number]), abs=1e-6)


def test_rows_are_those_of_the_command(url: str, alert: Path, tmp_path: Path) -> None:
    for data in (alert.read_bytes(), npz(5), gzip.compress(alert.read_bytes())):
        path = tmp_path / "file"
        path.write_bytes(data)
        answer = httpx.post(f"{url}/score", content=data, params={"name": "file"})
        assert answer.status_code == 200
        assert_like(answer.json()["rows"], classify(path))
    rows = httpx.post(f"{url}/score", content=alert.read_bytes()).json()["rows"]
    assert (rows[0]["ra"], rows[0]["error"], rows[0]["source"]) == (71.65, None, "request")


def test_real_packets_of_every_survey(url: str, shared_data: Path) -> None:
    paths = [next((shared_data / "packets" / survey).glob("*.avro")) for survey in ("ztf", "winter", "rubin")]
    for path in [*paths, shared_data / "packets" / "rubin" / "fink_rubin_sample.parquet"]:
        if path.stat().st_size < 2**20:
            answer = httpx.post(f"{url}/score", content=path.read_bytes(), timeout=60)
            assert_like(answer.json()["rows"], classify(path))


def test_what_the_request_says_outranks_the_file(url: str, tmp_path: Path) -> None:
    data = npz(3)
    path = tmp_path / "s.npz"
    path.write_bytes(data)
    params: dict[str, Any] = {"name": "s.npz", "fwhm": 9, "pixel_scale": 0.4, "threshold": 0.999}
    rows = httpx.post(f"{url}/score", content=data, params=params).json()["rows"]
    assert_like(rows, classify(path, fwhm=9, pixel_scale=0.4, threshold=0.999))
    assert all("RESAMPLED" in row["flags"] for row in rows)


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"no stamps at all",
        b"Obj\x01" + b"\xff" * 200,
        b"PK\x03\x04" + b"a" * 99,
        b"SIMPLE  =" + b" " * 71,
        b'{"a": 1}',
        b"[" * 5000,
        b"\x1f\x8b\x08" + b"\0" * 40,
        b"\x89HDF\r\n\x1a\n" + b"\1" * 90,
        b"PAR1" * 9,
    ],
)
def test_what_cannot_be_read_is_a_row(url: str, data: bytes) -> None:
    answer = httpx.post(f"{url}/score", content=data)
    (row,) = answer.json()["rows"]
    assert answer.status_code == 200
    assert row["flags"] == ["UNREADABLE"]
    assert (row["label"], row["p_real"]) == ("", None)
    assert row["error"]


def test_damage_anywhere_in_a_packet_is_no_server_error(url: str, alert: Path) -> None:
    data = bytearray(alert.read_bytes())
    rng = np.random.default_rng(0)
    with httpx.Client() as client:
        for _ in range(60):
            hurt = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.5 else data)
            hurt[rng.integers(len(hurt))] ^= int(rng.integers(1, 256))
            answer = client.post(f"{url}/score", content=bytes(hurt))
            assert answer.status_code == 200
            assert answer.json()["rows"]


def test_nothing_that_is_sent_names_a_file_of_the_server(url: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.npy"
    np.save(secret, stamps(1)[0, 0])
    table = f"science,reference,difference\n{secret},{secret},{secret}\n".encode()
    for data in (table, gzip.compress(table)):
        (row,) = httpx.post(f"{url}/score", content=data, params={"name": str(secret)}).json()["rows"]
        assert row["flags"] == ["UNREADABLE"]
        assert row["error"] == "a table of file names; send the files"
    assert httpx.post(f"{url}/score", content=b"\0", params={"layout": str(secret)}).status_code == 400


@pytest.mark.parametrize(
    "query", ["fhwm=3", "fwhm=0", "fwhm=nan", "fwhm=1&fwhm=2", "pixel_scale=-1", "threshold=2", "name="]
)
def test_parameters_without_sense_are_refused(url: str, query: str) -> None:
    answer = httpx.post(f"{url}/score?{query}", content=npz(1))
    assert answer.status_code == 400
    assert re.split("[=&]", query)[0] in answer.json()["error"]


def test_a_body_has_bounds(url: str) -> None:
    too_long = b"x" * (2**20 + 1)
    assert httpx.post(f"{url}/score", content=too_long).status_code == 413
    assert httpx.post(f"{url}/score", content=iter([too_long[:99], too_long])).status_code == 413
    assert httpx.post(f"{url}/score", content=b"").status_code == 400
    assert httpx.post(f"{url}/score", files={"file": npz(1)}).status_code == 415
    assert metric(url, "transientnet_held_bytes") == 0


def test_requests_of_foreign_pages_are_refused(url: str) -> None:
    assert httpx.get(f"{url}/health").json() == {"status": "ok", "model": load_model("realbogus").record.id}
    for headers in (
        {"host": "evil.example"},
        {"host": "[bad"},
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
    ):
        for path in ("health", "metrics", "openapi.json"):
            assert httpx.get(f"{url}/{path}", headers=headers).status_code == 403


def half_sent(url: str, data: bytes, kept: int | None = None) -> socket.socket:
    """A request of whose body the first `kept` bytes have been sent, by default half of them."""
    host, port = url.removeprefix("http://").split(":")
    half = socket.create_connection((host, int(port)), timeout=30)
    half.sendall(f"POST /score HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n".encode())
    half.sendall(data[: len(data) // 2 if kept is None else kept])
    return half


def answer_of(half: socket.socket) -> tuple[int, Any]:
    answer = http.client.HTTPResponse(half)
    answer.begin()
    body = json.loads(answer.read())
    half.close()
    return answer.status, body


def wait_until(url: str, name: str, value: float) -> None:
    while metric(url, name) != value:
        pass


def test_beyond_what_may_wait_a_request_is_sent_away(alert: Path) -> None:
    data = alert.read_bytes()
    with service("--max-waiting", "1") as (_, url):
        half = half_sent(url, data)
        wait_until(url, "transientnet_held_requests", 1)
        refused = httpx.post(f"{url}/score", content=data)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        half.sendall(data[len(data) // 2 :])
        status, body = answer_of(half)
        assert (status, len(body["rows"])) == (200, 2)
        assert httpx.post(f"{url}/score", content=data).status_code == 200
        gone = half_sent(url, data)
        wait_until(url, "transientnet_held_requests", 1)
        gone.close()
        wait_until(url, "transientnet_held_requests", 0)
        assert metric(url, 'transientnet_requests_total{status="503"}') == 1


def test_the_bodies_of_all_requests_have_a_bound(alert: Path) -> None:
    large = b"x" * 2**20
    with service("--max-body", "1") as (_, url):
        halves = [half_sent(url, large, len(large) - 1) for _ in range(4)]
        wait_until(url, "transientnet_held_bytes", 4 * (len(large) - 1))
        refused = httpx.post(f"{url}/score", content=alert.read_bytes())
        assert refused.status_code == 503
        for half in halves:
            half.sendall(b"x")
            assert answer_of(half)[0] == 200
        assert metric(url, "transientnet_held_bytes") == 0
        assert httpx.post(f"{url}/score", content=alert.read_bytes()).status_code == 200


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_the_end_waits_for_what_is_on_its_way(alert: Path, end: signal.Signals) -> None:
    data = alert.read_bytes()
    with service() as (process, url):
        half = half_sent(url, data)
        wait_until(url, "transientnet_held_requests", 1)
        process.send_signal(end)
        half.sendall(data[len(data) // 2 :])
        status, body = answer_of(half)
        assert (status, len(body["rows"])) == (200, 2)
        assert process.wait(timeout=30) == (0 if end == signal.SIGINT else -end)


def test_requests_are_scored_together_and_apart_from_a_broken_one(
    classifier: Classifier, alert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Job(alert.read_bytes(), "good.avro", Reading())
    bad = Job(b"?", "bad", Reading())
    sizes: list[int] = []

    async def ask() -> list[Any]:
        gatherer = Gatherer(classifier, 1, sizes.append)
        gatherer.start()
        try:
            return await asyncio.gather(*(gatherer.score(job) for job in (good, bad, good, good)))
        finally:
            gatherer.stop()

    answers = asyncio.run(ask())
    assert sizes == [4]
    assert [len(rows) for rows in answers] == [2, 1, 2, 2]
    assert answers[1].errors
    np.testing.assert_array_equal(answers[0].probabilities, classify(alert).probabilities)

    # Memory runs out for all together, and then for one alone.
    stream = Classifier.stream

    def short(self: Classifier, triplets: Any, **options: Any) -> Any:
        found = list(triplets)
        if len(found) > 2 or any(t.source == "large.avro" and t.error is None for t in found):
            raise MemoryError
        return stream(self, found, **options)

    monkeypatch.setattr(Classifier, "stream", short)
    rows = score_jobs(classifier, [good, Job(good.data, "large.avro", Reading()), good])
    assert [len(part) for part in rows] == [2, 1, 2]
    np.testing.assert_array_equal(rows[2].probabilities, answers[0].probabilities)
    assert rows[1].errors == {0: "scoring failed: MemoryError"}


def test_beyond_loopback_a_token_is_needed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "transientnet", "serve", "--host", "0.0.0.0"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--token-file" in done.stderr
    short = tmp_path / "short"
    short.write_text("secret\n")
    done = subprocess.run(
        [*command, "--token-file", str(short)], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "16" in done.stderr


def test_a_body_that_stalls_is_given_up_and_leaves_no_room_taken(classifier: Classifier) -> None:
    app = make_service(classifier, patience=0.2)

    async def stalling() -> AsyncIterator[bytes]:
        yield b"Obj"
        await asyncio.sleep(60)

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
        ):
            answer = await client.post("/score", content=stalling())
            assert answer.status_code == 408
            assert "0.2 s" in answer.text
            metrics = (await client.get("/metrics")).text
            assert 'transientnet_requests_total{status="408"} 1.0' in metrics
            assert "transientnet_held_bytes 0.0" in metrics

    asyncio.run(ask())


def test_a_token_is_asked_of_every_host_name(classifier: Classifier) -> None:
    app = make_service(classifier, token=TOKEN, local=False)

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://vetting.example") as client:
            assert (await client.get("/health")).status_code == 503  # not begun
            for headers in ({}, {"authorization": TOKEN}, {"authorization": "Bearer é".encode()}):
                answer = await client.post("/score", content=b"x", headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
            good = {"authorization": f"Bearer {TOKEN}"}
            assert (await client.get("/metrics", headers=good)).status_code == 200
            foreign = {**good, "origin": "http://evil.example"}
            assert (await client.get("/metrics", headers=foreign)).status_code == 403

    asyncio.run(ask())


def test_a_threshold_needs_two_classes() -> None:
    command = [sys.executable, "-m", "transientnet", "serve", "-m", "4class", "--threshold", "0.5"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "two classes" in done.stderr


@pytest.mark.parametrize(("token", "model"), [(False, "4class"), (True, "realbogus")])
def test_every_answer_is_one_that_the_description_allows(token: bool, model: str, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    (tmp_path / "token").write_text(TOKEN)
    options = ["--token-file", str(tmp_path / "token")] if token else []
    header = ["--header", f"Authorization: Bearer {TOKEN}"] if token else []
    with service("-m", model, *options) as (_, url):
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
        settings = ["--checks", "all", "--max-examples", "12", "--seed", "1", "--no-color"]
        done = subprocess.run(
            [*command, *settings, *header], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        answers = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {TOKEN}"}).text
        assert 'status="200"' in answers
        assert 'status="5' not in answers
