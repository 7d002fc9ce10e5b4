"""Records are read as fastavro reads them, whichever fields are wanted."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transientnet.errors import ReadError
from transientnet.readers.records import DAMAGE, compile_record

PRIMITIVES = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    # Around the lengths where the prefix grows by a byte.
    "bytes": st.sampled_from([0, 1, 63, 64, 127, 128, 300]).map(bytes) | st.binary(max_size=5),
    "string": st.sampled_from([0, 1, 63, 64, 127, 128]).map("x".__mul__) | st.text(max_size=5),
}


@st.composite
def typed(draw: Any, depth: int = 0) -> tuple[Any, st.SearchStrategy[Any]]:
    """An Avro type, and what values of it can be."""
    kinds = [*PRIMITIVES, "fixed", "enum", *(["array", "map", "union", "record"] if depth < 3 else [])]
    kind = draw(st.sampled_from(kinds))
    name = "unnamed"
    if kind == "fixed":
        return {"type": kind, "name": name, "size": 3}, st.binary(min_size=3, max_size=3)
    if kind == "enum":
        return {"type": kind, "name": name, "symbols": ["A", "B", "C"]}, st.sampled_from("ABC")
    if kind in ("array", "map"):
        inner, values = draw(typed(depth + 1))
        if kind == "map":
            return {"type": kind, "values": inner}, st.dictionaries(st.text(max_size=3), values, max_size=3)
        if inner == "null":
            inner, values = "int", PRIMITIVES["int"]
        return {"type": kind, "items": inner}, st.lists(values, max_size=4)
    if kind == "union":
        inner, values = draw(typed(depth + 1))
        if isinstance(inner, list) or inner == "null":
            inner, values = "string", PRIMITIVES["string"]
        return draw(st.permutations(["null", inner])), st.none() | values
    if kind == "record":
        parts = draw(st.lists(typed(depth + 1), min_size=1, max_size=4))
        fields = [{"name": f"f{i}", "type": inner} for i, (inner, _) in enumerate(parts)]
        if all(inner == "null" for inner, _ in parts):
            fields.append({"name": "some", "type": "int"})
            parts.append(("int", PRIMITIVES["int"]))
        values = st.fixed_dictionaries({f["name"]: v for f, (_, v) in zip(fields, parts, strict=True)})
        return {"type": kind, "name": name, "fields": fields}, values
    return kind, PRIMITIVES[kind]


def named(node: Any, numbers: Iterator[int]) -> None:
    """Give every named type a name of its own."""
    if isinstance(node, dict):
        if node.get("name") == "unnamed":
            node["name"] = f"n{next(numbers)}"
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            named(inner, numbers)


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_record_and_any_part_of_it_is_read_as_fastavro_reads_it(data: Any) -> None:
    parts = data.draw(st.lists(typed(), min_size=1, max_size=6))
    fields = [{"name": f"f{i}", "type": kind} for i, (kind, _) in enumerate(parts)]
    schema = {"type": "record", "name": "root", "fields": fields}
    value = {f"f{i}": data.draw(values) for i, (_, values) in enumerate(parts)}
    named(schema, itertools.count())
    file = io.BytesIO()
    parsed = fastavro.parse_schema(schema)
    fastavro.schemaless_writer(file, parsed, value)
    raw = file.getvalue()
    expected: Any = fastavro.schemaless_reader(io.BytesIO(raw), parsed, None)

    found, end = compile_record(schema, {}, None)(b"front" + raw + b"behind", 5)
    assert (plain(found), end) == (expected, 5 + len(raw))
    wanted = data.draw(st.sets(st.sampled_from(sorted(expected)), min_size=1))
    found, end = compile_record(schema, {}, wanted)(raw, 0)
    assert (plain(found), end) == ({name: expected[name] for name in expected if name in wanted}, len(raw))
    read = compile_record(schema, {}, wanted)
    for cut in {0, len(raw) // 2, len(raw) - 1}:
        if 0 <= cut < len(raw):
            with pytest.raises((*DAMAGE, ReadError)):
                read(raw[:cut], 0)


GZIP = b"\x1f\x8b\x08"
CONTENT = st.sampled_from([GZIP, b"SIMPLE  =", b""]).flatmap(
    lambda magic: st.binary(max_size=4).map(magic.__add__)
)
CUTOUT = {"type": "record", "name": "cutout", "fields": [
    {"name": "fileName", "type": "string"}, {"name": "stampData", "type": "bytes"}]}  # fmt: skip
STAMP = st.none() | st.fixed_dictionaries({"fileName": st.text(max_size=3), "stampData": CONTENT})


@settings(max_examples=300, deadline=None)
@example([], (None, {"fileName": "\x80\U00010000\U00010000", "stampData": GZIP}, None), None, [], True)
@example(
    [], (None, {"fileName": "", "stampData": b""}, {"fileName": "", "stampData": GZIP}), "", ["0", ""], False
)
@given(
    history=st.lists(CONTENT, max_size=3),
    stamps=st.tuples(STAMP, STAMP, STAMP),
    extra=st.none() | st.text(max_size=2),
    notes=st.lists(st.text(max_size=2), max_size=2),
    next_one=st.booleans(),
)
def test_the_look_for_the_first_cutout_misleads_nobody(
    history: list[bytes], stamps: tuple[Any, ...], extra: str | None, notes: list[str], next_one: bool
) -> None:
    kinds = {
        "id": "long",
        "history": {"type": "array", "items": "bytes"},
        **{f"cutout{i}": ["null", CUTOUT if i == 0 else "cutout"] for i in range(3)},
        "extra": ["null", "string"],
        "notes": {"type": "array", "items": "string"},
    }
    schema = {"type": "record", "name": "root", "fields": [{"name": n, "type": k} for n, k in kinds.items()]}
    value = {"id": 7, "history": history, "extra": extra, "notes": notes}
    value |= {f"cutout{i}": stamp for i, stamp in enumerate(stamps)}
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(schema), value)
    raw = file.getvalue()
    wanted = {"id", *(f"cutout{i}.stampData" for i in range(3))}
    found, end = compile_record(schema, {"cutout": CUTOUT}, wanted)(raw + raw * next_one, 0)
    assert end == len(raw)
    expected = [None if stamp is None else {"stampData": stamp["stampData"]} for stamp in stamps]
    assert found == {"id": 7, **{f"cutout{i}": stamp for i, stamp in enumerate(expected)}}


def test_blocks_with_their_size_in_bytes_are_jumped_over() -> None:
    history = {"type": "array", "items": {"type": "record", "name": "past", "fields": [
        {"name": "jd", "type": "double"}, {"name": "name", "type": ["null", "string"]}]}}  # fmt: skip
    fields = [{"name": "history", "type": history}, {"name": "id", "type": "long"}]
    schema = {"type": "record", "name": "root", "fields": fields}
    item = bytes(8) + b"\x02\x02x"
    # Two items in a block of -2 (its size follows) and one in a block of 1.
    raw = b"\x03" + bytes([2 * 2 * len(item)]) + 2 * item + b"\x02" + item + b"\x00" + b"\x0e"
    assert compile_record(schema, {}, {"id"})(raw, 0) == ({"id": 7}, len(raw))
    whole, _ = compile_record(schema, {}, None)(raw, 0)
    assert whole == {"history": [{"jd": 0.0, "name": "x"}] * 3, "id": 7}


@pytest.mark.parametrize("kind", [["null", "int"], {"type": "enum", "name": "e", "symbols": ["A"]}, "bytes"])
def test_negative_numbers_are_no_index_from_the_end(kind: Any) -> None:
    schema = {"type": "record", "name": "root", "fields": [{"name": "a", "type": kind}]}
    for wanted in (None, {"b"}):
        if wanted and isinstance(kind, dict):
            continue  # a symbol that is not wanted is not looked up
        with pytest.raises(DAMAGE):
            compile_record(schema, {}, wanted)(b"\x01\x00\x00", 0)


def test_types_that_hold_each_other_without_end_are_refused() -> None:
    names: dict[str, Any] = {"t0": {"type": "record", "name": "t0", "fields": [{"name": "a", "type": "int"}]}}
    for i in range(1, 40):
        fields = [{"name": name, "type": f"t{i - 1}"} for name in "ab"]
        names[f"t{i}"] = {"type": "record", "name": f"t{i}", "fields": fields}
    with pytest.raises(ReadError, match="too large"):
        compile_record(names["t39"], names, None)


def test_real_packets_are_read_as_fastavro_reads_them(shared_data: Path) -> None:
    for folder in ("ztf", "winter", "pgir", "decam"):
        for path in sorted((shared_data / "packets" / folder).glob("*.avro"))[:3]:
            with path.open("rb") as file:
                blocks = fastavro.block_reader(file)
                parsed = fastavro.parse_schema(blocks.writer_schema, _force=True)
                block = next(blocks)
                expected: Any = next(iter(block))
                raw = block.bytes_.getvalue()
            names = parsed["__named_schemas"]
            found, end = compile_record(parsed, names, None)(raw, 0)
            assert repr(plain(found)) == repr(expected)
            assert end == len(raw)
            for wanted in ({"candid"}, {"candidate.jd"}, {"cutoutDifference.stampData"}):
                part, end = compile_record(parsed, names, wanted)(raw, 0)
                assert end == len(raw)
                for name in part:
                    assert name == next(iter(wanted)).split(".")[0]
