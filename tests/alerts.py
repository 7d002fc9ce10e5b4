"""Alert packets for the tests: ZTF's schema and cutouts, made here."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
from astropy.io import fits

from transientnet import Triplet

RNG = np.random.default_rng(3)
STAMPS = {c: RNG.normal(100, 5, (63, 63)).astype(np.float32) for c in ("science", "reference", "difference")}


def fits_bytes(stamp: Any, *hdus: Any, **cards: Any) -> bytes:
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(stamp, fits.Header(cards)), *hdus]).writeto(file)
    return file.getvalue()


CUTOUT = {
    "type": "record",
    "name": "cutout",
    "namespace": "ztf.alert",
    "fields": [{"name": "fileName", "type": "string"}, {"name": "stampData", "type": "bytes"}],
}


def ztf_schema(**changes: Any) -> dict[str, Any]:
    candidate = [
        {"name": "jd", "type": "double"},
        {"name": "fid", "type": "int"},
        {"name": "candid", "type": "long"},
        {"name": "isdiffpos", "type": "string"},
        {"name": "xpos", "type": ["null", "float"]},
        {"name": "ypos", "type": ["null", "float"]},
        {"name": "ra", "type": "double"},
        {"name": "dec", "type": "double"},
        {"name": "magpsf", "type": "float"},
        {"name": "fwhm", "type": ["null", "float"], "default": None},
    ]
    record = {"type": "record", "name": "candidate", "namespace": "ztf.alert", "fields": candidate}
    past = {"type": "record", "name": "prv", "namespace": "ztf.alert", "fields": candidate[:1]}
    fields = {
        "schemavsn": "string",
        "publisher": "string",
        "objectId": "string",
        "candid": "long",
        "candidate": record,
        "prv_candidates": ["null", {"type": "array", "items": past}],
        "cutoutScience": ["null", CUTOUT],
        "cutoutTemplate": ["null", "ztf.alert.cutout"],
        "cutoutDifference": ["null", "ztf.alert.cutout"],
    } | changes
    return {
        "type": "record",
        "name": "alert",
        "namespace": "ztf",
        "fields": [{"name": name, "type": kind} for name, kind in fields.items()],
    }


def cutout(stamp: Any) -> dict[str, Any]:
    return {"fileName": "x.fits.gz", "stampData": gzip.compress(fits_bytes(stamp), mtime=0)}


def ztf_alert(i: int = 0, **changes: Any) -> dict[str, Any]:
    candidate = {
        "jd": 2458881.5,
        "fid": 2,
        "candid": 1127107111615015007 + i,
        "isdiffpos": "t",
        "xpos": 1500.0,
        "ypos": 1500.0,
        "ra": 71.65,
        "dec": -10.2,
        "magpsf": 19.2,
        "fwhm": 6.6,
    } | {key: changes.pop(key) for key in ("isdiffpos", "xpos", "ypos") if key in changes}
    return {
        "schemavsn": "3.3",
        "publisher": "ZTF (www.ztf.caltech.edu)",
        "objectId": "ZTF19abzrhgq",
        "candid": candidate["candid"],
        "candidate": candidate,
        "prv_candidates": [{"jd": 2458800.5}] * 30,
        "cutoutScience": cutout(STAMPS["science"]),
        "cutoutTemplate": cutout(STAMPS["reference"]),
        "cutoutDifference": cutout(STAMPS["difference"]),
    } | changes


def packet(path: Path, schema: dict[str, Any], *records: dict[str, Any], codec: str = "null") -> Path:
    with path.open("wb") as file:
        fastavro.writer(file, schema, records, codec=codec)
    return path


def assert_stamps(triplet: Triplet) -> None:
    assert triplet.error is None, triplet.error
    for got, expected in zip(triplet.stamps, STAMPS.values(), strict=True):
        np.testing.assert_array_equal(got, expected)
