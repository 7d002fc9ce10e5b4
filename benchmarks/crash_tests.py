"""Kill, fill the disk, cut files short, let stamps arrive apart: what is lost, what is doubled.

    python benchmarks/crash_tests.py --kills 500 [--seed 0] [--only score stream …]

Every operation runs as its own process, as a user starts it, and is killed with SIGKILL at a random moment
again and again; then it is started once more and left alone, and what it made is compared with what a run
without a fault makes. Disks fill up by a limit on the size of files. The table counts rows (answers, models)
that are lost and doubled; of `stream`, which promises each packet at least once, doubled ones are no failure.
Exit code 1 where anything was lost, or doubled against the promise, or where a traceback was printed.
"""

from __future__ import annotations

import argparse
import collections
import csv
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FORMATS = ("csv", "ecsv", "jsonl", "parquet")
FILES, EACH = 16, 60


@dataclass
class Count:
    """What became of one operation."""

    faults: int = 0
    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)

    def compare(self, wanted: collections.Counter[str], found: collections.Counter[str]) -> None:
        self.lost += sum((wanted - found).values())
        self.doubled += sum((found - wanted).values())


class Run:
    """One operation at a time, in a folder of its own."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng, self.count = folder, rng, Count()
        #: Seconds that the operation needs: kills fall anywhere in them.
        self.usual = 3.0

    def start(self, *arguments: object, limit: int | None = None, code: str = "") -> subprocess.Popen[str]:
        boot = code or "import sys; from transientnet.cli import main; sys.argv[0] = 'transientnet'; main()"

        def bound() -> None:
            # What a shell starts in the background would ignore it.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if limit is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        env = {**os.environ, "PYTHONPATH": str(ROOT), "TRANSIENTNET_CACHE": str(self.folder / "cache")}
        return subprocess.Popen(
            [sys.executable, "-c", boot, *map(str, arguments)], env=env, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=bound,  # noqa: PLW1509
        )  # fmt: skip

    def end(self, process: subprocess.Popen[str], *codes: int) -> str:
        """Wait for an end with one of these exit codes, without a traceback."""
        began = time.monotonic()
        out, err = process.communicate(timeout=600)
        self.usual = 0.7 * self.usual + 0.3 * min(time.monotonic() - began, 20) if 0 in codes else self.usual
        if process.returncode not in codes or "Traceback" in err:
            self.count.problems.append(f"exit {process.returncode}: {err.strip()[-300:]}")
        return out + err

    def kill(self, process: subprocess.Popen[str], shortest: float = 0.0) -> None:
        """Kill a process at a random moment."""
        try:
            process.wait(self.rng.uniform(shortest, max(1.2 * self.usual, shortest)))
        except subprocess.TimeoutExpired:
            self.count.faults += 1
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        if "Traceback" in err:
            self.count.problems.append(err.strip()[-300:])


def stamps(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 5, (n, 3, 31, 31)).astype(np.float32)


def night(folder: Path, files: int = FILES, each: int = EACH) -> collections.Counter[str]:
    """Files of stamps whose ids are known; the ids."""
    folder.mkdir()
    ids: collections.Counter[str] = collections.Counter()
    for i in range(files):
        names = [f"f{i}_{k}" for k in range(each)]
        np.savez(folder / f"f{i:02d}.npz", triplets=stamps(each, i), id=np.array(names))
        ids.update(names)
    return ids


def rows(path: Path) -> collections.Counter[str]:
    """Ids of a score table, none where there is no table."""
    if not path.exists():
        return collections.Counter()
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return collections.Counter(pyarrow.parquet.read_table(path)["id"].to_pylist())
    text = path.read_text()
    if path.suffix == ".jsonl":
        return collections.Counter(json.loads(line)["id"] for line in text.splitlines())
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return collections.Counter(row["id"] for row in csv.DictReader(lines))


def score(run: Run, kills: int) -> None:
    """`score --resume` in every format, with one to three workers, killed four times a table."""
    ids, made = night(run.folder / "night"), 0
    while run.count.faults < kills:
        ending, workers = FORMATS[made % 4], 1 + made % 3
        out = run.folder / f"{made}.{ending}"
        arguments = ("score", "night", "-o", out, "--resume", "--workers", workers)
        for _ in range(min(4, kills - run.count.faults)):
            run.kill(run.start(*arguments))
        run.end(run.start(*arguments), 0)
        run.count.compare(ids, rows(out))
        made += 1


def full_disk(run: Run, kills: int) -> None:
    """`score` whose output may not grow beyond a random size: a sentence, and --resume goes on."""
    ids = night(run.folder / "night", 6)
    for made in range(kills):
        out = run.folder / f"{made}.{FORMATS[made % 4]}"
        arguments = ("score", "night", "-o", out, "--workers", 1 + made % 3)
        text = run.end(run.start(*arguments, limit=run.rng.randrange(200, 20_000)), 0, 1)
        run.count.faults += "cannot be written" in text
        run.end(run.start(*arguments, "--resume"), 0)
        run.count.compare(ids, rows(out))


def truncation(run: Run, kills: int) -> None:
    """A file that is cut short while it is scored: rows are there or missed aloud; --resume brings them."""
    for made in range(kills):
        folder = run.folder / f"night{made}"
        folder.mkdir()
        many, out = folder / "many.npy", run.folder / f"{made}.csv"
        np.save(many, stamps(1500, made))
        whole = many.read_bytes()
        arguments = ("score", folder, "-o", out, "--workers", 1 + made % 3)
        process = run.start(*arguments)
        # When rows are in the table the file is open.
        while process.poll() is None and not (out.exists() and out.stat().st_size > 3000):
            time.sleep(0.005)
        os.truncate(many, run.rng.randrange(len(whole) // 3))
        text = run.end(process, 0)
        missing = 1500 - sum(name.isdigit() for name in rows(out).elements())
        run.count.faults += missing > 0
        if missing and f"{missing:,} are missing" not in text:
            run.count.problems.append(f"{missing} rows missed without a word: {text[-300:]}")
        many.write_bytes(whole)
        run.end(run.start(*arguments, "--resume"), 0)
        found = collections.Counter(name for name in rows(out).elements() if name.isdigit())
        run.count.compare(collections.Counter(map(str, range(1500))), found)


def watch(run: Run, kills: int) -> None:
    """`score --watch` killed while files arrive, and stamps of candidates that arrive apart."""
    from astropy.io import fits

    night(run.folder / "made", 12, 3)
    folder, out = run.folder / "incoming", run.folder / "scores.csv"
    folder.mkdir()
    wanted: collections.Counter[str] = collections.Counter()
    process = run.start("score", "--watch", folder, "-o", out)
    last = 0
    while run.count.faults < kills:
        number = last = last + 1
        if number % 3:
            source = run.folder / "made" / f"f{number % 12:02d}.npz"
            with np.load(source) as arrays:
                names = [f"w{number}_{k}" for k in range(3)]
                np.savez(folder / f"w{number}.npz", triplets=arrays["triplets"] + number, id=np.array(names))
            wanted.update(names)
        else:
            parts = ["sci", "ref", "diff"]
            run.rng.shuffle(parts)
            for k, part in enumerate(parts):
                fits.PrimaryHDU(stamps(1, number)[0, k]).writeto(folder / f"c{number}_{part}.fits")
                time.sleep(run.rng.uniform(0, 0.5))
            wanted[f"c{number}"] += 1
        time.sleep(run.rng.uniform(0, 1.5))
        if number % 2 == 0:
            run.usual = 3.0
            run.kill(process, shortest=0.5)
            process = run.start("score", "--watch", folder, "-o", out)
    patience = time.monotonic() + 240
    while time.monotonic() < patience and not (out.exists() and not wanted - rows(out)):
        time.sleep(1)
    process.send_signal(signal.SIGINT)
    run.end(process, 130)
    run.count.compare(wanted, rows(out))


CONSUME = """
import sys
from pathlib import Path
from transientnet import load_model
from transientnet.scoring.kafka import appender, consume
settings = {"bootstrap.servers": sys.argv[1], "group.id": "g", "session.timeout.ms": 6000}
with appender(Path(sys.argv[2])) as write:
    consume(settings, ["alerts"], load_model("realbogus", threads=1), write, batch_size=4)
"""


def stream(run: Run, kills: int) -> None:
    """`stream -o`: the consumer is killed; offsets follow the rows."""
    import confluent_kafka
    import fastavro
    from astropy.io import fits

    fields = [{"name": f"cutout{c}", "type": "bytes"} for c in ("Science", "Template", "Difference")]
    schema = {"type": "record", "name": "alert", "fields": [{"name": "candid", "type": "long"}, *fields]}
    owner = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored"})
    (one,) = owner.list_topics("alerts", timeout=30).brokers.values()
    address = f"{one.host}:{one.port}"
    producer = confluent_kafka.Producer({"bootstrap.servers": address})
    out, wanted, sent = run.folder / "scores.csv", collections.Counter[str](), 0
    stamp = io.BytesIO()
    fits.PrimaryHDU(stamps(1, 0)[0, 0]).writeto(stamp)
    while run.count.faults < kills:
        for _ in range(30):
            sent += 1
            packet = io.BytesIO()
            record = {"candid": 10**12 + sent, **{item["name"]: stamp.getvalue() for item in fields}}
            fastavro.writer(packet, schema, [record])
            producer.produce("alerts", packet.getvalue(), partition=0)
            wanted[str(record["candid"])] += 1
        producer.flush(30)
        run.kill(run.start(address, out, code=CONSUME), shortest=8.0)
    process = run.start(address, out, code=CONSUME)
    # As long as rows come, and the minutes that a dead consumer may hold its place in the group.
    came, patience = 0, time.monotonic() + 240
    while time.monotonic() < patience and wanted - (there := rows(out)):
        if there.total() > came:
            came, patience = there.total(), time.monotonic() + 240
        time.sleep(1)
    process.kill()
    process.communicate()
    run.count.compare(wanted, rows(out))
    owner.flush(0)


def label(run: Run, kills: int) -> None:
    """Answers that the page was told are saved, after the server was killed."""
    names = [f"c{k}" for k in range(1000)]
    np.savez(run.folder / "s.npz", triplets=np.resize(stamps(30, 1), (1000, 3, 31, 31)), id=np.array(names))
    said: dict[int, str] = {}
    while True:
        process = run.start("label", "s.npz", "-o", "my.csv", "--port", "0")
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        address = next((found[1] for line in lines if (found := re.search(r"Open (http://\S+)", line))), "")
        if not address:
            run.count.problems.append("the page did not start")
            return
        until = time.monotonic() + run.rng.uniform(0, 1.0)
        while time.monotonic() < until and len(said) < len(names):
            number, answer = len(said), run.rng.choice(("real", "bogus"))
            body = {"labeller": "ana", "visit": str(process.pid), "answers": [
                {"number": number + 1, "row": number, "kind": "label", "label": answer, "note": ""}
            ]}  # fmt: skip
            request = urllib.request.Request(
                f"{address}api/answers", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                response.read()
            said[number] = answer
        if run.count.faults >= kills:
            break
        run.count.faults += 1
        process.kill()
        process.communicate()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    with open(run.folder / "my.csv", newline="") as table:
        found = collections.Counter((row["id"], row["label"]) for row in csv.DictReader(table))
    wanted = collections.Counter((f"c{number}", answer) for number, answer in said.items())
    run.count.compare(wanted, found)  # type: ignore[arg-type]


ADAPT = """
import sys
import numpy as np
from transientnet import AdaptConfig, adapt
kinds = ["bogus", "real"] * 12
cutouts = np.load("cutouts.npy")
config = AdaptConfig(folds=2, steps=8, threads=1, device="cpu")
adapt(kinds, cutouts=cutouts, groups=[f"o{n // 4}" for n in range(24)], output=sys.argv[1], config=config)
"""


def adapt(run: Run, kills: int) -> None:
    """`adapt` killed and run again: at the end its network is that of a run without a kill."""
    cutouts = stamps(24, 3)
    cutouts[1::2, ::2, 12:19, 12:19] += 200
    np.save(run.folder / "cutouts.npy", cutouts)
    run.usual = 20.0
    run.end(run.start("whole", code=ADAPT), 0)
    whole = weights(run.folder / "whole" / "model.onnx")
    made = 0
    while run.count.faults < kills:
        for _ in range(min(3, kills - run.count.faults)):
            run.kill(run.start(f"m{made}", code=ADAPT), shortest=0.1 * run.usual)
        run.end(run.start(f"m{made}", code=ADAPT), 0)
        run.count.lost += weights(run.folder / f"m{made}" / "model.onnx") != whole
        made += 1


def weights(path: Path) -> list[bytes]:
    import onnx

    return sorted(item.SerializeToString() for item in onnx.load(str(path)).graph.initializer)


def pull(run: Run, kills: int) -> None:
    """`models pull` killed: the cache holds the whole model or none of it, and the next pull brings it."""
    sys.path.insert(0, str(ROOT / "tests"))
    from registry_servers import FileServer, model_folder, running

    os.environ["TRANSIENTNET_CACHE"] = str(run.folder / "made")
    folder = model_folder(run.folder / "nightly")
    server = FileServer(folder)
    whole = (folder / "model.onnx").read_bytes()
    run.usual = 2.0
    with running(server):
        name = f"{server.url}#nightly"
        while run.count.faults < kills:
            shutil.rmtree(run.folder / "cache", ignore_errors=True)
            for _ in range(min(3, kills - run.count.faults)):
                run.kill(run.start("models", "pull", name))
            run.end(run.start("models", "pull", name), 0)
            found = [path.read_bytes() for path in (run.folder / "cache").rglob("*.onnx")]
            run.count.lost += whole not in found
            run.count.doubled += max(0, len(found) - 1)


#: Share of the kills of each operation.
OPERATIONS: dict[str, tuple[Callable[[Run, int], None], float]] = {
    "score": (score, 0.6),
    "full_disk": (full_disk, 0.08),
    "truncation": (truncation, 0.04),
    "watch": (watch, 0.06),
    "stream": (stream, 0.04),
    "label": (label, 0.06),
    "adapt": (adapt, 0.04),
    "pull": (pull, 0.08),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=500, help="faults of all operations together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    options = parser.parse_args()
    whole = sum(OPERATIONS[name][1] for name in options.only)
    failed, problems, total = False, [], 0
    print("| operation | faults injected | lost | doubled |\n| --- | ---: | ---: | ---: |")
    for name in options.only:
        operation, share = OPERATIONS[name]
        with tempfile.TemporaryDirectory(prefix="crash-") as folder:
            run = Run(Path(folder), random.Random(f"{options.seed} {name}"))
            operation(run, max(1, round(options.kills * share / whole)))
        count = run.count
        print(f"| {name} | {count.faults} | {count.lost} | {count.doubled} |", flush=True)
        total += count.faults
        failed |= bool(count.lost or (count.doubled and name != "stream") or count.problems)
        problems += [f"{name}: {problem}" for problem in count.problems]
    print(f"{total} faults, seed {options.seed}")
    print("\n".join(problems))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
