"""Key figures of each release: measured in one run, kept as a line of JSON, shown as a table.

    python benchmarks/history.py --data DATA [--source CHECKOUT] [--alerts 5000] [--release 0.2.0]
    python benchmarks/history.py --table

DATA holds ``packets/ztf`` (alert packets), ``decam`` and ``rubin`` (``stamps.npz``, ``labels.csv``). What is
measured is the command of the checkout at SOURCE (by default this one), so that an earlier release can be
measured beside a new one. Its line in ``history.jsonl`` beside this file replaces the line that the release
had, and the table in ``docs/development/benchmarks.md`` is written anew; ``--table`` writes that alone.

Times are the best of five, since another program on the machine can only lengthen them; CPU time is that of
all processes, and hardly depends on the load, which is noted.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from cold_start import importing, scoring
from night import links, score

from training_reference.data import unframed
from training_reference.install import replace_between
from transientnet.evaluation.metrics import roc_auc
from transientnet.files.atomic import write_atomically
from transientnet.settings import cores

HERE = Path(__file__).parent.resolve()
ROOT = HERE.parent
STORE = HERE / "history.jsonl"
PAGE = ROOT / "docs" / "development" / "benchmarks.md"
EXAMPLE = ROOT / "docs" / "examples" / "cutouts" / "asteroid.fits"
FWHM_PER_SIGMA = 2.3548
ROUNDS = 5

COLUMNS = {
    "release": "release",
    "date": "measured",
    "commit": "commit",
    "model": "model",
    "import_s": "import, s",
    "first_row_s": "first row of one file, s",
    "alert_core_us": "ZTF alert, µs of CPU",
    "alerts_per_second": "alerts/s",
    "peak_mb": "peak memory, MB",
    "auc_decam": "AUC, DECam",
    "auc_rubin": "AUC, LSSTCam",
    "lines": "lines of Python",
    "machine": "machine",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--source", type=Path, default=ROOT)
    parser.add_argument("--alerts", type=int, default=5000)
    parser.add_argument("--release", help="by default what the checkout calls itself")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    known = [json.loads(line) for line in STORE.read_text().splitlines()] if STORE.exists() else []
    if not options.table:
        if options.data is None:
            parser.error("--data names the survey data")
        line = measure(options.source.resolve(), options.data.resolve(), options.alerts, options.release)
        print(json.dumps(line, indent=1))
        known = [one for one in known if one["release"] != line["release"]] + [line]
        known.sort(key=lambda one: [int(part) for part in re.findall(r"\d+", one["release"])])
        write_atomically(STORE, "".join(json.dumps(one) + "\n" for one in known))
    page = PAGE.read_text(encoding="utf-8")
    write_atomically(PAGE, replace_between(page, "releases", table(known)))


def table(known: list[dict[str, Any]]) -> str:
    """The lines as Markdown, newest first."""
    rows = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    rows += [[str(one.get(name, "")) for name in COLUMNS] for one in reversed(known)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def measure(source: Path, data: Path, alerts: int, release: str | None) -> dict[str, Any]:
    """One line: everything about the checkout at `source`, by way of its command."""
    package = source / "transientnet"
    version = re.search(r'__version__ = "(.+)"', (package / "__init__.py").read_text(encoding="utf-8"))
    assert version, f"{package} has no version"
    git = ["git", "-C", str(source)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        [*git, "status", "--porcelain", "transientnet"], capture_output=True, text=True, check=False
    )
    load = os.getloadavg()[0]
    os.environ["PYTHONPATH"] = str(source)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # `-m` looks here first.
        os.chdir(folder)
        seconds = min(importing() for _ in range(ROUNDS))
        first = min(scoring(EXAMPLE) for _ in range(ROUNDS))
        night = folder / "night"
        links(sorted((data / "packets" / "ztf").glob("*.avro")), night, alerts)
        run = score([night], folder / "night.csv")
        auc_decam, model = auc(data / "decam", folder / "decam", decam)
        auc_rubin, _ = auc(data / "rubin", folder / "rubin", rubin)
        os.chdir(ROOT)
    return {
        "release": release or version[1],
        "date": datetime.date.today().isoformat(),
        "commit": (commit.stdout.strip() or "unknown") + (" with changes" if changed.stdout.strip() else ""),
        "model": model,
        "import_s": round(seconds, 3),
        "first_row_s": round(first, 2),
        "alert_core_us": round(run.cpu / alerts * 1e6),
        "alerts_per_second": round(alerts / run.wall),
        "peak_mb": round(max(run.parent_mb, run.worker_mb)),
        "auc_decam": auc_decam,
        "auc_rubin": auc_rubin,
        "lines": sum(len(path.read_bytes().splitlines()) for path in package.rglob("*.py")),
        "machine": f"{_processor()}, {cores()} cores, Python {platform.python_version()}, load {load:.0f}",
        "alerts": alerts,
    }


def _processor() -> str:
    try:
        return re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())[1]  # type: ignore[index]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


Candidate = tuple[np.ndarray[Any, Any], bool, float | None]


def decam(rows: list[dict[str, str]], archive: Any) -> list[Candidate]:
    """Human-labelled DECam candidates: native stamps, real or not, seeing in pixels."""
    stamps, ticks = archive["triplets"].astype(np.float32), archive["tick_mask"]
    stamps[:, :, ticks] = np.nan
    return [
        (images, row["label"] == "real", FWHM_PER_SIGMA * float(row["psf"]))
        for images, row in zip(stamps, rows, strict=True)
    ]


def rubin(rows: list[dict[str, str]], archive: Any) -> list[Candidate]:
    """Inspected LSSTCam alerts that no model may learn from."""
    found: list[Candidate] = []
    for images, row in zip(archive["triplets"], rows, strict=True):
        if row["set"] == "rubin_lsstcam" and row["vetted"] in ("real", "bogus"):
            fwhm = float(row["fwhm_sci_px"]) if row["fwhm_sci_px"] else None
            found.append((unframed(images), row["vetted"] == "real", fwhm))
    return found


def auc(data: Path, folder: Path, read: Any) -> tuple[float, str]:
    """AUC of what ``transientnet score`` says of candidates, refused ones last; and the model."""
    with open(data / "labels.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with np.load(data / "stamps.npz", allow_pickle=False) as archive:
        candidates: list[Candidate] = read(rows, archive)
    folder.mkdir()
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, (images, _, _) in enumerate(candidates):
        alike[images.shape].append(number)
    for shape, numbers in alike.items():
        np.savez(
            folder / f"{shape[1]}x{shape[2]}.npz",
            triplets=np.stack([candidates[k][0] for k in numbers]),
            id=np.array([str(k) for k in numbers]),
            fwhm_px=np.array([candidates[k][2] or np.nan for k in numbers]),
        )
    out = folder.with_suffix(".csv")
    score(sorted(folder.iterdir()), out, "--workers", "1")
    with open(out, newline="", encoding="utf-8") as stream:
        answers = {row["id"]: row for row in csv.DictReader(stream)}
    p = [float(answers[str(k)]["p_real"] or 0.0) for k in range(len(candidates))]
    real = np.array([candidate[1] for candidate in candidates])
    return round(roc_auc(np.array(p), real), 3), next(iter(answers.values()))["model"]


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
