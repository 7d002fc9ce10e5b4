"""The source domain: real ZTF alerts, their labels by documented rules, and their sky objects.

Two inputs are understood: a prepared folder (``stamps.npz`` with ``triplets`` (N, 3, 63, 63) and
``labels.csv``), or a folder of ZTF packets (``*.avro``, or the public nightly ``*.tar.gz``), where the
labels come from the packet's own fields alone.

Rules, first match wins:

real/bogus
    1. ``vetted`` (visual inspection, where the table has it): real or bogus; ``unsure`` is no label.
    2. A catalogue match (minor planet within 5", or the table's ``realbogus_evidence`` = catalogue): real.
    3. The survey's score: real at drb >= 0.9, bogus below 0.1 (``rb`` >= 0.8 and < 0.2 where an old
       packet has no drb). Circular for a comparison with that score.
host morphology (of reals)
    1. ``vetted_morphology``.
    2. Minor planet within 5": orphan.
    3. Nearest PS1 source: within 1.5" and star-like (sgscore >= 0.5): variable; within 10" and
       galaxy-like (sgscore < 0.3): hosted; none within 5": orphan.
    What rules 2 and 3 give is then cleaned: where the reference stamp shows otherwise, see `cleaning`.
science class
    asteroid (minor planet within 5"); otherwise only where the table names it.
"""

from __future__ import annotations

import csv
import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transientnet.prepare.contract import InputContract
from transientnet.prepare.preprocess import preprocess
from transientnet.triplet import Triplet

from .cleaning import clean, counterparts

__all__ = ["BINARY", "MORPHOLOGY", "SCIENCE", "Alerts", "load", "normalised"]

BINARY = ("bogus", "real")
MORPHOLOGY = ("hosted", "variable", "orphan", "bogus")
SCIENCE = ("asteroid", "supernova", "variable star", "agn", "bogus")

ZTF_FWHM = 2.0
"""Median seeing in pixels (Bellm et al. 2019, PASP 131, 018002)."""

_SCIENCE_NAMES = {"asteroid": 0, "sn": 1, "varstar": 2, "agn": 3}


@dataclass(frozen=True)
class Alerts:
    """Real stamps with their labels; -1 is no label.

    Attributes
    ----------
    triplets : ndarray of float32, shape (N, 3, 63, 63)
        Raw.
    groups : ndarray of str, shape (N,)
        Sky objects.
    binary, morphology, science : ndarray of int, shape (N,)
        Indices into `BINARY`, `MORPHOLOGY`, `SCIENCE`: what training uses.
    raw_binary, raw_morphology : ndarray of int, shape (N,)
        The same without visual inspection and cleaning.
    rule_morphology : ndarray of int, shape (N,)
        Cleaned, without visual inspection.
    changed : ndarray of str, shape (N,)
        Why cleaning changed the morphology; empty where it did not.
    vetted, vetted_morphology : ndarray of int, shape (N,)
        From visual inspection alone.
    evidence : ndarray of str, shape (N,)
        Of `raw_binary`: catalogue, score or empty.
    magnitude, score : ndarray of float, shape (N,)
        NaN where unknown; the score is the survey's drb.
    jd : ndarray of float, shape (N,)
    digest : str
        sha256 over stamps and labels.
    """

    triplets: np.ndarray
    groups: np.ndarray
    binary: np.ndarray
    morphology: np.ndarray
    science: np.ndarray
    raw_binary: np.ndarray
    raw_morphology: np.ndarray
    rule_morphology: np.ndarray
    changed: np.ndarray
    vetted: np.ndarray
    vetted_morphology: np.ndarray
    evidence: np.ndarray
    magnitude: np.ndarray
    score: np.ndarray
    jd: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.groups)

    def take(self, rows: np.ndarray) -> Alerts:
        """A part of the alerts."""
        fields = {name: value for name, value in vars(self).items() if name != "digest"}
        return Alerts(**{name: value[rows] for name, value in fields.items()}, digest=self.digest)


def load(folder: Path, limit: int | None = None) -> Alerts:
    """Read a prepared folder, or a folder of packets."""
    if (folder / "stamps.npz").is_file():
        with np.load(folder / "stamps.npz", allow_pickle=False) as archive:
            triplets = archive["triplets"]
        with open(folder / "labels.csv", newline="", encoding="utf-8") as stream:
            rows: list[dict[str, Any]] = list(csv.DictReader(stream))
        if len(rows) != len(triplets):
            raise SystemExit(f"{folder}: {len(rows)} labels for {len(triplets)} triplets")
    else:
        pairs = list(_read_packets(folder))
        if not pairs:
            raise SystemExit(f"{folder}: neither stamps.npz nor ZTF packets (*.avro, *.tar.gz) in it")
        triplets = np.stack([stamps for stamps, _ in pairs])
        rows = [candidate for _, candidate in pairs]
    if limit is not None:
        triplets, rows = triplets[:limit], rows[:limit]
    return _assemble(np.asarray(triplets, np.float32), rows)


def _assemble(triplets: np.ndarray, rows: list[dict[str, Any]]) -> Alerts:
    columns: dict[str, list[Any]] = {
        name: [] for name in Alerts.__dataclass_fields__ if name not in ("triplets", "digest")
    }
    binaries = [_binary(row) for row in rows]
    morphologies = [
        _morphology(row) if binary != 0 else MORPHOLOGY.index("bogus")
        for row, (binary, _) in zip(rows, binaries, strict=True)
    ]
    cleaned, changed = clean(np.array(morphologies), counterparts(triplets, ZTF_FWHM, InputContract()))
    for number, row in enumerate(rows):
        (raw_binary, evidence), raw_morphology = binaries[number], morphologies[number]
        vetted = {"real": 1, "bogus": 0}.get(row.get("vetted", ""), -1)
        unsure = row.get("vetted", "") == "unsure"
        seen = row.get("vetted_morphology", "")
        vetted_morphology = (
            MORPHOLOGY.index("bogus") if vetted == 0 else MORPHOLOGY.index(seen) if seen else -1
        )
        binary = vetted if vetted >= 0 else -1 if unsure else raw_binary
        if vetted_morphology >= 0:
            morphology = vetted_morphology
        elif unsure or (vetted == 1 and raw_morphology == MORPHOLOGY.index("bogus")):
            morphology = -1
        else:
            morphology = int(cleaned[number])
        science = _SCIENCE_NAMES.get(row.get("science_class", ""), -1)
        if (
            science < 0
            and "ssdistnr" in row
            and 0 <= _number(row, "ssdistnr") < 5
            and "science_class" not in row
        ):
            science = 0
        if binary == 0:
            science = SCIENCE.index("bogus")
        for name, value in {
            "groups": str(row["objectId"]),
            "binary": binary,
            "morphology": morphology,
            "science": science,
            "raw_binary": raw_binary,
            "raw_morphology": raw_morphology,
            "rule_morphology": int(cleaned[number]),
            "changed": "" if vetted_morphology >= 0 else str(changed[number]),
            "vetted": vetted,
            "vetted_morphology": vetted_morphology,
            "evidence": evidence,
            "magnitude": _number(row, "magpsf"),
            "score": _number(row, "drb"),
            "jd": _number(row, "jd"),
        }.items():
            columns[name].append(value)
    digest = hashlib.sha256(np.ascontiguousarray(triplets).tobytes())
    digest.update(repr([tuple(values) for values in columns.values()]).encode())
    return Alerts(
        triplets=triplets,
        digest=digest.hexdigest(),
        **{name: np.array(values) for name, values in columns.items()},
    )


def _number(row: dict[str, Any], name: str) -> float:
    value = row.get(name)
    if value is None or value == "":
        return float("nan")
    number = float(value)
    return float("nan") if number == -999 else number


def _binary(row: dict[str, Any]) -> tuple[int, str]:
    if "realbogus" in row:
        return {"real": 1, "bogus": 0}.get(row["realbogus"], -1), row.get("realbogus_evidence", "")
    if 0 <= _number(row, "ssdistnr") < 5:
        return 1, "catalogue"
    drb, rb = _number(row, "drb"), _number(row, "rb")
    low, high, score = (0.1, 0.9, drb) if np.isfinite(drb) else (0.2, 0.8, rb)
    if score >= high:
        return 1, "score"
    return (0, "score") if score < low else (-1, "")


def _morphology(row: dict[str, Any]) -> int:
    if "morphology3" in row:
        return MORPHOLOGY.index(row["morphology3"]) if row["morphology3"] else -1
    if 0 <= _number(row, "ssdistnr") < 5:
        return MORPHOLOGY.index("orphan")
    distance, star = _number(row, "distpsnr1"), _number(row, "sgscore1")
    if not distance <= 5:
        return MORPHOLOGY.index("hosted") if distance <= 10 and star < 0.3 else MORPHOLOGY.index("orphan")
    if distance <= 1.5 and star >= 0.5:
        return MORPHOLOGY.index("variable")
    return MORPHOLOGY.index("hosted") if star < 0.3 else -1


def _read_packets(folder: Path) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Stamps and candidate fields of every ZTF packet below a folder, tarballs included."""
    import fastavro

    from transientnet.readers.stamp import decode_stamp

    def packets() -> Iterator[Any]:
        for path in sorted(folder.rglob("*.avro")):
            with open(path, "rb") as stream:
                yield from fastavro.reader(stream)
        for path in sorted(folder.rglob("*.tar.gz")):
            with tarfile.open(path) as archive:
                for member in archive:
                    stream = archive.extractfile(member) if member.name.endswith(".avro") else None
                    if stream is not None:
                        yield from fastavro.reader(stream)

    for packet in packets():
        stamps = [
            decode_stamp(packet[f"cutout{name}"]["stampData"])
            for name in ("Science", "Template", "Difference")
        ]
        if all(stamp.shape == (63, 63) for stamp in stamps):
            yield np.stack(stamps).astype(np.float32), {"objectId": packet["objectId"], **packet["candidate"]}


def normalised(
    triplets: Any, contract: InputContract, fwhm: float | None = ZTF_FWHM, batch: int = 256
) -> np.ndarray:
    """The network's tensor (N, 3, S, S) of raw triplets, through the package's one preprocess."""
    parts = []
    for start in range(0, len(triplets), batch):
        stamps = [Triplet(*images, fwhm=fwhm) for images in triplets[start : start + batch]]
        parts.append(preprocess(stamps, contract).tensor)
    return np.concatenate(parts)
