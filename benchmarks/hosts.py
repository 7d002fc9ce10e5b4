"""Rates of the code on the pages about brokers and pipelines, in alerts per second of one core's time.

``python benchmarks/hosts.py [tags|packets|spark|lsdb|kafka|stdpipe]...``: CPU time of this process and its
children is counted, so that other work on the machine matters little. Needs ``../shared/data``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
ROWS = 1050
warnings.simplefilter("ignore")
sys.path.insert(0, str(ROOT / "tests"))


def blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8")
    return [part.split("```\n")[0] for part in text.split("```python\n")[1:]]


def run(*code: str, **names: Any) -> dict[str, Any]:
    space = {"__name__": "__main__", **names}
    for each in code:
        exec(each, space)
    return space


def cpu() -> float:
    import psutil

    own = psutil.Process()
    return sum(sum(each.cpu_times()[:2]) for each in (own, *own.children(recursive=True)))


def report(name: str, work: Callable[[], int]) -> None:
    work()  # models are loaded, workers started
    begun = cpu()
    done = work()
    print(f"{name}: {done / (cpu() - begun):,.0f} alerts per second and core ({done} alerts)", flush=True)


def rows(name: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    found = pq.read_table(DATA / "packets" / name).to_pylist()
    return (found * (ROWS // len(found) + 1))[:ROWS]


def packets() -> None:
    from transientnet.scoring.cluster import score_packets
    from transientnet.scoring.tags import tag_packets

    for survey, name in (("ZTF", "fink/ztf_alerts.parquet"), ("Rubin", "rubin/fink_rubin_sample.parquet")):
        alerts = rows(name)
        report(f"{survey}, score_packets", lambda a=alerts: len(score_packets(a)))
        report(f"{survey}, tag_packets", lambda a=alerts: len(tag_packets(a)))
        report(f"{survey}, tag_packets one by one", lambda a=alerts: sum(len(tag_packets([x])) for x in a))


def spark() -> None:
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    options = {"spark.ui.enabled": "false", "spark.sql.legacy.parquet.nanosAsLong": "true"}
    session = SparkSession.builder.master("local[1]").config(map=options).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    tables = {"ztf": "fink/ztf_alerts.parquet", "rubin": "rubin/fink_rubin_sample.parquet"}
    frames = {
        name: session.read.parquet(*[str(DATA / "packets" / path)] * 30).coalesce(1)
        for name, path in tables.items()
    }
    page = run(*blocks("fink"), spark=session, **frames)
    for name in tables:
        report(f"Spark, Fink's pandas_udf, {name}", lambda n=name: len(page[n].select("vetted").collect()))
    scores = run(blocks("cluster")[-2], alerts=frames["ztf"])["scores"]
    report("Spark, mapInArrow, ztf", lambda: len(scores.select("p_real").collect()))
    session.stop()


def lsdb() -> None:
    import dask
    import lsdb
    import pandas as pd

    alerts = [
        {name: row["candidate"][name] for name in ("ra", "dec", "candid", "xpos", "ypos")}
        | {"objectId": row["objectId"]}
        | {name: row[name]["stampData"] for name in row if name.startswith("cutout")}
        for row in rows("fink/ztf_alerts.parquet")
    ]
    catalog = lsdb.from_dataframe(pd.DataFrame(alerts), ra_column="ra", dec_column="dec", lowest_order=3)
    with dask.config.set(scheduler="synchronous"), tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        scored = run(*blocks("lsdb"), catalog=catalog)["scored"]
        report("LSDB, map_partitions", lambda: len(scored.compute()))


def kafka() -> None:
    from kafka_broker import Broker

    from transientnet import load_model
    from transientnet.scoring.kafka import appender, consume

    files = sorted((DATA / "packets" / "ztf").glob("*.avro"))
    messages = [path.read_bytes() for path in files] * (ROWS // len(files) + 1)
    model = load_model("realbogus", threads=1)
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder))
        broker.topic("alerts", 1)
        broker.send("alerts", {0: messages})
        turn = iter(range(9))

        def work() -> int:
            settings = {"bootstrap.servers": broker.address, "group.id": f"g{next(turn)}"}
            with appender(Path(folder) / "scores.csv") as write:
                return consume(settings, ["alerts"], model, write, most=ROWS).rows

        report("Kafka, whole ZTF packets, the broker's share included", work)
        broker.close()


def stdpipe() -> None:
    from astropy.io import fits
    from astropy.table import Table

    frames = [fits.getdata(DATA / "packets" / "frames_decam" / f"{name}.fits").astype(float)
              for name in ("science", "reference", "difference")]  # fmt: skip
    rng = np.random.default_rng(0)
    candidates = Table({"x": rng.uniform(0, 256, ROWS), "y": rng.uniform(0, 256, ROWS)})
    names = dict(zip(("image", "template", "diff"), frames, strict=True))
    page = run(*blocks("stdpipe"), candidates=candidates[:2], **names)
    report(
        "STDPipe, add_real", lambda: len(page["add_real"](candidates, *frames, fwhm=3.9, pixel_scale=0.263))
    )


def tags() -> None:
    """How the tags agree with the PS1 catalogue and with what was seen by eye, on ZTF."""
    from astropy.table import Table

    from transientnet import Triplet, load_model
    from transientnet.scoring.tags import tag

    stamps = np.load(DATA / "ztf" / "stamps.npz")["triplets"]
    labels = Table.read(DATA / "ztf" / "labels.csv", format="ascii.csv", fill_values=[("", "0")])
    triplets = [Triplet(*each, pixel_scale=1.01, fwhm=2.0) for each in stamps]
    _, found = tag(triplets, load_model("realbogus"), load_model("3class"))
    has = {name: np.array([name in each for each in found]) for name in ("on_point_source", "bright_star")}
    score, distance = (np.ma.filled(labels[n].astype(float), np.nan) for n in ("sgscore1", "distpsnr1"))
    star = (score >= 0.5) & (distance >= 0) & (distance < 1.5)
    vetted = np.array([str(each) for each in labels["vetted"].filled("")])
    kind = np.array([str(each) for each in labels["vetted_morphology"].filled("")])
    point, bright = has["on_point_source"], has["bright_star"]
    print(f"PS1 star within 1.5 arcsec: {star.sum()}, tagged on_point_source {(star & point).sum()}")
    print(f"  of these bogus by eye: {(star & (vetted == 'bogus')).sum()}, "
          f"tagged {(star & point & (vetted == 'bogus')).sum()}")  # fmt: skip
    for name in ("variable", "hosted", "orphan"):
        print(f"{name} by eye: {(kind == name).sum()}, tagged {(point & (kind == name)).sum()}")
    sure = (vetted == "bogus") | (vetted == "real")
    for words, where in (("bright_star", bright), ("on_point_source, not bright_star", point & ~bright),
                         ("neither", ~point)):  # fmt: skip
        n = (where & sure).sum()
        print(f"{words}: {n} seen by eye, bogus {(where & (vetted == 'bogus')).sum() / n:.0%}")


if __name__ == "__main__":
    asked = sys.argv[1:] or ["tags", "packets", "spark", "lsdb", "kafka", "stdpipe"]
    for each in asked:
        globals()[each]()
