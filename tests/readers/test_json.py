"""JSON records: what brokers' interfaces and document stores hand out."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alerts import STAMPS, assert_stamps, fits_bytes, packet, ztf_alert, ztf_schema

from transientnet import classify, open_triplets
from transientnet.errors import EmptyInputError
from transientnet.readers import json as room
from transientnet.readers.layouts import load_layout
from transientnet.readers.open import decode_packet

FIELDS = {"science": "cutoutScience", "reference": "cutoutTemplate", "difference": "cutoutDifference"}


def text_of(channel: str, zipped: bool = True) -> str:
    raw = fits_bytes(STAMPS[channel])
    return base64.b64encode(gzip.compress(raw) if zipped else raw).decode()


def alert(number: int = 1, **cutouts: Any) -> dict[str, Any]:
    return {
        "candid": 1234567890123456789 + number,
        "objectId": "ZTF23abcdefg",
        "candidate": {"ra": 10.5, "dec": -3.25, "magpsf": 18.5, "isdiffpos": "t"},
        "prv_candidates": [{"jd": 2459000.5, "magpsf": None}, {"jd": 2459001.5, "magpsf": 18.0}],
        **(cutouts or {name: {"stampData": text_of(channel)} for channel, name in FIELDS.items()}),
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def binary(channel: str) -> dict[str, Any]:
    return {"$binary": {"base64": text_of(channel), "subType": "00"}}


LISTS = {f"b:{name}_stampData": STAMPS[channel].tolist() for channel, name in FIELDS.items()}


@pytest.mark.parametrize(
    "record",
    [
        alert(),
        alert(**{name: text_of(channel, zipped=False) for channel, name in FIELDS.items()}),
        alert(**{name: {"stampData": binary(channel)} for channel, name in FIELDS.items()}),
        alert(**LISTS),
    ],
    ids=["base64 of gzip", "base64 of FITS", "a document store's export", "lists of numbers"],
)
def test_a_record_is_read_as_the_packet_is(record: dict[str, Any], tmp_path: Path) -> None:
    (triplet,) = open_triplets(write(tmp_path / "alert.txt", record))
    (packed,) = open_triplets(packet(tmp_path / "alert.avro", ztf_schema(), ztf_alert(1)))
    assert_stamps(triplet)
    assert triplet.id == "1234567890123456790"
    assert triplet.group == "ZTF23abcdefg"
    assert triplet.meta["survey"] == packed.meta["survey"] == "ZTF"
    assert triplet.pixel_scale == packed.pixel_scale
    assert triplet.meta["magnitude"] == 18.5
    assert triplet.meta["is_positive"] is True


@pytest.mark.parametrize("form", ["list", "lines", "envelope", "pretty", "zipped", "marked"])
def test_many_records_are_read_in_their_order(form: str, tmp_path: Path) -> None:
    records = [alert(i) for i in range(5)]
    lines = "\n".join(json.dumps(record) for record in records)
    path = tmp_path / "night.json"
    if form == "lines":
        write(path, lines + "\n")
    elif form == "zipped":
        path.write_bytes(gzip.compress(lines.encode()))
    elif form == "marked":
        path.write_bytes(b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode())
    elif form == "pretty":
        write(path, json.dumps(records, indent=4))
    else:
        write(path, {"count": 5, "alerts": records} if form == "envelope" else records)
    triplets = list(open_triplets(path))
    assert [t.id for t in triplets] == [str(1234567890123456789 + i) for i in range(5)]
    for triplet in triplets:
        assert_stamps(triplet)


def test_null_is_a_missing_pixel_and_a_missing_stamp(tmp_path: Path) -> None:
    pixels: list[list[float | None]] = STAMPS["science"].tolist()
    pixels[0][1] = None
    record = alert(**{**LISTS, "b:cutoutScience_stampData": pixels, "b:cutoutTemplate_stampData": None})
    (triplet,) = open_triplets(write(tmp_path / "a.json", record))
    assert np.isnan(triplet.science[0, 1])
    assert np.isnan(triplet.science).sum() == 1
    assert triplet.reference is None
    assert triplet.difference is not None


def test_document_numbers_are_numbers(tmp_path: Path) -> None:
    record = alert() | {"candid": {"$numberLong": "77"}, "candidate": {"ra": {"$numberDouble": "1.5"}}}
    (triplet,) = open_triplets(write(tmp_path / "a.json", record))
    assert triplet.id == "77"
    assert triplet.meta["ra"] == 1.5


def test_a_damaged_cutout_costs_its_own_row(tmp_path: Path) -> None:
    broken = alert(2) | {"cutoutScience": {"stampData": "H4sI!!!"}}
    ragged = alert(3, **{**LISTS, "b:cutoutScience_stampData": [[1.0], [1.0, 2.0]]})
    path = write(tmp_path / "night.json", [alert(1), broken, ragged, alert(4)])
    good, bad, worse, last = open_triplets(path)
    assert_stamps(good)
    assert_stamps(last)
    assert bad.id == "1234567890123456791"
    assert "science cutout" in str(bad.error)
    assert "rectangular" in str(worse.error)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"a": ', "damaged after 0 records"),
        ("[" + "{}," * 3, "the list breaks off"),
        ('{"a": 1} what', "where a record should begin"),
        ('{"a": ' + "[" * 100_000, "damaged after 0 records"),
        ('{"a": ' + "9" * 5000 + "}", "damaged after 0 records"),
        ('[{"a": 1}]', "no field of the record is named like"),
        ('{"a": "\udcff"}', "damaged after 0 records"),
    ],
)
def test_what_is_no_alert_is_a_clear_error(content: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    *_, last = open_triplets(path)
    assert last.error is not None
    assert fault in last.error


def test_what_comes_before_the_damage_is_kept(tmp_path: Path) -> None:
    lines = [json.dumps(alert(1)), json.dumps(alert(2))[:-200]]
    good, bad = open_triplets(write(tmp_path / "night.jsonl", "\n".join(lines)))
    assert_stamps(good)
    assert "damaged after 1 records" in str(bad.error)


def test_a_record_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSIENTNET_MEMORY", "6")
    monkeypatch.setattr(room, "_CHUNK", 50_000)
    (triplet,) = open_triplets(write(tmp_path / "a.json", {"a": "x" * 1_000_000}))
    assert "more than 98304 characters" in str(triplet.error)


def test_a_folder_s_other_json_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "settings.json", {"filter": "g", "rows": [1, 2]})
    with pytest.raises(EmptyInputError, match="no file in it"):
        list(open_triplets(tmp_path))
    write(tmp_path / "b.json", alert(2))
    write(tmp_path / "a.json", [alert(1)])
    assert [t.id for t in open_triplets(tmp_path)] == ["1234567890123456790", "1234567890123456791"]


def test_a_message_in_memory_is_read_and_scored(tmp_path: Path) -> None:
    data = json.dumps(alert(5)).encode()
    (triplet,) = decode_packet(data, "alerts[0]@7", load_layout(None))
    assert_stamps(triplet)
    (bad,) = decode_packet(data[:-3], "alerts[0]@7", load_layout(None))
    assert bad.error is not None
    as_json = classify(write(tmp_path / "a.json", alert(1)), workers=1)
    as_avro = classify(packet(tmp_path / "a.avro", ztf_schema(), ztf_alert(1)), workers=1)
    np.testing.assert_allclose(as_json.probabilities, as_avro.probabilities, atol=1e-5)
