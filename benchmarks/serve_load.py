"""How many requests and candidates a second the service answers, by clients at a time.

    python benchmarks/serve_load.py PACKETS [--seconds 10] [--clients 1 4 16 64]

PACKETS is a folder of alert packets. Clients are threads of this program with a connection each, that send
one packet after another; then four clients send an npz with 256 simulated candidates. Client and server share
the cores of one machine, whose load before the run is printed; the server's own CPU time (Linux) hardly
depends on it. Every answer is checked: status 200, and only candidates with a probability are counted.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from transientnet.settings import cores

SIDE, STACK = 63, 256


def stack() -> bytes:
    """An npz of simulated candidates: a source of any brightness on noise."""
    rng = np.random.default_rng(0)
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    images = rng.normal(100, 5, (STACK, 3, SIDE, SIDE))
    images[:, [0, 2]] += rng.uniform(20, 400, (STACK, 1, 1, 1)) * np.exp(-(x**2 + y**2) / 5)
    file = io.BytesIO()
    np.savez(file, triplets=images.astype(np.float32))
    return file.getvalue()


def cpu(pid: int) -> float:
    """Seconds that a process has worked; NaN where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return float("nan")


def load(pid: int, port: int, bodies: list[bytes], clients: int, seconds: float) -> dict[str, float]:
    """Requests, candidates and times of answers of so many clients."""
    end = time.perf_counter() + seconds
    times: list[float] = []
    candidates: list[int] = []

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        turn = first
        while (began := time.perf_counter()) < end:
            connection.request("POST", "/score", bodies[turn % len(bodies)])
            answer = connection.getresponse()
            rows = json.loads(answer.read())
            assert answer.status == 200, rows
            times.append(time.perf_counter() - began)
            candidates.append(sum(row["p_real"] is not None for row in rows["rows"]))
            turn += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    began, worked = time.perf_counter(), cpu(pid)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - began
    return {
        "clients": clients,
        "requests_per_second": round(len(times) / wall),
        "candidates_per_second": round(sum(candidates) / wall),
        "server_cpu_ms_per_candidate": round(1e3 * (cpu(pid) - worked) / sum(candidates), 2),
        "median_ms": round(1e3 * float(np.median(times)), 1),
        "p99_ms": round(1e3 * float(np.quantile(times, 0.99)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("packets", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    options = parser.parse_args()
    print(json.dumps({"cores": cores(), "load_before": round(os.getloadavg()[0], 1)}))
    bodies = [path.read_bytes() for path in sorted(options.packets.glob("*.avro"))]
    command = [sys.executable, "-m", "transientnet", "serve", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        found = re.search(r":(\d+): POST", server.stderr.readline())
        assert found, "the server did not start"
        port = int(found[1])
        load(server.pid, port, bodies, 4, 1)
        for clients in options.clients:
            print(
                json.dumps(
                    {"body": "one alert packet", **load(server.pid, port, bodies, clients, options.seconds)}
                )
            )
        print(
            json.dumps({"body": f"npz of {STACK}", **load(server.pid, port, [stack()], 4, options.seconds)})
        )
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
