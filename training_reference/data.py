"""The source domain: real ZTF alerts, their labels by documented rules, and their sky objects.

Two inputs are understood: a prepared folder (``stamps.npz`` with ``triplets`` (N, 3, 63, 63) and
``labels.csv``), or a folder of ZTF packets (``*.avro``, or the public nightly ``*.tar.gz``), where the
labels come from the packet's own fields alone.

Rules, first match wins:

real/bogus
    1. A catalogue match of a bright source (magnitude below 17): real. Bright residuals fool the eye.
       Of a fainter one that the eye calls bogus: no label.
    2. ``vetted`` (visual inspection, where the table has it): real or bogus; ``unsure`` is no label.
    3. A catalogue match (minor planet within 5", or the table's ``realbogus_evidence`` = catalogue): real.
    4. The survey's score: real at drb >= 0.9, bogus below 0.1 (``rb`` >= 0.8 and < 0.2 where an old
       packet has no drb). Circular for a comparison with that score. But what is brighter than magnitude
       16 on a bright star has no label if only the score calls it real: it may be the star's residual.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transientnet.prepare.contract import InputContract
from transientnet.prepare.preprocess import preprocess
from transientnet.triplet import Triplet

from .cleaning import clean, counterparts, on_bright_star

__all__ = ["BINARY", "FOREIGN_SETS", "MORPHOLOGY", "SCIENCE", "Alerts", "Foreign", "load", "load_foreign",
           "normalised", "unframed"]  # fmt: skip

BINARY = ("bogus", "real")
MORPHOLOGY = ("hosted", "variable", "orphan", "bogus")
SCIENCE = ("asteroid", "supernova", "variable star", "agn", "bogus")

ZTF_FWHM = 2.0
"""Median seeing in pixels (Bellm et al. 2019, PASP 131, 018002)."""

BRIGHT, BRIGHTEST = 17.0, 16.0
"""Magnitudes below which a catalogue match outranks the eye, and the score alone is no evidence on a star."""

FOREIGN_SETS = ("rubin_lsstcam_2026", "subaru_hsc")
"""Sets of other surveys that may be learnt from; `rubin_lsstcam` is for testing only."""

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
    changed, rejudged : ndarray of str, shape (N,)
        Why cleaning changed the morphology, and why real or bogus is another than inspection, catalogue
        and score in this order say; empty where it did not.
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
    rejudged: np.ndarray
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
    seen_there = counterparts(triplets, ZTF_FWHM, InputContract())
    cleaned, changed = clean(np.array(morphologies), seen_there)
    on_star = on_bright_star(seen_there)
    for number, row in enumerate(rows):
        (raw_binary, evidence), raw_morphology = binaries[number], morphologies[number]
        vetted = {"real": 1, "bogus": 0}.get(row.get("vetted", ""), -1)
        unsure = row.get("vetted", "") == "unsure"
        seen = row.get("vetted_morphology", "")
        vetted_morphology = (
            MORPHOLOGY.index("bogus") if vetted == 0 else MORPHOLOGY.index(seen) if seen else -1
        )
        binary = vetted if vetted >= 0 else -1 if unsure else raw_binary
        rejudged = ""
        if evidence == "catalogue" and raw_binary == 1 and binary != 1 and _number(row, "magpsf") < BRIGHT:
            binary, rejudged = 1, "a catalogue match of a bright source outranks the eye"
        elif evidence == "catalogue" and raw_binary == 1 and vetted == 0:
            binary, rejudged = -1, "a catalogue match of a faint source that the eye contradicts"
        elif (
            evidence == "score"
            and vetted < 0
            and binary == 1
            and on_star[number]
            and _number(row, "magpsf") < BRIGHTEST
        ):
            binary, rejudged = -1, "a bright star's residual that only the survey's score calls real"
        if vetted_morphology >= 0 and not rejudged:
            morphology = vetted_morphology
        elif (
            (rejudged and binary < 0)
            or unsure
            or (vetted == 1 and raw_morphology == MORPHOLOGY.index("bogus"))
        ):
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
            "rejudged": rejudged,
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


@dataclass(frozen=True)
class Foreign:
    """Inspected stamps of other surveys, normalised with their seeing told.

    Attributes
    ----------
    tensor : ndarray of float32, shape (N, 3, S, S)
    binary, morphology : ndarray of int, shape (N,)
        From visual inspection; -1 is no label.
    sets, groups : ndarray of str, shape (N,)
        Which data they are of; and what must not be split: objects and visits that hang together.
    rows : list of dict
        The label table's rows.
    """

    tensor: np.ndarray
    binary: np.ndarray
    morphology: np.ndarray
    sets: np.ndarray
    groups: np.ndarray
    rows: list[dict[str, Any]]

    def take(self, rows: np.ndarray) -> Foreign:
        """A part of the stamps."""
        arrays = (self.tensor, self.binary, self.morphology, self.sets, self.groups)
        return Foreign(*(values[rows] for values in arrays), [self.rows[i] for i in rows])

    def chance(self) -> np.ndarray:
        """Chance of each stamp to be drawn: rare labels of a set more often."""
        if not len(self.binary):
            return np.zeros(0)
        cells = np.unique(
            [f"{s} {b}" for s, b in zip(self.sets, self.binary, strict=True)], return_inverse=True
        )[1]
        weight = np.bincount(cells)[cells] ** -0.5
        return np.asarray(weight / weight.sum())


def load_foreign(folder: Path | None, sets: Sequence[str] = FOREIGN_SETS) -> Foreign:
    """Read a folder of inspected stamps of other surveys (``stamps.npz`` and ``labels.csv``).

    Parameters
    ----------
    folder : Path or None
        None gives no stamps at all.
    sets : sequence of str
        Of the column ``set``.
    """
    size = InputContract().size
    if folder is None:
        none = np.zeros(0, int)
        return Foreign(
            np.zeros((0, 3, size, size), np.float32), none, none, none.astype(str), none.astype(str), []
        )
    with np.load(folder / "stamps.npz", allow_pickle=False) as archive:
        triplets = archive["triplets"]
    with open(folder / "labels.csv", newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    chosen = [i for i, row in enumerate(table) if row["set"] in sets]
    rows = [table[i] for i in chosen]
    stamps = []
    for i, row in zip(chosen, rows, strict=True):
        fwhm = _number(row, "fwhm_sci_px")
        stamps.append(Triplet(*unframed(triplets[i]), fwhm=fwhm if np.isfinite(fwhm) else None))
    binary = np.array([{"real": 1, "bogus": 0}.get(row["vetted"], -1) for row in rows])
    hosts = [MORPHOLOGY.index(row["vetted_morphology"]) if row["vetted_morphology"] else -1 for row in rows]
    return Foreign(
        tensor=preprocess(stamps, InputContract()).tensor,
        binary=binary,
        morphology=np.where(binary == 0, MORPHOLOGY.index("bogus"), hosts),
        sets=np.array([row["set"] for row in rows]),
        groups=np.array(_hanging_together([(row["diaObjectId"], row["visit"]) for row in rows])),
        rows=rows,
    )


def unframed(images: np.ndarray) -> np.ndarray:
    """Stamps (3, H, W) without the empty frame in which a set keeps stamps of all sizes."""
    seen = np.isfinite(images).any(axis=0)
    y, x = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    return images[:, y[0] : y[-1] + 1, x[0] : x[-1] + 1]


def _hanging_together(pairs: list[tuple[str, str]]) -> list[str]:
    """One name for all rows that share an object or a visit, directly or through others."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    for thing, visit in pairs:
        parent[root(f"object {thing}")] = root(f"visit {visit}")
    return [root(f"visit {visit}") for _, visit in pairs]


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
