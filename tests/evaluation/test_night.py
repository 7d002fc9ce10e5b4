"""The figures a night is planned by, against counting by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from transientnet.cli import app
from transientnet.errors import UsageError
from transientnet.evaluation.night import Night, nightly


def ranked(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    return np.clip(0.35 * positive + rng.normal(0.3, 0.2, n), 0, 1), positive


def test_figures_of_the_labelled_night_are_counts() -> None:
    scores, positive = ranked()
    best_first = positive[np.argsort(-scores)]
    found = nightly(scores, positive, resamples=50)
    for row in found["recall_at_rank"]:
        assert row["value"] == pytest.approx(best_first[: row["rank"]].sum() / positive.sum())
        assert row["low"] <= row["value"] <= row["high"]
    wanted = np.flatnonzero(np.cumsum(best_first) >= 0.95 * positive.sum())[0] + 1
    assert found["to_look_at"]["value"] == pytest.approx(wanted, abs=1)
    budget = found["precision_at_budget"]
    assert budget["budget"] == 40
    assert budget["value"] == pytest.approx(best_first[:40].mean())


def test_a_night_with_more_bogus_holds_more_of_it_and_is_less_pure() -> None:
    scores, positive = ranked()
    small = nightly(scores, positive, Night(1000, 0.7, 50), resamples=20)
    large = nightly(scores, positive, Night(1000, 0.99, 50), resamples=20)
    # Beside 95 % of the 300, and of the 10, reals:
    assert large["to_look_at"]["value"] - 9.5 > small["to_look_at"]["value"] - 285
    assert large["precision_at_budget"]["value"] < small["precision_at_budget"]["value"]
    # Ten reals among a thousand: at most ten of fifty.
    assert large["precision_at_budget"]["value"] <= 0.2
    # What is stated of a night is what a drawn night shows.
    rng = np.random.default_rng(1)
    real, bogus = scores[positive], scores[~positive]
    shares = []
    for _ in range(300):
        drawn = np.concatenate([rng.choice(real, 300), rng.choice(bogus, 700)])
        first = np.argsort(-drawn, kind="stable")[:50]
        shares.append((first < 300).mean())
    assert small["precision_at_budget"]["value"] == pytest.approx(np.mean(shares), abs=0.03)


def test_equal_scores_stand_in_random_order() -> None:
    positive = np.arange(100) < 25
    found = nightly(np.full(100, 0.5), positive, Night(budget=20), resamples=10)
    assert found["recall_at_rank"][0]["value"] == pytest.approx(0.1)
    assert found["to_look_at"]["value"] == 95
    assert found["precision_at_budget"]["value"] == pytest.approx(0.25)


def test_intervals_resample_whole_objects() -> None:
    scores, positive = ranked(60)
    one_each = nightly(np.repeat(scores, 10), np.repeat(positive, 10), resamples=200)
    whole = nightly(
        np.repeat(scores, 10), np.repeat(positive, 10), groups=np.repeat(np.arange(60), 10), resamples=200
    )

    def width(found: dict) -> float:
        figure = found["precision_at_budget"]
        return figure["high"] - figure["low"]

    assert width(whole) > 1.5 * width(one_each)


@pytest.mark.parametrize(
    "night", [Night(others=1.0), Night(others=-0.1), Night(budget=0), Night(10, 0.5, 11)]
)
def test_a_night_that_cannot_be_is_refused(night: Night) -> None:
    with pytest.raises(UsageError, match="night"):
        nightly(*ranked(), night, resamples=2)


def test_the_command_prints_names_intervals_and_the_night(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    y, x = np.indices((63, 63)) - 31
    rows = ["file,label,group"]
    for row in range(40):
        flux = 60 * np.exp(-(x**2 + y**2) / 3) if row % 2 else 0
        sky = rng.normal(100, 3, (2, 63, 63))
        np.save(tmp_path / f"{row}.npy", np.stack([sky[0] + flux, sky[1], sky[0] + flux - sky[1]]))
        rows.append(f"{row}.npy,{'real' if row % 2 else 'bogus'},{row // 2}")
    (tmp_path / "my.csv").write_text("\n".join(rows) + "\n")
    arguments = ["evaluate", "--labels", str(tmp_path / "my.csv"), "--cutouts", str(tmp_path)]
    arguments += ["-o", str(tmp_path / "r"), "--night", "500", "--bogus-share", "0.9", "--budget", "30"]
    with pytest.raises(SystemExit) as ended:
        app(arguments)
    assert not ended.value.code
    lines = capsys.readouterr().out.splitlines()
    assert "20 bogus, 20 real; 20 sky objects; 0 not scored" in lines[0]
    assert lines[1].split() == ["figure", "value", "95", "%", "interval", "n"]
    area = next(line for line in lines if line.startswith("Area under the ROC curve"))
    assert area.split()[-1] == "40"
    figures = json.loads((tmp_path / "r" / "metrics.json").read_text())
    (model,) = figures["models"].values()
    night = model["curves"]["real"]["night"]
    assert (night["candidates"], night["others"], night["precision_at_budget"]["budget"]) == (500, 0.9, 30)
    told = [line for line in lines if line.startswith("Candidates to look at for 95 % of real")]
    assert told[0].split()[9] == f"{night['to_look_at']['value']:.0f}"
    page = (tmp_path / "r" / "report.html").read_text()
    for said in ("A night of 500 candidates, 90 % of them not real", "Share of real in the first 30"):
        assert said in page
        assert len([line for line in lines if line.startswith("Share of real in the first 30")]) == 1
