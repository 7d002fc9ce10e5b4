"""The labelling page: what reaches the disk, and who may ask."""

from __future__ import annotations

import asyncio
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_requests import TOKEN, body

from transientnet.errors import EmptyInputError, LabelError, ReadError, UsageError
from transientnet.label_page.candidates import Candidates
from transientnet.label_page.curve import learning_curve
from transientnet.label_page.head import Start, folds_of, refit, start_of
from transientnet.label_page.journal import Agreement, Answer, Journal
from transientnet.label_page.queue import RANDOM, most_teaching, teaching_order
from transientnet.label_page.session import Session, class_keys
from transientnet.label_page.training import Training

ROW = {"files": {"path": "s.npz"}, "id": "7", "group": "", "pixel_scale": None, "fwhm": None}


def rows(table: Path) -> list[dict[str, str]]:
    with open(table, newline="") as stream:
        return list(csv.DictReader(stream))


def test_an_answer_is_on_disk_at_once_and_survives_a_torn_line(folder: Path) -> None:
    journal = Journal(folder / "a.csv")
    journal.record("ana", [("s.npz\n7", Answer("label", "real", "", "t1", "random", False, ROW))])
    saved = journal.path.read_bytes()
    journal.close()
    journal.table.unlink()  # as a killed process leaves it: the table was never written
    journal.path.write_bytes(saved + b'{"event": "answer", "labe')
    again = Journal(folder / "a.csv")
    assert again.labels() == {"s.npz\n7": "real"}
    again.record(
        "ana", [("s.npz\n8", Answer("unsure", "", "odd", "t2", "uncertain", True, ROW | {"id": "8"}))]
    )
    again.close()
    assert [(r["id"], r["label"], r["chosen"], r["model_seen"]) for r in rows(folder / "a.csv")] == [
        ("7", "real", "random", "no"),
        ("8", "", "uncertain", "yes"),
    ]


def test_a_damaged_journal_or_a_foreign_table_is_not_overwritten(folder: Path) -> None:
    (folder / "own.csv").write_text("path,label\nx,real\n")
    with pytest.raises(LabelError, match="made otherwise"):
        Journal(folder / "own.csv")
    (folder / "b.journal.jsonl").write_text("not json\n")
    with pytest.raises(ReadError, match="line 1"):
        Journal(folder / "b.csv")


def test_one_journal_has_one_writer(folder: Path) -> None:
    journal = Journal(folder / "a.csv")
    with pytest.raises(LabelError, match="another"):
        Journal(folder / "a.csv")
    journal.close()


def test_two_labellers_who_disagree_leave_the_label_empty(session: Session) -> None:
    row = session.order[0]
    session.answer("ana", [(row, "label", "real", "")])
    session.answer("bob", [(row, "label", "bogus", "a ghost")])
    session.journal.write_table()
    (written,) = rows(session.journal.table)
    assert written["label"] == ""
    assert written["answers"] == "ana: real; bob: bogus"
    assert written["note"] == "a ghost"
    assert session.disputed() == [row]
    assert session.undo("bob") == row
    assert session.journal.labels() == {session.candidates.items[row].key: "real"}


def test_kappa_of_a_worked_example() -> None:
    # Cohen's usual example: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no gives 0.40, and by the formula of
    # Fleiss, Cohen & Everitt a standard error of 0.128.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    found = Agreement.of(("ana", "bob"), pairs)
    assert found.kappa == pytest.approx(0.4)
    assert found.low == pytest.approx(0.4 - 1.96 * 0.128, abs=0.01)
    assert found.high == pytest.approx(0.4 + 1.96 * 0.128, abs=0.01)
    assert Agreement.of(("a", "b"), [("y", "y")]).kappa is None
    few, many = (Agreement.of(("a", "b"), [("y", "y"), ("n", "n")] * n) for n in (2, 200))
    assert few.kappa == many.kappa == 1
    assert few.low is not None
    assert many.low is not None
    assert few.low < 0.5 < 0.9 < many.low


def test_somebody_settles_a_dispute(session: Session) -> None:
    row = session.order[0]
    session.answer("ana", [(row, "label", "real", "")])
    session.answer("bob", [(row, "label", "bogus", "a ghost")])
    assert session.given(row) == [["ana", "real", ""], ["bob", "bogus", "a ghost"]]
    session.answer("cleo", [(row, "label", "bogus", "")])
    assert session.disputed() == []
    assert session.journal.labels() == {session.candidates.items[row].key: "bogus"}
    session.journal.close()
    again = Journal(session.journal.table)
    assert list(again.labels().values()) == ["bogus"]
    again.close()


def test_the_opinion_comes_after_the_answer(client: Any, session: Session) -> None:
    asked = {"labeller": "ana", "row": session.order[0]}
    assert client("POST", f"/{TOKEN}/api/opinion", json=asked).status_code == 400
    client("POST", f"/{TOKEN}/api/answers", json=body(row=session.order[0]))
    assert client("POST", f"/{TOKEN}/api/opinion", json=asked).json()["model"].startswith("realbogus@")


def test_hidden_repeats_measure_self_agreement_and_change_no_label(session: Session) -> None:
    for k in range(25):
        session.answer("ana", [(next(session.queue("ana")), "label", "real" if k % 2 else "bogus", "")])
    labels = session.journal.labels()
    row = session.again("ana")
    assert row is not None
    assert row in session.upcoming("ana")[:3]
    before = labels[session.candidates.items[row].key]
    session.answer("ana", [(row, "label", before, "")])
    assert session.journal.labels() == labels
    assert session.again("ana") is None
    (own,) = session.journal.agreements()
    assert (own.labellers, own.n, own.same) == (("ana", "ana"), 1, 1)
    session.journal.close()
    again = Journal(session.journal.table)
    assert again.repeats["ana"] == [(before, before)]
    again.close()


def test_random_ones_are_asked_of_everybody_and_others_of_one(session: Session) -> None:
    for _ in range(12):
        row = session.upcoming("ana")[0]
        session.answer("ana", [(row, "label", "real", "")])
    done = {session.candidates.index[key] for key in session.journal.answers["ana"]}
    at = session.upcoming("ana")[0]
    for_bob = list(session.queue("bob"))
    assert {row for row in done if session.chosen[row] == RANDOM} <= set(for_bob)
    assert not {row for row in done if session.chosen[row] != RANDOM} & set(for_bob)
    assert session.chosen[at] == RANDOM or at not in for_bob


def test_skipped_candidates_come_again_at_the_end(session: Session) -> None:
    first = session.upcoming("ana")[0]
    session.answer("ana", [(first, "skip", "", "")])
    assert session.upcoming("ana")[0] != first
    assert list(session.queue("ana"))[-1] == first


def test_what_stands_for_many_comes_before_what_stands_for_itself(session: Session) -> None:
    """Equally uncertain: ten candidates of one kind and a freak; then, the kind being known, the freak."""
    rng = np.random.default_rng(0)
    p = np.full((30, 2), [0.99, 0.01], np.float32)
    p[:11] = 0.5
    features = rng.normal(0, 0.01, (30, 4)).astype(np.float32)
    features[:10, 0] += 3
    features[10, 1] += 3
    start = start_of(features, p, ("bogus", "real"), ("bogus", "real"))
    order = most_teaching(start, p, np.arange(30), [])
    assert sorted(order) == list(range(30))
    assert order[0] < 10
    assert order.index(10) < 4
    assert set(order[:13]) >= set(range(11))


def test_the_random_share_does_not_depend_on_the_company(session: Session) -> None:
    items, order = session.candidates.items, session.order
    assert sorted(order) == list(range(30))
    random = [row for row in order if session.chosen[row] == RANDOM]
    start = Start(session.start.design[:20], session.start.offset[:20])
    fewer = teaching_order(items[:20], session.chosen[:20], start, session.judgement.probabilities[:20], 0.2)
    assert [row for row in random if row < 20] == [row for row in fewer if session.chosen[row] == RANDOM]


def survey(n: int, seed: int = 0) -> tuple[Start, np.ndarray, np.ndarray]:
    """Candidates whose second feature the model overlooks, and whose threshold it misplaces; their truth."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 8))
    y = (2 * features[:, 0] + 2 * features[:, 1] + rng.normal(0, 0.5, n) > 0).astype(np.int64)
    p = 1 / (1 + np.exp(-(2 * features[:, 0] - 2)))
    p = np.stack([1 - p, p], axis=1)
    return start_of(features, p, ("bogus", "real"), ("bogus", "real")), y, p


def test_a_refit_learns_and_few_labels_hardly_move_it() -> None:
    start, y, p = survey(2000)
    folds = folds_of([str(k) for k in range(200)])
    right = (p.argmax(1) == y).mean()
    head = refit(start, np.arange(200), y[:200], folds)
    assert (head.probabilities[200:].argmax(1) == y[200:]).mean() > right + 0.1
    few = refit(start, np.arange(10), y[:10], folds_of([str(k) for k in range(10)]))
    assert (few.probabilities[200:].argmax(1) == y[200:]).mean() > right - 0.05
    assert np.allclose(head.probabilities.sum(1), 1)


def test_a_refit_of_four_classes_that_the_model_does_not_know() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 4, 400)
    features = rng.normal(size=(400, 200)) + 6 * np.eye(4, 200)[y]
    start = start_of(features, np.full((400, 2), 0.5), ("bogus", "real"), ("a", "b", "c", "d"))
    head = refit(start, np.arange(120), y[:120], folds_of([str(k) for k in range(120)]))
    assert (head.probabilities[120:].argmax(1) == y[120:]).mean() > 0.7


def test_the_learning_curve_rises_and_flattens() -> None:
    def curve(n: int) -> dict[str, Any]:
        start, y, _ = survey(2000)
        rows = np.arange(n)
        groups = rows.astype(str)
        return learning_curve(start, rows, y[:n], folds_of(groups.tolist()), groups, 3.0)

    few, many = curve(60), curve(800)
    assert few["labels"][0] == 0
    for found in (few, many):
        assert all(
            a <= b <= c for a, b, c in zip(found["low"], found["accuracy"], found["high"], strict=True)
        )
        assert found["next"]["low"] <= found["next"]["points"] <= found["next"]["high"]
    assert many["accuracy"][-1] > many["accuracy"][0] + 0.1
    assert many["next"]["points"] < few["next"]["points"]
    assert many["next"]["high"] < 2
    assert curve(20)["next"] is None


def test_the_queue_is_ordered_anew_after_labels(client: Any, session: Session) -> None:
    before = list(session.order)
    assert not session.due()
    answers = [(row, "label", session.classes[k % 2], "") for k, row in enumerate(before[:20])]
    session.answer("ana", answers)
    assert session.due()
    generation = session.generation
    session.fitting()()()
    progress = client("GET", f"/{TOKEN}/api/progress?labeller=ana").json()["progress"]
    assert progress["fitted_on"] == 20
    assert progress["curve"]["labels"][0] == 0
    assert progress["generation"] == generation + 1
    assert sorted(session.order) == sorted(before)
    assert not session.due()


def test_class_keys_do_not_collide_with_commands() -> None:
    assert class_keys(["real", "bogus"]) == ["r", "b"]
    keys = [k for k in class_keys(["supernova", "star", "sn", "asteroid"]) if k]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & set("cfgmnsuxz")
    assert class_keys(["real", "bogus"], {"real": "J", "bogus": "k"}) == ["j", "k"]
    assert class_keys(["real", "bogus"], {"bogus": "r"}) == ["e", "r"]


@pytest.mark.parametrize(
    "wanted", [{"real": "u"}, {"star": "q"}, {"real": "ab"}, {"real": "k", "bogus": "K"}]
)
def test_keys_that_cannot_be_are_refused(wanted: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--keys"):
        class_keys(["real", "bogus"], wanted)


def test_nothing_readable_is_an_error(folder: Path) -> None:
    (folder / "empty.fits").write_bytes(b"")
    with pytest.raises(EmptyInputError, match="empty"):
        Candidates([str(folder / "empty.fits")], folder, {})


def test_unknown_answers_are_refused(session: Session) -> None:
    with pytest.raises(UsageError):
        session.answer("ana", [(0, "label", "unicorn", "")])
    with pytest.raises(UsageError):
        session.answer("ana", [(0, "kind", "", "")])


# --- the server ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/app.js", {}),
        ("/wrong/api/table", {}),
        (f"/{TOKEN}/api/table", {"host": "evil.example:8765"}),
        (f"/{TOKEN}/api/table", {"origin": "http://evil.example"}),
        (f"/{TOKEN}/api/table", {"origin": "http://localhost:9999"}),
        (f"/{TOKEN}/api/table", {"origin": "null"}),
        (f"/{TOKEN}/api/table", {"sec-fetch-site": "cross-site"}),
    ],
)
def test_strangers_are_refused(client: Any, path: str, headers: dict[str, str]) -> None:
    assert client("GET", path, headers).status_code == 403


@pytest.mark.parametrize(
    "path", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "..\\app.py", "%2fetc%2fpasswd", "app.py"]
)
def test_only_the_page_s_own_files_are_served(client: Any, path: str) -> None:
    assert client("GET", f"/{TOKEN}/{path}").status_code in (403, 404)


def test_the_page_allows_nothing_but_itself(client: Any) -> None:
    answer = client("GET", f"/{TOKEN}/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in answer.text.replace("http-equiv", "")


@pytest.mark.parametrize("value", [-1, 30, "x", "../s.npz", None])
def test_a_candidate_is_a_number(client: Any, value: Any) -> None:
    assert client("POST", f"/{TOKEN}/api/answers", json=body(row=value)).status_code == 400
    assert client("GET", f"/{TOKEN}/api/stamps?rows={value}").status_code == 400


def test_answering_over_http_saves_first(client: Any, session: Session) -> None:
    row = session.upcoming("ana")[0]
    state = client("POST", f"/{TOKEN}/api/answers", json=body(row=row, note="fine")).json()
    assert row not in state["next"]
    assert state["progress"]["counts"] == {"bogus": 0, "real": 1}
    assert b'"fine"' in session.journal.path.read_bytes()
    assert client("POST", f"/{TOKEN}/api/answers", content="x").status_code == 400
    assert client("POST", f"/{TOKEN}/api/answers", json={"labeller": "a" * 300_000}).status_code == 400


def test_an_answer_sent_again_after_a_broken_connection_counts_once(client: Any, session: Session) -> None:
    first, second = session.order[:2]
    client("POST", f"/{TOKEN}/api/answers", json=body(row=first))
    again = body(row=first)
    again["answers"].append({**again["answers"][0], "number": 2, "row": second})
    state = client("POST", f"/{TOKEN}/api/answers", json=again).json()
    assert state["progress"]["mine"] == 2
    assert client("POST", f"/{TOKEN}/api/undo", json={"labeller": "ana"}).json()["row"] == second
    assert client("POST", f"/{TOKEN}/api/undo", json={"labeller": "ana"}).json()["row"] == first
    assert client("POST", f"/{TOKEN}/api/undo", json={"labeller": "ana"}).json()["row"] is None


@pytest.mark.parametrize(
    "answers", [None, "x", [], [3], [{}], [{"number": "1"}], [{"number": 1}] * 65], ids=lambda a: str(a)[:20]
)
def test_answers_that_make_no_sense_are_refused(client: Any, answers: Any) -> None:
    sent = {"labeller": "ana", "visit": "v", "answers": answers}
    assert client("POST", f"/{TOKEN}/api/answers", json=sent).status_code == 400


def test_a_training_that_cannot_be_done_says_why(session: Session, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    session.answer("ana", [(session.order[0], "label", "real", "")])
    session.journal.write_table()
    training = Training(session.journal.table, "no-such-model", tmp_path / "model")
    assert asyncio.run(training.run()) is None
    assert training.status()["state"] == "failed"
    assert any("no-such-model" in line for line in training.status()["lines"])
