"""The pages about brokers and pipelines: their code runs in the hosts' own classes, on real alerts if any."""

from __future__ import annotations

import io
import json
import logging
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fastavro
import numpy as np
import pytest
from alerts import packet, ztf_alert, ztf_schema

from transientnet import QualityFlag, classify
from transientnet.scoring.tags import tag_packets

pytestmark = pytest.mark.site

DATA = Path(__file__).parents[3] / "shared" / "data"
PAGES = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = "```python\n"


def blocks(page: str) -> list[str]:
    """The Python code of a page."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return [part.split("```\n")[0] for part in text.split(BLOCK)[1:]]


def run(*code: str, **names: Any) -> dict[str, Any]:
    """Run code as a program's own; its names."""
    space = {"__name__": "__main__", **names}
    for each in code:
        exec(compile(each, "page", "exec"), space)
    return space


@pytest.fixture(scope="module")
def ztf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ZTF packets, the last one without stamps to speak of."""
    folder = tmp_path_factory.mktemp("ztf")
    if (DATA / "packets" / "ztf").is_dir():
        for path in sorted((DATA / "packets" / "ztf").glob("*.avro"))[:6]:
            shutil.copy(path, folder)
    else:
        for number in range(6):
            packet(folder / f"{number}.avro", ztf_schema(), ztf_alert(number))
    blank = ztf_alert(99)
    for name in ("Science", "Template", "Difference"):
        blank[f"cutout{name}"] = {"fileName": "", "stampData": b"broken"}
    packet(folder / "z.avro", ztf_schema(), blank)
    return folder


@pytest.fixture(scope="module")
def messages(ztf: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(ztf.glob("*.avro")):
        with path.open("rb") as stream:
            found += list(fastavro.reader(stream))
    return found


def unusable(row: dict[str, Any]) -> bool:
    return bool(row["quality"] & QualityFlag.UNUSABLE)


def test_rows_of_tags_are_those_of_the_score_table(ztf: Path, messages: list[dict[str, Any]]) -> None:
    table = classify(ztf, workers=1)
    rows = tag_packets(messages)
    assert [row["id"] for row in rows] == table.ids.tolist()
    np.testing.assert_array_equal(
        np.array([np.nan if row["p_real"] is None else row["p_real"] for row in rows], np.float32),
        table["p_real"],
    )
    assert json.loads(json.dumps(rows)) == rows
    assert unusable(rows[-1])
    assert rows[-1]["tags"] == []
    assert rows[-1]["p_real"] is None


# ----------------------------------------------------------------------------------------------- Spark


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Fink's Parquet tables of two surveys, or simulated ones in the same layout."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    real = {
        "ztf": DATA / "packets" / "fink" / "ztf_alerts.parquet",
        "rubin": DATA / "packets" / "rubin" / "fink_rubin_sample.parquet",
    }
    if all(path.is_file() for path in real.values()):
        return real
    folder = tmp_path_factory.mktemp("fink")
    rows = [ztf_alert(number) for number in range(4)]
    rubin = [
        {"diaSourceId": number, "diaSource": {"x": 900.0, "y": 900.0}}
        | {name: row[name]["stampData"] for name in row if name.startswith("cutout")}
        for number, row in enumerate(rows)
    ]
    made = {name: folder / f"{name}.parquet" for name in real}
    for path, table in zip(made.values(), (rows, rubin), strict=True):
        pq.write_table(pa.Table.from_pylist(table), path)
    return made


@pytest.mark.filterwarnings("ignore")
def test_fink_spark_and_structured_streaming(
    tables: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One test, so that one session serves all."""
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java, which is not installed")
    import pyarrow.parquet as pq

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.chdir(tmp_path)
    options = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "1",
        "spark.driver.memory": "1g",
        "spark.sql.legacy.parquet.nanosAsLong": "true",
    }
    spark = sql.SparkSession.builder.master("local[1]").config(map=options).getOrCreate()
    try:
        frames = {name: spark.read.parquet(str(path)) for name, path in tables.items()}
        page = run(*blocks("fink"), spark=spark, **frames)
        for name in tables:
            expected = tag_packets(pq.read_table(tables[name]).to_pylist())
            rows = [row.vetted.asDict() for row in page[name].select("vetted").collect()]
            assert len(rows) == len(expected) > 0
            for got, row in zip(rows, expected, strict=True):
                assert got == {key: row[key] for key in got} | {
                    key: pytest.approx(row[key], abs=1e-6) for key in ("p_real", "p_bogus")
                }
            if name == "ztf":
                wanted = [r["id"] for r in expected if "real" in r["tags"] and "bright_star" not in r["tags"]]
        assert [str(row.candid) for row in page["candidates"].select("candid").collect()] == wanted

        (tmp_path / "incoming").mkdir()
        shutil.copy(tables["ztf"], tmp_path / "incoming" / "first.parquet")
        ids = classify(tables["ztf"], workers=1).ids.tolist()
        plain, streaming = blocks("cluster")[-2:]
        page = run(plain, streaming, alerts=frames["ztf"], spark=spark)
        assert [row.id for row in page["scores"].select("id").collect()] == ids
        # What comes later is scored once, and what was there is not scored again.
        shutil.copy(tables["ztf"], tmp_path / "incoming" / "second.parquet")
        exec(streaming, page)
        assert sorted(row.id for row in spark.read.parquet("scored").collect()) == sorted(2 * ids)
    finally:
        spark.stop()


# ----------------------------------------------------------------------------------------------- LSDB


@pytest.mark.filterwarnings("ignore")
def test_lsdb(tables: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lsdb = pytest.importorskip("lsdb", reason="lsdb is not installed")
    import pandas as pd
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    cutouts = [f"cutout{name}" for name in ("Science", "Template", "Difference")]
    rows = pq.read_table(tables["ztf"]).to_pylist()
    alerts = pd.DataFrame(
        [
            {"ra": row["candidate"]["ra"], "dec": row["candidate"]["dec"], "objectId": row["objectId"]}
            | {name: row["candidate"][name] for name in ("candid", "xpos", "ypos")}
            | {name: row[name]["stampData"] for name in cutouts}
            for row in rows
        ]
    )
    catalog = lsdb.from_dataframe(alerts, ra_column="ra", dec_column="dec", lowest_order=3)
    run(*blocks("lsdb"), catalog=catalog)
    scored = lsdb.open_catalog("scored_hats").compute()
    table = classify(tables["ztf"], workers=1)
    expected = dict(zip(table.ids.tolist(), table["p_real"].tolist(), strict=True))
    assert dict(zip(scored["id"], scored["p_real"], strict=True)) == pytest.approx(expected, nan_ok=True)
    assert {"ra", "dec", "label", "quality"} <= set(scored.columns)


# ----------------------------------------------------------------------------------------------- AMPEL


def test_ampel(messages: list[dict[str, Any]]) -> None:
    pytest.importorskip("ampel.abstract.AbsT3Unit", reason="ampel-interface is not installed")
    from ampel.log.AmpelLogger import AmpelLogger
    from ampel.struct.T3Store import T3Store
    from ampel.t3.stage.BaseViewGenerator import BaseViewGenerator
    from ampel.view.SnapView import SnapView

    recorded: dict[int, dict[str, Any]] = {}
    updater = SimpleNamespace(
        add_tag=lambda stock, tag: recorded.setdefault(stock, {}).update(tag=tag),
        add_journal_record=lambda stock, jattrs, unit: recorded.setdefault(stock, {}).update(jattrs.dict()),
    )

    class Views(BaseViewGenerator[SnapView]):
        def __next__(self) -> SnapView:
            if len(self.stocks) == len(messages):
                raise StopIteration
            self.stocks.append(len(self.stocks))
            message = messages[self.stocks[-1]]
            stamps = {name: message[name]["stampData"] for name in message if name.startswith("cutout")}
            # The complement of ampel-ztf: cutouts of each detection, or None where the archive has none.
            found = {"ZTFCutoutImages": {message["candid"]: stamps, 1: None}}
            return SnapView(id=self.stocks[-1], extra=None if self.stocks[-1] == 0 else found)

    unit = run(*blocks("ampel"))["TransientnetVetting"](logger=AmpelLogger.get_logger())
    result = unit.process(Views("TransientnetVetting", updater), T3Store())
    expected = tag_packets(messages)
    assert set(result) == {str(number) for number in range(1, len(messages))}
    for number, row in enumerate(expected[1:], 1):
        (got,) = recorded[number]["extra"]["transientnet"]
        assert got["id"] == row["id"]
        if not unusable(row):
            assert got["p_real"] == pytest.approx(row["p_real"], abs=1e-6)
        assert recorded[number].get("tag", []) == sorted(f"TRANSIENTNET_{tag.upper()}" for tag in got["tags"])


# ----------------------------------------------------------------------------------------------- ALeRCE


def test_alerce(ztf: Path, messages: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("apf.core.step", reason="apf-base is not installed")
    from apf.producers import GenericProducer

    produced = []

    class Producer(GenericProducer):  # type: ignore[misc]
        def produce(self, message: Any = None, **_: Any) -> None:
            produced.append(message)

    monkeypatch.chdir(ztf.parent)
    page = run(*blocks("alerce"))
    config = {
        "CONSUMER_CONFIG": {"CLASS": "apf.consumers.AVROFileConsumer", "DIRECTORY_PATH": str(ztf)},
        "PRODUCER_CONFIG": {},
    }
    page["TransientnetStep"](config=config, producer=Producer).start()
    written = io.BytesIO()
    fastavro.writer(written, fastavro.parse_schema(page["SCHEMA"]), produced, strict=True)
    assert [m["candid"] for m in produced] == [message["candid"] for message in messages]
    expected = [row["p_real"] for row in tag_packets(messages)]
    assert [m["probabilities"]["real"] for m in produced] == expected


# ----------------------------------------------------------------------------------------------- SkyPortal


@pytest.fixture
def skyportal() -> Iterator[SimpleNamespace]:
    """A server that takes annotations under the rules of SkyPortal's AnnotationPostBody, in memory."""
    pydantic = pytest.importorskip("pydantic")
    body = pydantic.create_model(
        "AnnotationPostBody",
        origin=(str, pydantic.Field(pattern=r"^\w+")),
        data=(dict[str, Any], ...),
        group_ids=(list[int] | None, None),
    )
    taken: dict[tuple[str, str], dict[str, Any]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"]))
            kind, source, what = self.path.removeprefix("/api/").split("/")
            # PostgreSQL's JSONB takes no NaN.
            sent = body(**json.loads(text, parse_constant=pytest.fail))
            good = (kind, what) == ("sources", "annotations") and (source, sent.origin) not in taken
            good &= self.headers["Authorization"] == "token secret"
            taken[source, sent.origin] = sent.data
            answer = {"status": "success" if good else "error", "data": {"annotation_id": len(taken)}}
            self.send_response(200 if good else 400)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", taken=taken)
    server.shutdown()
    server.server_close()


def test_skyportal(skyportal: SimpleNamespace, messages: list[dict[str, Any]]) -> None:
    pytest.importorskip("skyportal_py", reason="skyportal-py is not installed")
    alerts = list({message["objectId"]: message for message in messages}.values())
    run(*blocks("skyportal"), ADDRESS=skyportal.url, TOKEN="secret", alerts=alerts)
    rows = dict(zip([alert["objectId"] for alert in alerts], tag_packets(alerts), strict=True))
    assert {source for source, _ in skyportal.taken} == set(rows)
    for (source, origin), data in skyportal.taken.items():
        assert origin == f"transientnet:{rows[source]['model']}"
        assert data.get("p_real") == rows[source]["p_real"]
        assert {key for key, value in data.items() if value is True} == set(rows[source]["tags"])


# ----------------------------------------------------------------------------------------------- STDPipe


@pytest.mark.filterwarnings("ignore")
def test_stdpipe() -> None:
    pytest.importorskip("stdpipe", reason="stdpipe is not installed")
    from astropy.table import Table

    rng = np.random.default_rng(1)
    template = rng.normal(1000, 10, (256, 256))
    y, x = np.mgrid[:256, :256]
    source = 600 * np.exp(-((x - 120) ** 2 + (y - 90) ** 2) / (2 * 1.66**2))
    image = rng.normal(1000, 10, (256, 256)) + source
    mask = np.zeros(image.shape, bool)
    mask[180:240, 180:240] = True
    # A source, nothing, masked, off the chip.
    candidates = Table({"x": [120.0, 60.0, 210.0, -90.0], "y": [90.0, 200.0, 210.0, 90.0]})
    names = {"image": image, "template": template, "diff": image - template}
    page = run(*blocks("stdpipe"), candidates=candidates, **names)
    scored = page["add_real"](
        candidates, image, template, image - template, mask=mask, fwhm=3.9, pixel_scale=0.263
    )
    assert scored["real"].tolist() == [True, False, False, False]
    assert np.isnan(scored["p_real"]).tolist() == [False, False, True, True]
    assert page["good"]["x"].tolist()[:1] == [120.0]
    assert candidates.colnames == ["x", "y"]


# ----------------------------------------------------------------------------------------------- TOM Toolkit


@pytest.mark.filterwarnings("ignore")
def test_tom_toolkit(ztf: Path, tmp_path: Path) -> None:
    pytest.importorskip("tom_dataproducts", reason="tomtoolkit is not installed")
    import django
    from django.conf import settings
    from tom_base import settings as project

    logging.getLogger("tom_dataproducts").setLevel(logging.ERROR)
    defaults = {name: value for name, value in vars(project).items() if name.isupper()}
    ours = {
        "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        "MEDIA_ROOT": str(tmp_path),
        "DATA_PRODUCT_TYPES": {"stamps": ("stamps", "Stamps")},
        "DATA_PROCESSORS": {"stamps": "page_of_the_toolkit.StampProcessor"},
    }
    settings.configure(**{**defaults, **ours})
    django.setup()
    from django.core.files import File
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from tom_dataproducts.data_processor import run_data_processor
    from tom_dataproducts.models import DataProduct, ReducedDatum
    from tom_targets.models import Target

    sys.modules["page_of_the_toolkit"] = SimpleNamespace(**run(*blocks("tom")))  # type: ignore[assignment]
    target = Target.objects.create(name="ZTF", type="SIDEREAL", ra=1.0, dec=2.0)
    for path in sorted(ztf.glob("*.avro")):
        with path.open("rb") as stream:
            product = DataProduct(target=target, data_product_type="stamps", product_id=path.name)
            product.data.save(path.name, File(stream))
        run_data_processor(product)
    table = classify(ztf, workers=1)
    stored = {datum.value["candidate"]: datum for datum in ReducedDatum.objects.all()}
    assert set(stored) == set(table.ids.tolist())
    for row in table:
        assert stored[row.id].data_type == "stamps"
        assert stored[row.id].source_name == row.model
        assert stored[row.id].value["label"] == (row.label or "unusable")
        p_real = stored[row.id].value.get("p_real")
        assert p_real == (pytest.approx(row.probabilities["real"]) if row.label else None)
