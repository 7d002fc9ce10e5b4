"""Records and contracts check themselves."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transientnet.errors import ContractError
from transientnet.files.paths import is_inside
from transientnet.files.strict_json import parse_json
from transientnet.models.record import ModelRecord, Source
from transientnet.prepare.contract import InputContract

RECORD = ModelRecord("nightly", "1.2.0", ("bogus", "real"), InputContract(), sources=(Source("path"),))
VECTORS = {"file": "v.npz", "sha256": "0" * 64, "size_bytes": 1, "tolerance": 1e-3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Real Bogus"}, "name"),
        ({"name": 5}, "name must be of type str"),
        ({"version": "1.2"}, "version"),
        ({"classes": ("real",)}, "two or more"),
        ({"classes": ("real", "real")}, "two or more"),
        ({"classes": ("real", "bo\ngus")}, "printable"),
        ({"classes": "realbogus"}, "list"),
        ({"sha256": "ABC"}, "sha256"),
        ({"status": "new"}, "status"),
        ({"file": "../model.onnx"}, "file"),
        ({"file": "/etc/model.onnx"}, "file"),
        ({"card": "C:card.md"}, "card"),
        ({"size_bytes": -1}, "size_bytes"),
        ({"calibration": {"temperature": 0}}, "temperature"),
        ({"calibration": []}, "calibration"),
        ({"test_vectors": {"file": "v.npz"}}, "test_vectors"),
        ({"test_vectors": {**VECTORS, "file": "../v.npz"}}, "test_vectors"),
        ({"test_vectors": {**VECTORS, "tolerance": 5.0}}, "test_vectors"),
    ],
)
def test_a_wrong_record_names_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        dataclasses.replace(RECORD, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 64},
        {"fwhm_px": (5, 1)},
        {"channels": ("difference", "science", "reference")},
        {"normalisation": "none"},
        {"softening": 0.0},
        {"missing_reference": "zeros"},
    ],
)
def test_a_wrong_contract_names_the_field(change: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match=next(iter(change))):
        InputContract(**change)


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "ftp"},
        {"kind": "hf", "repo": "a/b", "revision": "main"},
        {"kind": "url", "url": "file:///etc/passwd"},
        {"kind": "url"},
        {"kind": "path", "path": "../x"},
    ],
)
def test_a_wrong_source_is_refused(source: dict[str, str]) -> None:
    with pytest.raises(ContractError, match="source"):
        Source(**source)


def test_record_survives_manifest_and_metadata() -> None:
    record = dataclasses.replace(RECORD, test_vectors=VECTORS, status="deprecated", successor="other")
    assert ModelRecord.from_dict(record.to_dict()) == record
    again = ModelRecord.from_metadata(record.to_metadata(), "m")
    assert again.differences(record) == []
    # What may change after a file is written does not stand in it.
    assert (again.status, again.test_vectors, again.sources) == ("stable", {}, ())
    other = dataclasses.replace(record, classes=("real", "bogus"), contract=InputContract(softening=3.0))
    assert other.differences(record) == ["classes", "contract"]


def test_unknown_fields_ask_for_an_upgrade() -> None:
    with pytest.raises(ContractError, match=r"unknown field\(s\) colour.*upgrade"):
        ModelRecord.from_dict({**RECORD.to_dict(), "colour": "red"})


@pytest.mark.parametrize("text", ["{", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, b"\xff"])
def test_json_is_strict(text: str | bytes) -> None:
    with pytest.raises(ContractError, match=r"file: not valid JSON"):
        parse_json(text, "file")


@pytest.mark.parametrize("path", ["a", "a/b.onnx", ".a", "a..b"])
def test_paths_inside(path: str) -> None:
    assert is_inside(path)


@pytest.mark.parametrize(
    "path", ["", "/a", "a/../b", "..", "./a", "a//b", "a/", "a\\b", "c:a", "a\0b", "x" * 300]
)
def test_paths_outside(path: str) -> None:
    assert not is_inside(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(RECORD.to_dict())), JSON)
def test_any_json_in_any_field_is_a_record_or_a_contract_error(field: str, value: Any) -> None:
    try:
        record = ModelRecord.from_dict({**RECORD.to_dict(), field: value})
    except ContractError:
        return
    assert ModelRecord.from_dict(record.to_dict()) == record
