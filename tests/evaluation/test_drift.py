"""A night like the others passes; a shifted one does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from transientnet import InputContract, Predictions, QualityFlag, Triplet
from transientnet.cli import app
from transientnet.errors import EmptyInputError, ReadError
from transientnet.evaluation.drift import LIMIT, compare_flags, compare_inputs, compare_scores, read_scores
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


def test_a_night_like_the_others_is_calm(tmp_path: Path, reference: dict) -> None:
    drifts = compare_scores(read(tmp_path, night(800, 4)), reference)
    assert [drift.name for drift in drifts] == ["p_bogus", "p_real"]
    assert all(drift.psi < 0.1 and drift.p > 1e-3 for drift in drifts)


def test_a_night_with_other_scores_is_past_the_limit(tmp_path: Path, reference: dict) -> None:
    drifts = compare_scores(read(tmp_path, night(800, 4, power=4.0)), reference)
    assert all(drift.psi > LIMIT and drift.p < 1e-6 for drift in drifts)


def test_a_detector_that_loses_rows_shows_in_the_flags(tmp_path: Path) -> None:
    good, bad = read(tmp_path, night(500, 5)), read(tmp_path, night(500, 6, masked=0.7))
    assert all(drift.psi < LIMIT for drift in compare_flags(good, good))
    assert {drift.name: drift.psi > LIMIT for drift in compare_flags(bad, good)}["masked"]


def test_a_gradient_on_the_chip_shows_in_the_stamps(reference: dict) -> None:
    contract = InputContract()
    calm = compare_inputs(stamps(300, 7), contract, reference)
    assert max(drift.psi for drift in calm) < LIMIT
    tilted = {drift.name: drift.psi for drift in compare_inputs(stamps(300, 8, 0.5), contract, reference)}
    assert tilted["smoothness_science"] > LIMIT


def test_the_command_s_status_says_whether_the_survey_drifted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, like, other = (str(tmp_path / f"{name}.csv") for name in ("good", "like", "other"))
    night(800, 1).write(good)
    night(800, 2).write(like)
    night(800, 3, power=4.0).write(other)
    assert run(["monitor", like, "--reference", good]) == 0
    table = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert table[0] == ["quantity", "n", "psi", "ks", "p", "shifted"]
    assert {row[-1] for row in table[1:]} == {"no"}
    assert run(["monitor", other, "--reference", good]) == 1
    said = capsys.readouterr()
    assert {row.split("\t")[0] for row in said.out.splitlines() if row.endswith("yes")} == {
        "p_bogus",
        "p_real",
    }
    assert "past the limit of 0.2: p_bogus, p_real" in said.err
    assert run(["monitor", other, "--reference", good, "--limit", "50"]) == 0
    # Without another night the model's own reference serves.
    assert run(["monitor", other]) == 1


def test_equal_scores_do_not_break_the_bins(tmp_path: Path) -> None:
    same = night(100, 9)
    same.probabilities[1:] = (0.0, 1.0)
    table = read(tmp_path, same)
    assert all(drift.psi == pytest.approx(0, abs=1e-6) for drift in compare_scores(table, table))


def test_what_is_no_score_table_is_refused(tmp_path: Path) -> None:
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
