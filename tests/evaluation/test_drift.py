"""A night like the others passes; a shifted one does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from transientnet import InputContract, Predictions, QualityFlag, Triplet
from transientnet.cli import app
from transientnet.errors import EmptyInputError, ReadError
from transientnet.evaluation.drift import (
    LIMIT,
    ScoreTable,
    compare_flags,
    compare_inputs,
    compare_scores,
    read_scores,
    verdicts,
)
from transientnet.models.outliers import fit_reference
from transientnet.prepare.preprocess import preprocess

CLASSES = ("bogus", "real")


def night(n: int, seed: int, *, power: float = 1.0, masked: float = 0.1) -> Predictions:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.4, 0.4, n) ** power
    flags = np.where(rng.random(n) < masked, int(QualityFlag.MASKED), 0).astype(np.uint16)
    probabilities = np.stack([1 - p, p], 1).astype(np.float32)
    probabilities[0], flags[0] = np.nan, QualityFlag.UNREADABLE
    names = np.array([f"c{i}" for i in range(n)])
    return Predictions(names, CLASSES, probabilities, flags, "realbogus@0.1.0", names, {})


def stamps(n: int, seed: int, gradient: float = 0.0) -> list[Triplet]:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n, 3, 63, 63)) + gradient * np.arange(63)
    images[:, ::2, 29:34, 29:34] += rng.uniform(10, 200, (n, 1, 1, 1))
    return [Triplet(*image, fwhm=2.5) for image in images]


@pytest.fixture(scope="module")
def reference() -> dict:
    prepared = preprocess(stamps(400, 0), InputContract())
    p = np.nan_to_num(night(400, 1).probabilities, nan=0.5)
    return fit_reference(prepared.tensor, p, prepared.quality, CLASSES)


@pytest.mark.parametrize("ending", ["csv", "ecsv", "jsonl", "parquet"])
def test_every_score_table_is_read_back(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    written = night(50, 3)
    written.write(tmp_path / f"n.{ending}")
    table = read_scores(tmp_path / f"n.{ending}")
    assert table.classes == CLASSES
    assert table.model == "realbogus@0.1.0"
    assert np.allclose(table.probabilities, written.probabilities, atol=1e-6, equal_nan=True)
    assert (table.quality == written.quality).all()


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        app(arguments)
    return int(ended.value.code or 0)


def read(tmp_path: Path, predictions: Predictions):
    predictions.write(tmp_path / "n.csv")
    return read_scores(tmp_path / "n.csv")


def drawn(rng: np.random.Generator, n: int, *, power: float = 1.0, classes: int = 2) -> ScoreTable:
    """A night from a model that is often sure, rounded as a table is, with a few flags."""
    p = rng.beta(0.3, 0.3, n) ** power
    probabilities = np.stack([1 - p, p], 1) if classes == 2 else rng.dirichlet([0.3] * classes, n)
    flags = (
        np.where(rng.random(n) < 0.1, int(QualityFlag.MASKED), 0)
        | np.where(rng.random(n) < 0.3, int(QualityFlag.PADDED), 0)
        | np.where(rng.random(n) < 0.01, int(QualityFlag.OUT_OF_DISTRIBUTION), 0)
    )
    names = ("bogus", "real", "hosted", "orphan")[:classes]
    return ScoreTable(names, np.round(probabilities, 3), flags.astype(np.uint16), "m")


def judged(night: ScoreTable, good: ScoreTable) -> list[str]:
    # No least size of a shift: the tests alone must keep the promise.
    return verdicts(compare_scores(night, good) + compare_flags(night, good), 0.0)


@pytest.mark.parametrize("n", [10, 20, 50, 200, 1000])
@pytest.mark.parametrize(("classes", "n_reference"), [(2, 400), (4, 3000)])
def test_of_nights_like_the_reference_at_most_one_in_twenty_alarms(
    n: int, classes: int, n_reference: int
) -> None:
    rng = np.random.default_rng(n + classes)
    draws = 400
    alarms = sum(
        "yes" in judged(drawn(rng, n, classes=classes), drawn(rng, n_reference, classes=classes))
        for _ in range(draws)
    )
    # Of 400 draws at 5 %, 33 or fewer in 998 of 1000.
    assert alarms <= 33


@pytest.mark.parametrize(("n", "least"), [(200, 0.95), (1000, 1.0)])
def test_a_real_shift_is_found(n: int, least: float) -> None:
    rng = np.random.default_rng(n)
    found = [
        "yes"
        in verdicts(
            compare_scores(night := drawn(rng, n, power=3.0), good := drawn(rng, 1000))
            + compare_flags(night, good)
        )
        for _ in range(60)
    ]
    assert np.mean(found) >= least


def test_too_few_candidates_are_said_to_be_too_few() -> None:
    rng = np.random.default_rng(0)
    good = drawn(rng, 1000)
    assert judged(drawn(rng, 5), good)[0] == "too few"
    assert "too few" not in judged(drawn(rng, 60), good)
    # What is beyond all doubt is said even so.
    far = drawn(rng, 8)
    far.quality[:] = QualityFlag.UNREADABLE
    assert "yes" in judged(far, good)


def test_a_night_with_other_scores_is_past_the_limit(tmp_path: Path, reference: dict) -> None:
    (drift,) = compare_scores(read(tmp_path, night(800, 4, power=4.0)), reference)
    assert drift.name == "p_real"
    assert drift.psi > LIMIT
    assert drift.p < 1e-4
    (calm,) = compare_scores(read(tmp_path, night(800, 4)), reference)
    assert calm.psi < 0.1
    assert calm.p > 1e-3


def test_a_detector_that_loses_rows_shows_in_the_flags(tmp_path: Path) -> None:
    good, bad = read(tmp_path, night(500, 5)), read(tmp_path, night(500, 6, masked=0.7))
    assert set(verdicts(compare_flags(good, good))) == {"no"}
    drifts = compare_flags(bad, good)
    assert dict(zip([d.name for d in drifts], verdicts(drifts), strict=True))["masked"] == "yes"


def test_a_gradient_on_the_chip_shows_in_the_stamps(reference: dict) -> None:
    contract = InputContract()
    assert set(verdicts(compare_inputs(stamps(300, 7), contract, reference))) == {"no"}
    tilted = compare_inputs(stamps(300, 8, 0.5), contract, reference)
    shifted = dict(zip([d.name for d in tilted], verdicts(tilted), strict=True))
    assert shifted["smoothness_science"] == "yes"


def test_the_command_s_status_says_whether_the_survey_drifted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, like, other, few = (str(tmp_path / f"{name}.csv") for name in ("good", "like", "other", "few"))
    night(800, 1).write(good)
    night(800, 2).write(like)
    night(800, 3, power=4.0).write(other)
    night(7, 4)[1:].write(few)
    assert run(["monitor", like, "--reference", good]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[0] == ["quantity", "n", "psi", "ks", "p", "shifted"]
    assert {row[-1] for row in table[1:]} == {"no"}
    assert run(["monitor", other, "--reference", good]) == 1
    said = capsys.readouterr()
    assert {row.split()[0] for row in said.out.splitlines() if row.endswith("yes")} == {"p_real"}
    assert "shifted: p_real" in said.err
    assert run(["monitor", other, "--reference", good, "--limit", "50"]) == 0
    capsys.readouterr()
    assert run(["monitor", few, "--reference", good]) == 0
    assert "6 candidates are too few" in capsys.readouterr().err
    # Without another night the model's own reference serves.
    assert run(["monitor", other]) == 1


def test_a_night_without_a_score_is_compared_by_its_flags(tmp_path: Path) -> None:
    dead = night(40, 1)
    dead.probabilities[:] = np.nan
    dead.quality[:] = QualityFlag.UNREADABLE
    good = read(tmp_path, night(500, 5))
    table = read(tmp_path, dead)
    drifts = compare_scores(table, good) + compare_flags(table, good)
    assert dict(zip([d.name for d in drifts], verdicts(drifts), strict=True))["unreadable"] == "yes"
    with pytest.raises(EmptyInputError, match="no candidate with probabilities"):
        compare_scores(good, table)


def test_equal_scores_do_not_break_the_bins(tmp_path: Path) -> None:
    same = night(100, 9)
    same.probabilities[1:] = (0.0, 1.0)
    table = read(tmp_path, same)
    assert all(drift.psi == pytest.approx(0, abs=1e-6) for drift in compare_scores(table, table))


def test_other_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,label\n1,real\n")
    with pytest.raises(ReadError, match="p_<class>"):
        read_scores(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("id,p_a,p_b,quality,model\n")
    with pytest.raises(EmptyInputError, match="no candidate"):
        read_scores(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("id,p_a,p_b,quality,model\n1,x,0.2,0,m\n")
    with pytest.raises(ReadError, match="not a number"):
        read_scores(tmp_path / "c.csv")
    with pytest.raises(ReadError):
        read_scores(tmp_path / "absent.csv")
