"""Scoring on a cluster gives the table of one machine, also when a worker is killed."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from transientnet import Predictions, QualityFlag, classify

pytest.importorskip("pyarrow")
import pyarrow as pa

from transientnet.scoring.cluster import score_arrow, score_arrow_batches

SIDE = 31


def records(n: int, seed: int = 0) -> list[dict[str, object]]:
    """Broker-like records with FITS cutouts."""
    from astropy.io import fits

    rng = np.random.default_rng(seed)
    found = []
    for i in range(n):
        record: dict[str, object] = {"candid": 10**15 + i, "objectId": f"SIM{i}", "fwhm_px": 2.5}
        for name in ("cutoutScience", "cutoutTemplate", "cutoutDifference"):
            buffer = io.BytesIO()
            fits.PrimaryHDU(rng.normal(100, 5, (SIDE, SIDE)).astype(np.float32)).writeto(buffer)
            record[name] = buffer.getvalue()
        found.append(record)
    return found


def batch(rows: list[dict[str, object]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows)


def same(frame: object, table: Predictions) -> None:
    columns = table.columns()
    for name, values in columns.items():
        got = np.asarray(frame[name])  # type: ignore[index]
        if values.dtype.kind == "f":
            np.testing.assert_array_equal(got.astype(np.float32), values)
        else:
            assert got.tolist() == values.tolist(), name


def test_arrow_batches_give_the_score_table_in_any_cut() -> None:
    rows = records(7)
    whole = score_arrow(batch(rows))
    assert whole.schema.names == ["id", "source", "label", "p_bogus", "p_real", "quality", "model"]
    assert whole.column("id").to_pylist() == [str(row["candid"]) for row in rows]
    cut = list(score_arrow_batches([batch(rows[:2]), batch(rows)[:0], batch(rows[2:])]))
    assert [part.num_rows for part in cut] == [2, 0, 5]
    assert pa.Table.from_batches(cut).to_pylist() == whole.to_pylist()


def test_a_damaged_cutout_is_a_flagged_row() -> None:
    rows = records(3)
    rows[1]["cutoutScience"] = b"not a stamp"
    quality = score_arrow(batch(rows)).column("quality").to_pylist()
    assert [bool(q & QualityFlag.UNREADABLE) for q in quality] == [False, True, False]


def test_whole_packets_in_one_binary_column(shared_data: Path) -> None:
    files = sorted((shared_data / "packets" / "ztf").glob("*.avro"))[:5]
    packets = pa.RecordBatch.from_pydict({"value": [file.read_bytes() for file in files]})
    scored = score_arrow(packets)
    table = classify([str(file) for file in files])
    assert scored.column("id").to_pylist() == table.ids.tolist()
    np.testing.assert_array_equal(scored.column("p_real").to_numpy(), table.probabilities[:, 1])


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("partitions")
    for i in range(6):
        rows = records(20, seed=i)
        table = pa.Table.from_pylist(rows)
        pq.write_table(table[:0] if i == 2 else table, folder / f"part-{i}.parquet")
    return folder


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_that_loses_a_worker_gives_the_table_of_one_machine(night: Path) -> None:
    distributed = pytest.importorskip("distributed")
    import dask.bag
    import dask.dataframe as dd

    from transientnet.readers.open import Reading, find_inputs
    from transientnet.scoring.cluster import score_dask, score_on_cluster

    alone = classify(night, workers=1)
    assert len(alone) == 100
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        lazy = score_dask(night, client=client)
        assert list(lazy.columns) == list(alone.columns())
        running = client.compute(lazy)
        time.sleep(0.3)
        victim = next(iter(client.run(os.getpid).values()))
        os.kill(victim, signal.SIGKILL)
        same(running.result(timeout=60), alone)

        parts = list(score_on_cluster(find_inputs(night), client, "realbogus", Reading()))
        joined = Predictions.concatenate([p.predictions for p in parts], alone.classes, alone.model)
        assert joined.ids.tolist() == alone.ids.tolist()

        frame = dd.read_parquet(night)
        scored = score_dask(frame).compute()
        assert scored["id"].tolist() == alone.ids.tolist()
        bag = dask.bag.from_sequence(records(5), npartitions=2)
        assert score_dask(bag).compute()["id"].tolist() == [str(row["candid"]) for row in records(5)]
