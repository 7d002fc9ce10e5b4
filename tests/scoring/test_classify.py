"""Scoring many inputs: order, workers, constant memory, workers that die."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from transientnet import Predictions, QualityFlag, Triplet, classify, load_model, open_triplets
from transientnet.errors import ReadError, TransientnetWarning
from transientnet.readers.open import Reading, find_inputs, read
from transientnet.scoring.batches import batches, content_id, load, units
from transientnet.scoring.classify import score_inputs
from transientnet.scoring.engine import in_order

SIDE = 31


def stamps(n: int, seed: int = 0) -> np.ndarray:
    """Triplets of noise with a source of growing brightness at the centre."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    source = np.exp(-(x**2 + y**2) / (2 * 1.2**2))
    array = rng.normal(100.0, 5.0, (n, 3, SIDE, SIDE))
    flux = np.linspace(0, 400, n)[:, None, None]
    array[:, 0] += flux * source
    array[:, 2] += flux * source - 100
    return array.astype(np.float32)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 one-candidate files, one file of 70, and one that is no stamp at all."""
    folder = tmp_path_factory.mktemp("night")
    for i, stamp in enumerate(stamps(40)):
        np.save(folder / f"c{i:03d}.npy", stamp)
    np.save(folder / "m_many.npy", stamps(70, seed=1))
    (folder / "z_damaged.npy").write_bytes(b"\x93NUMPY\x01\x00garbage")
    return folder


def same(one: Predictions, two: Predictions) -> None:
    assert one.ids.tolist() == two.ids.tolist()
    assert one.sources.tolist() == two.sources.tolist()
    assert one.quality.tolist() == two.quality.tolist()
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    assert one.errors.keys() == two.errors.keys()


def test_workers_and_threads_and_batch_sizes_give_the_same_table(night: Path) -> None:
    alone = classify(night, workers=1)
    assert len(alone) == 111
    assert list(alone.errors) == [110]
    for options in ({}, {"workers": 2}, {"workers": 1, "batch_size": 7}, {"workers": 2, "batch_size": 1}):
        same(alone, classify(night, **options))


def test_processes_serve_a_script_without_main_guard(night: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"from transientnet import classify\nprint(len(classify({str(night)!r}, workers=2)))\n")
    root = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert run.stdout == "111\n"


def test_arrays_in_memory_on_threads(night: Path) -> None:
    array = stamps(150)
    alone = classify(array, workers=1)
    same(alone, classify(array, workers=3, batch_size=16))
    assert alone.probabilities.shape == (150, 2)


def test_generators_are_read_as_rows_are_asked_for() -> None:
    taken = 0

    def endless() -> Iterator[Triplet]:
        nonlocal taken
        for stamp in stamps(5000):
            taken += 1
            yield Triplet(*stamp, id=str(taken))

    rows = load_model("realbogus").stream(endless(), batch_size=8)
    next(rows)
    assert taken <= 16


def test_bad_candidates_are_rows_or_an_error(night: Path) -> None:
    flagged = classify(night)
    assert flagged.quality[-1] == QualityFlag.UNREADABLE
    assert flagged.labels[-1] == ""
    for workers in (1, 2):
        with pytest.raises(ReadError, match="z_damaged"):
            classify(night, on_bad="raise", workers=workers)


def test_a_file_that_goes_away_is_one_flagged_row(night: Path, tmp_path: Path) -> None:
    paths = [str(night / "c000.npy"), str(tmp_path / "gone.npy"), str(night / "c001.npy")]
    for workers in (1, 2):
        table = classify(paths, workers=workers)
        assert [bool(q & QualityFlag.UNREADABLE) for q in table.quality] == [False, True, False]


def test_errors_of_use_end_the_run_also_from_workers(night: Path, tmp_path: Path) -> None:
    bad = tmp_path / "layout.toml"
    bad.write_text("no_such_key = 1\n")
    model = load_model("realbogus")
    for workers in (1, 2):
        with pytest.raises(ValueError, match="no_such_key"):
            list(score_inputs(find_inputs(night), model, Reading(layout=str(bad)), workers=workers))


def test_order_survives_uneven_work_and_little_is_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(200):
            taken.append(i)
            yield i

    pause = threading.Event()

    def work(item: int) -> Iterator[int]:
        pause.wait(0.002 if item % 7 == 0 else 0)
        yield from range(item * 10, item * 10 + item % 4)

    results = in_order(work, items(), 4)
    first = [next(results) for _ in range(3)]
    assert len(taken) < 30
    assert first + list(results) == [n for i in range(200) for n in range(i * 10, i * 10 + i % 4)]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_comes_where_its_results_would(workers: int) -> None:
    def work(item: int) -> Iterator[int]:
        if item == 5:
            raise ZeroDivisionError
        yield item

    results = in_order(work, range(100), workers)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_leaving_early_ends_the_worker_processes(night: Path) -> None:
    before = set(_children())
    parts = score_inputs(find_inputs(night), load_model("realbogus"), Reading(), workers=2)
    next(parts)
    assert set(_children()) - before
    parts.close()
    assert not set(_children()) - before


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc: nothing says who reads what")
def test_a_killed_worker_is_replaced_and_the_stamp_that_kills_twice_is_named(
    night: Path, tmp_path: Path
) -> None:
    # So large that whoever reads it is seen at it.
    trap = tmp_path / "killer.npy"
    np.save(trap, np.random.default_rng(0).normal(100, 5, (3, 2000, 2000)).astype(np.float32))
    files = sorted(str(path) for path in night.glob("c*.npy"))
    kills, over = 0, threading.Event()

    def spring() -> None:
        nonlocal kills
        while kills < 2 and not over.is_set():
            for pid in [pid for pid in _children() if _has_open(pid, trap)]:
                os.kill(pid, signal.SIGKILL)
                kills += 1
                _wait_for_end(pid)
            over.wait(0.002)

    thread = threading.Thread(target=spring, daemon=True)
    thread.start()
    table = classify([*files[:20], str(trap), *files[20:]], workers=2)
    over.set()
    thread.join(10)
    assert kills == 2
    assert [row for row in range(41) if table.quality[row] & QualityFlag.FAILED] == [20]
    assert "killer" in table.sources[20]
    assert "twice" in table.errors[20]
    clean = classify(files, workers=1)
    np.testing.assert_array_equal(np.delete(table.probabilities, 20, axis=0), clean.probabilities)


def test_a_worker_killed_once_costs_nothing(night: Path) -> None:
    parts = score_inputs(find_inputs(night), load_model("realbogus"), Reading(), batch_size=4, workers=2)
    rows = [next(parts).predictions]
    for pid in _children():
        os.kill(pid, signal.SIGKILL)
    rows += [part.predictions for part in parts]
    same(Predictions.concatenate(rows, rows[0].classes, rows[0].model), classify(night, workers=1))


def test_three_files_of_a_candidate_stay_together_in_every_unit(tmp_path: Path) -> None:
    from astropy.io import fits

    for i, (science, reference, difference) in enumerate(stamps(6)):
        for name, data in (("sci", science), ("ref", reference), ("diff", difference)):
            fits.writeto(tmp_path / f"x{i}_{name}.fits", data)
    inputs = find_inputs(tmp_path)
    assert len(inputs) == 6
    assert [len(unit.inputs) for unit in units(inputs, 4)] == [4, 2]
    table = classify(tmp_path, workers=2)
    assert len(table) == 6
    assert not (table.quality & QualityFlag.MISSING_REFERENCE).any()


def test_marks_tell_which_rows_came_from_which_input(night: Path) -> None:
    inputs = find_inputs(night)
    found = list(batches(inputs, Reading(), 32))
    assert [len(batch.triplets) for batch in found] == [32, 32, 32, 15]
    for batch in found:
        assert sum(mark.rows for mark in batch.marks) == len(batch.triplets)
    ended = [mark.content for batch in found for mark in batch.marks if mark.ended]
    assert ended == [content_id(item) for item in inputs]


@pytest.mark.parametrize("workers", [1, 2])
def test_skipping_rows_of_the_first_input(night: Path, workers: int) -> None:
    model = load_model("realbogus")
    inputs = [str(night / "m_many.npy"), str(night / "c000.npy")]
    parts = list(score_inputs(inputs, model, Reading(), workers=workers, skips=[69]))
    whole = classify(inputs, workers=1)
    assert np.concatenate([part.predictions.ids for part in parts]).tolist() == whole.ids[69:].tolist()


def test_content_is_known_by_its_bytes_wherever_it_lies(tmp_path: Path) -> None:
    one, copy, other = tmp_path / "one.npy", tmp_path / "copy.npy", tmp_path / "other.npy"
    first, second = stamps(2)
    np.save(one, first)
    np.save(copy, first)
    np.save(other, second)
    assert content_id(str(one)) == content_id(str(copy)) != content_id(str(other))
    assert content_id("nowhere.npy") != content_id("elsewhere.npy")


@pytest.mark.parametrize("size", [10, 32 * 1024, 40_000, 2**20 + 5])
def test_content_changes_with_any_byte(tmp_path: Path, size: int) -> None:
    file = tmp_path / "x"
    whole = np.random.default_rng(0).bytes(size)
    file.write_bytes(whole)
    ids = {content_id(str(file))}
    for place in (0, size // 3, size - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        ids.add(content_id(str(file)))
    file.write_bytes(whole + b"\0")
    ids.add(content_id(str(file)))
    assert len(ids) == 5
    file.write_bytes(whole)
    assert content_id(str(file)) in ids


def test_checksums_are_the_same_with_and_without_the_fast_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("transientnet.scoring.batches")
    file = tmp_path / "x"
    file.write_bytes(np.random.default_rng(1).bytes(100_000))
    found = content_id(str(file))
    monkeypatch.setattr(module, "inflate_engine", lambda: zlib)
    assert content_id(str(file)) == found


def test_bytes_that_were_read_for_the_id_are_scored_as_the_file_is(night: Path) -> None:
    inputs = find_inputs(night)
    for item in inputs:
        once, again = (list(read(one, Reading())) for one in (item, load(item)))
        assert [t.id for t in once] == [t.id for t in again]
        for one, two in zip(once, again, strict=True):
            np.testing.assert_array_equal(one.science, two.science)
            assert (one.source, one.error) == (two.source, two.error)


def test_senseless_numbers_are_refused(night: Path) -> None:
    with pytest.raises(ValueError, match="workers"):
        classify(night, workers=0)
    with pytest.raises(ValueError, match="batch_size"):
        classify(night, batch_size=0)
    with pytest.raises(ValueError, match="on_bad"):
        classify(night, on_bad="ignore")


def test_most_candidates_with_one_trouble_are_a_warning_once(recwarn: pytest.WarningsRecorder) -> None:
    tilted = stamps(12) + 200 * np.arange(SIDE, dtype=np.float32)
    with pytest.warns(TransientnetWarning, match="12 of 12 candidates are unlike") as caught:
        classify(tilted, fwhm=4, batch_size=4)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(TransientnetWarning, match=r"seeing of \d+ of 12 .* \(fwhm= in Python\)"):
        classify(np.random.default_rng(0).normal(0, 1, (12, 3, SIDE, SIDE)))
    # Too few to say anything of the telescope.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classify(tilted[:5], fwhm=4)


def test_threshold_and_sets_are_those_of_the_command_line(night: Path) -> None:
    model = load_model("realbogus", threads=1)
    plain = classify(night, model=model)
    wanted = classify(night, model=model, threshold=0.01, sets=0.95)
    np.testing.assert_array_equal(plain.probabilities, wanted.probabilities)
    usable = plain.usable
    assert (wanted.labels[usable] == np.where(wanted["p_real"] >= 0.01, "real", "bogus")[usable]).all()
    assert set(wanted["set"][usable]) <= {"bogus", "real", "bogus|real"}
    assert wanted["set"][-1] == ""
    direct = model.predict(stamps(4), threshold=0.01, sets=0.95)
    assert direct["label"].tolist() == classify(stamps(4), threshold=0.01)["label"].tolist()
    assert direct.sets is not None
    for options in ({"threshold": 1.5}, {"sets": 0.123}):
        with pytest.raises(ValueError, match=next(iter(options))[:3]):
            classify(stamps(1), **options)
    with pytest.raises(ValueError, match="two classes"):
        classify(stamps(1), model="3class", threshold=0.5)


def test_a_classifier_takes_every_array_that_classify_takes() -> None:
    model = load_model("realbogus", threads=1)
    array = stamps(3)
    expected = classify(array).probabilities
    for same_ in (array, np.moveaxis(array, 1, -1), np.ma.masked_array(array), array.astype(">f8")):
        np.testing.assert_allclose(model.predict(same_).probabilities, expected, atol=1e-6)
        np.testing.assert_allclose(classify(same_).probabilities, expected, atol=1e-6)
    one = model.predict(array[1])
    np.testing.assert_allclose(one.probabilities[0], expected[1], atol=1e-6)
    assert len(model.predict([])) == 0
    with pytest.raises(ValueError, match="shape"):
        model.predict(np.zeros((2, 5, 31, 31)))


@pytest.mark.parametrize("workers", [1, 2])
def test_positions_come_from_the_packets_also_through_workers(shared_data: Path, workers: int) -> None:
    packets = sorted(str(p) for p in (shared_data / "packets" / "ztf").glob("*.avro"))[:6]
    table = classify(packets, workers=workers)
    assert np.isfinite(table["ra"]).all()
    assert (np.abs(table["dec"]) <= 90).all()
    assert [float(t.meta["ra"]) for t in open_triplets(packets)] == table["ra"].tolist()


def test_a_file_that_changes_between_two_runs_is_flagged_as_lost(night: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.npy"
    np.save(path, stamps(3))
    model = load_model("realbogus")
    for workers in (1, 2):
        inputs = [str(path), str(night / "c000.npy"), str(night / "c001.npy")]
        parts = list(score_inputs(inputs, model, Reading(), workers=workers, skips=[5]))
        rows = Predictions.concatenate([p.predictions for p in parts], model.classes, model.record.id)
        assert rows.ids.tolist() == ["m", "c000", "c001"]
        assert rows.quality[0] == QualityFlag.UNREADABLE
        assert "behind its first 5 candidates" in rows.errors[0]
        marks = [mark for part in parts for mark in part.marks]
        assert [mark.lost for mark in marks] == [True, False, False]


def _children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends meanwhile
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def _has_open(pid: int, path: Path) -> bool:
    try:
        if any(os.readlink(fd) == str(path) for fd in Path(f"/proc/{pid}/fd").iterdir()):
            return True
        return str(path) in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def _wait_for_end(pid: int) -> None:
    while Path(f"/proc/{pid}/fd").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX":
        threading.Event().wait(0.01)
