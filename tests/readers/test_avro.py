"""Avro packets of any survey: names, schemas, frames, damage."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from alerts import STAMPS, assert_stamps, cutout, fits_bytes, packet, ztf_alert, ztf_schema
from astropy.io import fits

from transientnet import Triplet, open_triplets
from transientnet.errors import UsageError
from transientnet.readers.candidate import from_record
from transientnet.readers.layouts import Layout


def one(path: Path, **kwargs: Any) -> Triplet:
    (triplet,) = open_triplets(path, **kwargs)
    return triplet


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_one_or_many_alerts(tmp_path: Path, codec: str) -> None:
    path = packet(tmp_path / "a.avro", ztf_schema(), *(ztf_alert(i) for i in range(5)), codec=codec)
    triplets = list(open_triplets(path))
    assert [t.id for t in triplets] == [str(1127107111615015007 + i) for i in range(5)]
    for triplet in triplets:
        assert_stamps(triplet)
    first = triplets[0]
    assert first.group == "ZTF19abzrhgq"
    assert first.meta["survey"] == "ZTF"
    assert first.meta["band"] == "r"
    assert first.meta["magnitude"] == pytest.approx(19.2)
    assert (first.pixel_scale, first.meta["pixel_scale_from"]) == (1.01, "survey")
    # The candidate's own FWHM is not the seeing.
    assert (first.fwhm, first.meta["source_fwhm"]) == (2.0, pytest.approx(6.6))


def test_spark_codecs(tmp_path: Path) -> None:
    """Snappy and Zstandard as Spark writes them: the block is packed by hand, fastavro needs plug-ins."""
    pyarrow = pytest.importorskip("pyarrow")
    plain = packet(tmp_path / "a.avro", ztf_schema(), ztf_alert()).read_bytes()
    sync = plain[-16:]
    head, body = plain.split(sync)[:2]
    count_and_size = io.BytesIO(body)
    fastavro.schemaless_reader(count_and_size, "long", None)
    fastavro.schemaless_reader(count_and_size, "long", None)
    block = body[count_and_size.tell() :]
    for codec, name in (("snappy", b"snappy"), ("zstd", b"zstandard")):
        packed = pyarrow.Codec(codec).compress(block, asbytes=True) + (
            b"\0\0\0\0" if codec == "snappy" else b""
        )
        lengths = io.BytesIO()
        for number in (1, len(packed)):
            fastavro.schemaless_writer(lengths, "long", number)
        renamed = head.replace(b"\x08null", bytes([2 * len(name)]) + name)
        (tmp_path / f"{codec}.avro").write_bytes(renamed + sync + lengths.getvalue() + packed + sync)
        assert_stamps(one(tmp_path / f"{codec}.avro"))


@pytest.mark.parametrize(
    ("value", "kind", "positive"),
    [("t", "string", True), ("f", "string", False), ("1", "string", True), ("0", "string", False),
     (True, "boolean", True), (False, "boolean", False), (1, "int", True), (-1, "int", False),
     (0.0, "float", False)],
)  # fmt: skip
def test_sign_of_the_detection(tmp_path: Path, value: Any, kind: str, positive: bool) -> None:
    schema = ztf_schema()
    for item in schema["fields"][4]["type"]["fields"]:
        if item["name"] == "isdiffpos":
            item["type"] = kind
    triplet = one(packet(tmp_path / "a.avro", schema, ztf_alert(isdiffpos=value)))
    assert triplet.meta["is_positive"] is positive


def test_null_cutouts(tmp_path: Path) -> None:
    triplet = one(packet(tmp_path / "a.avro", ztf_schema(), ztf_alert(cutoutTemplate=None)))
    assert triplet.reference is None
    assert triplet.difference is not None
    triplet = one(packet(tmp_path / "b.avro", ztf_schema(), ztf_alert(cutoutScience=None)))
    assert "science" in (triplet.error or "")
    assert triplet.id == "1127107111615015007"


def test_one_bad_cutout_among_good_alerts(tmp_path: Path) -> None:
    bad = ztf_alert(1, cutoutDifference={"fileName": "x", "stampData": b"\x1f\x8b\x08junk"})
    triplets = list(open_triplets(packet(tmp_path / "a.avro", ztf_schema(), ztf_alert(0), bad, ztf_alert(2))))
    assert [t.error is None for t in triplets] == [True, False, True]
    assert "difference cutout" in (triplets[1].error or "")
    assert triplets[1].id == "1127107111615015008"


@pytest.mark.parametrize(
    ("x", "y", "rows", "columns", "target"),
    [
        (10.0, 1500.0, slice(None), slice(22, None), (31, 9)),  # the low side: 22 columns lie below pixel 1
        (3060.0, 1500.0, slice(None), slice(None, 44), (31, 31)),
        (1500.0, 20.0, slice(12, None), slice(None), (19, 31)),
        (1500.0, 3070.0, slice(None, 40), slice(None), (31, 31)),
        (5.0, 3075.0, slice(None, 37), slice(27, None), (31, 4)),
    ],
)
def test_target_of_a_stamp_cut_at_the_chip_edge_is_centred_again(
    tmp_path: Path, x: float, y: float, rows: slice, columns: slice, target: tuple[int, int]
) -> None:
    stamp = STAMPS["science"].copy()
    stamp[31, 31] = 9999.0
    part = stamp[rows, columns]
    assert part[target] == 9999.0
    alert = ztf_alert(xpos=x, ypos=y, cutoutScience=cutout(part), cutoutDifference=cutout(part))
    triplet = one(packet(tmp_path / "a.avro", ztf_schema(), alert))
    assert triplet.science.shape == (63, 63)
    assert triplet.science[31, 31] == 9999.0
    assert np.isfinite(triplet.science).sum() == part.size
    np.testing.assert_array_equal(triplet.reference, STAMPS["reference"])


def test_a_cut_on_an_unknown_side_is_told(tmp_path: Path) -> None:
    alert = ztf_alert(xpos=None, ypos=None, cutoutScience=cutout(STAMPS["science"][:40]))
    triplet = one(packet(tmp_path / "a.avro", ztf_schema(), alert))
    assert triplet.meta["truncated"] is True
    assert triplet.science.shape == (40, 63)


def test_names_of_an_unseen_survey(tmp_path: Path) -> None:
    """Snake case, other words, bytes without a record around them, a nested container, unknown extras."""
    schema = {
        "type": "record",
        "name": "alert",
        "namespace": "newcam.v2",
        "fields": [
            {"name": "alertId", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "diaSource", "type": {"type": "record", "name": "src", "fields": [
                {"name": "diaObjectId", "type": ["long", "null"]},
                {"name": "ra_deg", "type": "double"}, {"name": "decl", "type": "double"},
                {"name": "midpointMjdTai", "type": "double"}, {"name": "filter", "type": "string"},
                {"name": "psfFlux", "type": "float"}, {"name": "psfFluxErr", "type": "float"}]}},
            {"name": "cutouts", "type": {"type": "record", "name": "cuts", "fields": [
                {"name": "image_difference", "type": ["bytes", "null"]},
                {"name": "image_new", "type": ["bytes", "null"]},
                {"name": "image_tmpl", "type": ["bytes", "null"]}]}},
            {"name": "extra", "type": {"type": "map", "values": "double"}},
        ],
    }  # fmt: skip
    record = {
        "alertId": "b5c1",
        "diaSource": {"diaObjectId": 77, "ra_deg": 1.5, "decl": -2.5, "midpointMjdTai": 60000.0,
                      "filter": "g", "psfFlux": -50.0, "psfFluxErr": 5.0},
        "cutouts": {"image_difference": fits_bytes(STAMPS["difference"]),
                    "image_new": fits_bytes(STAMPS["science"], PIXSCALE=0.42, FWHM=3.3), "image_tmpl": None},
        "extra": {"drb": 0.3},
    }  # fmt: skip
    triplet = one(packet(tmp_path / "a.avro", schema, record))
    np.testing.assert_array_equal(triplet.science, STAMPS["science"])
    np.testing.assert_array_equal(triplet.difference, STAMPS["difference"])
    assert triplet.reference is None
    assert (triplet.id, triplet.group) == ("b5c1", "77")
    assert (triplet.pixel_scale, triplet.fwhm) == (0.42, 3.3)
    assert triplet.meta["jd"] == 2460000.5
    assert triplet.meta["snr"] == -10.0
    assert triplet.meta["is_positive"] is False
    assert (triplet.meta["ra"], triplet.meta["dec"], triplet.meta["band"]) == (1.5, -2.5, "g")


def test_names_that_only_a_layout_knows(tmp_path: Path) -> None:
    names = {"pic_a": "science", "pic_b": "reference", "pic_c": "difference"}
    schema = {
        "type": "record",
        "name": "obs",
        "fields": [{"name": "nr", "type": "int"}, *({"name": n, "type": "bytes"} for n in names)],
    }
    record = {"nr": 7, **{n: fits_bytes(STAMPS[channel]) for n, channel in names.items()}}
    path = packet(tmp_path / "a.avro", schema, record)
    assert "layout" in (one(path).error or "")
    lines = [f'{channel} = "{name}"' for name, channel in names.items()]
    (tmp_path / "my.toml").write_text("\n".join(['name = "Mine"', "[fields]", 'id = "nr"', *lines]))
    triplet = one(path, layout=tmp_path / "my.toml")
    assert_stamps(triplet)
    assert (triplet.id, triplet.meta["survey"]) == ("7", "Mine")


def test_pixels_as_lists_of_numbers(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {"type": "array", "items": "float"}
    schema = {
        "type": "record",
        "name": "obs",
        "fields": [
            {"name": "science", "type": numbers},
            {"name": "template", "type": {"type": "array", "items": numbers}},
        ],
    }
    record = {"science": STAMPS["science"].ravel().tolist(), "template": STAMPS["reference"].tolist()}
    triplet = one(packet(tmp_path / "a.avro", schema, record))
    np.testing.assert_array_equal(triplet.science, STAMPS["science"])
    np.testing.assert_array_equal(triplet.reference, STAMPS["reference"])


def rewrite_schema(path: Path, change: Any) -> None:
    """Change the schema text in a file's header, which no strict writer would write so."""
    raw = path.read_bytes()
    start = raw.index(b"avro.schema") + len(b"avro.schema")
    old_length = io.BytesIO(raw[start:])
    length = fastavro.schemaless_reader(old_length, "long", None)
    text = raw[start + old_length.tell() :][:length]
    new = json.dumps(change(json.loads(text))).encode()
    number = io.BytesIO()
    fastavro.schemaless_writer(number, "long", len(new))
    path.write_bytes(raw[:start] + number.getvalue() + new + raw[start + old_length.tell() + length :])


def test_a_schema_default_that_strict_parsers_reject(tmp_path: Path) -> None:
    path = packet(tmp_path / "a.avro", ztf_schema(), ztf_alert())

    def change(schema: Any) -> Any:
        fields = next(f for f in schema["fields"] if f["name"] == "candidate")["type"]["fields"]
        next(f for f in fields if f["name"] == "fid")["default"] = None
        return schema

    rewrite_schema(path, change)
    with pytest.raises(fastavro.schema.SchemaParseException), path.open("rb") as file:
        fastavro.reader(file)
    assert_stamps(one(path))


def test_hostile_schemas_are_refused(tmp_path: Path) -> None:
    loop = {"type": "record", "name": "alert", "fields": [{"name": "next", "type": ["null", "alert"]}]}
    nothing = ztf_schema(prv_candidates={"type": "array", "items": "null"})
    deep: Any = "bytes"
    for _ in range(100):
        deep = {"type": "array", "items": deep}
    for schema in (
        loop,
        nothing,
        {**loop, "fields": [{"name": "science", "type": deep}]},
        "bytes",
        [],
        {"a": 1},
    ):
        path = packet(tmp_path / "a.avro", ztf_schema(), ztf_alert())
        rewrite_schema(path, lambda _, schema=schema: schema)
        assert one(path).error is not None


def lsst_schema() -> dict[str, Any]:
    fields: dict[str, Any] = {
        "diaSourceId": "long",
        "observation_reason": ["null", "string"],
        "diaSource": {
            "type": "record",
            "name": "diaSource",
            "fields": [
                {"name": "diaObjectId", "type": ["null", "long"]},
                {"name": "ra", "type": "double"},
                {"name": "dec", "type": "double"},
                {"name": "isNegative", "type": ["null", "boolean"]},
            ],
        },
        "cutoutDifference": ["null", "bytes"],
        "cutoutScience": ["null", "bytes"],
        "cutoutTemplate": ["null", "bytes"],
    }
    return {
        "type": "record",
        "name": "lsst.v9_0.alert",
        "fields": [{"name": name, "type": kind} for name, kind in fields.items()],
    }


def lsst_record(*channels: str, zipped: bool = False) -> dict[str, Any]:
    y, x = np.mgrid[:41, :41] - 20
    psf = fits.ImageHDU(np.exp(-4 * np.log(2) * (x**2 + y**2) / 4.5**2), name="PSFIMAGE")
    names = {"difference": "cutoutDifference", "science": "cutoutScience", "reference": "cutoutTemplate"}
    cards = {"CUTMINX": 739, "CDELT1": -0.2 / 3600, "CDELT2": 0.2 / 3600}
    made = {
        c: fits_bytes(STAMPS[c], fits.ImageHDU(STAMPS[c] * 0 + 9, name="UNCERT"), psf, **cards) for c in names
    }
    return {
        "diaSourceId": 7912941781254298,
        "observation_reason": None,
        "diaSource": {"diaObjectId": 5, "ra": 1.0, "dec": 2.0, "isNegative": True},
        **{
            name: (gzip.compress(made[c], mtime=0) if zipped else made[c]) if c in channels else None
            for c, name in names.items()
        },
    }


def framed(path: Path, schema: dict[str, Any], record: dict[str, Any]) -> Path:
    file = io.BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(schema), record)
    path.write_bytes(b"\0" + (900).to_bytes(4, "big") + file.getvalue())
    return path


@pytest.mark.parametrize(
    "channels",
    [
        ("science", "reference", "difference"),
        ("science", "difference"),
        ("science", "reference"),
        ("science",),
    ],
)
def test_a_framed_packet_without_its_schema(tmp_path: Path, channels: tuple[str, ...]) -> None:
    """The cutouts are found by content, nulls between and behind them tell which are missing."""
    triplet = one(framed(tmp_path / "p.avro", lsst_schema(), lsst_record(*channels)))
    assert triplet.error is None, triplet.error
    assert triplet.id == "7912941781254298"
    assert triplet.meta["survey"] == "LSST"
    assert triplet.pixel_scale == pytest.approx(0.2)
    assert triplet.fwhm == pytest.approx(4.5, rel=0.02)
    for channel, stamp in zip(STAMPS, triplet.stamps, strict=True):
        if channel in channels:
            np.testing.assert_array_equal(stamp, STAMPS[channel])
        else:
            assert stamp is None


def test_a_framed_packet_with_its_schema_in_a_layout(tmp_path: Path) -> None:
    path = framed(tmp_path / "p.avro", lsst_schema(), lsst_record("science", "difference"))
    # The schema in two files, as surveys publish them.
    schema = lsst_schema()
    source = next(f for f in schema["fields"] if f["name"] == "diaSource")
    (tmp_path / "diaSource.avsc").write_text(json.dumps(source["type"]))
    source["type"] = "diaSource"
    (tmp_path / "alert.avsc").write_text(json.dumps(schema))
    (tmp_path / "my.toml").write_text('name = "LSST"\nschema = "alert.avsc"')
    triplet = one(path, layout=tmp_path / "my.toml")
    assert triplet.error is None, triplet.error
    assert (triplet.group, triplet.meta["ra"], triplet.meta["is_positive"]) == ("5", 1.0, False)
    (tmp_path / "my.toml").write_text('schema = "absent.avsc"')
    assert "absent.avsc" in (one(path, layout=tmp_path / "my.toml").error or "")


def test_a_framed_packet_without_cutouts_says_what_to_do(tmp_path: Path) -> None:
    record = lsst_record() | {"observation_reason": "deep drilling field " * 5}
    assert "schema" in (one(framed(tmp_path / "p.avro", lsst_schema(), record)).error or "")


@pytest.mark.parametrize(("part", "whole"), [(0.0001, 0), (0.1, 0), (0.3, 1), (0.9, 3), (1.0, 4)])
def test_a_truncated_file_keeps_what_came_before(tmp_path: Path, part: float, whole: int) -> None:
    path = packet(tmp_path / "a.avro", ztf_schema(), *(ztf_alert(i) for i in range(4)))
    raw = path.read_bytes()
    path.write_bytes(raw[: min(int(part * len(raw)), len(raw) - 4)])
    assert [t.error is None for t in open_triplets(path)] == [True] * whole + [False]


def test_codec_bomb_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSIENTNET_MEMORY", "4")
    zeros = {"fileName": "x", "stampData": bytes(10**6)}
    for codec in ("deflate", "bzip2", "xz"):
        path = packet(tmp_path / "a.avro", ztf_schema(), ztf_alert(cutoutScience=zeros), codec=codec)
        assert "limit" in (one(path).error or "")


def test_gzipped_avro(tmp_path: Path) -> None:
    raw = packet(tmp_path / "a.avro", ztf_schema(), ztf_alert()).read_bytes()
    (tmp_path / "a.avro.gz").write_bytes(gzip.compress(raw))
    assert_stamps(one(tmp_path / "a.avro.gz"))


def test_wrong_layout_is_a_usage_error_not_a_row(tmp_path: Path) -> None:
    path = packet(tmp_path / "a.avro", ztf_schema(), ztf_alert())
    with pytest.raises(UsageError):
        list(open_triplets(path, layout=tmp_path / "absent.toml"))


# ---------------------------------------------------------------- real packets


@pytest.mark.parametrize(
    ("folder", "survey", "n", "scale"),
    [
        ("ztf", "ZTF", 24, 1.01),
        ("ztf_edge", "ZTF", 10, 1.01),
        ("winter", "WINTER", 5, 1.108),
        ("pgir", "PGIR", 8, 4.35),
        ("turbo", "TURBO", 3, None),
        ("decam", "DECam", 1, 0.263),
    ],
)
def test_real_packets(shared_data: Path, folder: str, survey: str, n: int, scale: float | None) -> None:
    triplets = list(open_triplets(shared_data / "packets" / folder))
    assert len(triplets) == n
    for triplet in triplets:
        assert triplet.error is None
        assert triplet.meta["survey"] == survey
        assert triplet.pixel_scale == scale
        assert all(stamp is not None and stamp.shape == triplet.science.shape for stamp in triplet.stamps)
        assert len(set(triplet.science.shape)) == 1


def test_real_rubin_packet_without_its_schema(shared_data: Path) -> None:
    triplet = one(shared_data / "packets/rubin/7912941781254298.avro")
    assert (triplet.id, triplet.meta["survey"]) == ("7912941781254298", "LSST")
    assert triplet.pixel_scale == pytest.approx(0.2, rel=0.01)
    assert triplet.fwhm == pytest.approx(4.5, rel=0.05)
    # science - template = difference, up to the matching of the PSF: the channels are not mixed up.
    science, reference, difference = triplet.stamps
    assert reference is not None
    assert difference is not None
    assert np.std(science - reference - difference) < 0.5 * np.std(science - difference - difference)


@pytest.mark.filterwarnings("ignore:Found a SIMPLE card")
def test_real_stamps_equal_astropy(shared_data: Path) -> None:
    for path in sorted((shared_data / "packets/ztf").glob("*.avro")):
        with path.open("rb") as file:
            record: Any = next(fastavro.reader(file))
        triplet = one(path)
        for name, stamp in zip(("Science", "Template", "Difference"), triplet.stamps, strict=True):
            data = gzip.decompress(record[f"cutout{name}"]["stampData"])
            with fits.open(io.BytesIO(data)) as opened:
                assert stamp is not None
                assert stamp.tobytes() == opened[0].data.tobytes()


@pytest.mark.parametrize(("flux", "magnitude"), [(1000.0, 23.9), (-1000.0, 23.9), (0.0, None), (None, None)])
def test_fluxes_in_nanojansky_are_magnitudes_too(flux: float | None, magnitude: float | None) -> None:
    record = {"diaSource": {"psfFlux": flux, "psfFluxErr": 100.0}, "cutoutScience": STAMPS["science"]}
    lsst = from_record(record, id="1", source="x", layout=Layout(), hints=("lsst.v10_0.alert",))
    assert lsst.meta["survey"] == "LSST"
    assert lsst.meta.get("magnitude") == (None if magnitude is None else pytest.approx(magnitude))
    unknown = from_record(record, id="1", source="x", layout=Layout())
    assert "magnitude" not in unknown.meta
    own = from_record(record, id="1", source="x", layout=Layout(zero_point=25.0))
    assert own.meta.get("magnitude") == (None if magnitude is None else pytest.approx(17.5))
