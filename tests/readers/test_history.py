"""Light curves out of alert packets: what scoring steps over, the label page shows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transientnet import open_triplets
from transientnet.errors import ReadError
from transientnet.readers.history import history


def alert(**lists: Any) -> dict[str, Any]:
    stamp = np.zeros((5, 5)).tolist()
    cutouts = {f"cutout{name}": stamp for name in ("Science", "Template", "Difference")}
    now = {"jd": 2460000.5, "fid": 2, "magpsf": 18.5, "sigmapsf": 0.1, "isdiffpos": "t", "diffmaglim": 20.1}
    return {"objectId": "ZTF1", "candid": 7, "candidate": now, **lists, **cutouts}


def write(folder: Path, *alerts: dict[str, Any]) -> str:
    (folder / "a.json").write_text(json.dumps(list(alerts)))
    return str(folder / "a.json")


def test_detections_limits_and_sentinels(tmp_path: Path) -> None:
    earlier = [
        {"jd": 2459998.5, "fid": 1, "magpsf": 19.0, "sigmapsf": 0.2, "isdiffpos": "f", "diffmaglim": 20.0},
        {"jd": 2459999.5, "fid": 1, "magpsf": None, "diffmaglim": 20.5, "isdiffpos": None},
        {"jd": 2459999.6, "fid": 1, "magpsf": -999.0, "diffmaglim": -99.0},
        {"fid": 1, "magpsf": 19.0},
        None,
    ]
    path = write(tmp_path, alert(), alert(prv_candidates=earlier))
    assert history(path, 0, survey="ZTF") == []
    found = history(path, 1, survey="ZTF")
    assert [(p.mjd, p.band, p.magnitude, p.limit, p.fainter, p.now) for p in found] == [
        (59998.0, "g", 19.0, None, True, False),
        (59999.0, "g", None, 20.5, False, False),
        (60000.0, "r", 18.5, None, False, True),
    ]
    assert found[-1].error == 0.1
    with pytest.raises(ReadError, match="ends before"):
        history(path, 2)


def test_forced_fluxes_become_magnitudes_or_five_sigma_limits(tmp_path: Path) -> None:
    forced = [
        {"jd": 2459990.5, "fid": 1, "forcediffimflux": 100.0, "forcediffimfluxunc": 10.0, "magzpsci": 26.0},
        {"jd": 2459991.5, "fid": 1, "forcediffimflux": 10.0, "forcediffimfluxunc": 10.0, "magzpsci": 26.0},
        {
            "jd": 2459992.5,
            "fid": 1,
            "forcediffimflux": -99999.0,
            "forcediffimfluxunc": -99999.0,
            "magzpsci": 26.0,
        },
    ]
    first, second, now = history(write(tmp_path, alert(fp_hists=forced)), 0, survey="ZTF")
    assert (first.magnitude, first.error) == (pytest.approx(21.0), pytest.approx(0.10857))
    assert first.forced
    assert (second.magnitude, second.limit) == (None, pytest.approx(26 - 2.5 * math.log10(50)))
    assert not now.forced


def test_fluxes_of_rubin_are_in_nanojansky(tmp_path: Path) -> None:
    source = {"midpointMjdTai": 60100.0, "psfFlux": 3630.78, "psfFluxErr": 100.0, "band": "i"}
    forced = {"midpointMjdTai": 60090.0, "psfFlux": -3630.78, "psfFluxErr": 100.0, "band": "r"}
    packet = alert(diaSource=source, prvDiaForcedSources=[forced])
    del packet["candidate"]
    old, now = history(write(tmp_path, packet), 0, survey="LSST")
    assert (old.band, old.fainter, old.forced) == ("r", True, True)
    assert old.magnitude == now.magnitude == pytest.approx(22.5, abs=1e-3)
    assert now.now


def test_real_packets_bring_what_scoring_steps_over(shared_data: Path) -> None:
    packets = shared_data / "packets"
    path = next((packets / "ztf").glob("20231012*15006.avro"))
    (triplet,) = open_triplets(path)
    found = history(str(path), 0, survey="ZTF")
    now = next(point for point in found if point.now)
    assert now.magnitude == pytest.approx(triplet.meta["magnitude"])
    assert now.mjd == max(point.mjd for point in found)
    assert any(point.limit for point in found)
    assert any(point.forced for point in found)
    several = str(packets / "fink" / "ztf_multi_alerts.avro")
    brightness = [triplet.meta["magnitude"] for triplet in open_triplets(several)]
    assert len(brightness) > 1
    for number, magnitude in enumerate(brightness):
        (now,) = (point for point in history(several, number, survey="ZTF") if point.now)
        assert now.magnitude == pytest.approx(magnitude)


def test_rows_of_parquet_tables(shared_data: Path) -> None:
    pytest.importorskip("pyarrow")
    path = str(shared_data / "packets" / "fink" / "ztf_alerts.parquet")
    (now,) = (point for point in history(path, 2, survey="ZTF") if point.now)
    brightness = [triplet.meta["magnitude"] for triplet in open_triplets(path)]
    assert now.magnitude == pytest.approx(brightness[2])


def test_files_without_packets_have_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", triplets=np.zeros((1, 3, 9, 9)))
    assert history(str(tmp_path / "s.npz"), 0) == []
    (tmp_path / "torn.avro").write_bytes(b"Obj\x01\x02")
    with pytest.raises(ReadError):
        history(str(tmp_path / "torn.avro"), 0)


def test_a_record_is_read_within_the_bounds_of_all_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fastavro = pytest.importorskip("fastavro")
    schema = {"type": "record", "name": "alert", "fields": [{"name": "jd", "type": "double"}]}
    with open(tmp_path / "huge.avro", "wb") as file:
        fastavro.writer(file, schema, [])
        # One record in a block of 2^50 bytes, as zigzag numbers.
        file.write(b"\x02" + b"\x80" * 7 + b"\x04")
    with pytest.raises(ReadError, match="beyond the limit"):
        history(str(tmp_path / "huge.avro"), 0)
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    count = 3_000_000
    times = pa.StructArray.from_arrays([pa.array(np.full(count, 2460000.5))], ["jd"])
    earlier = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), times)
    pq.write_table(
        pa.table({"jd": [2460001.5], "magpsf": [18.0], "prv_candidates": earlier}), tmp_path / "x.parquet"
    )
    assert (tmp_path / "x.parquet").stat().st_size < 2**18
    monkeypatch.setenv("TRANSIENTNET_MEMORY", "64")
    with pytest.raises(ReadError, match="TRANSIENTNET_MEMORY"):
        history(str(tmp_path / "x.parquet"), 0)
