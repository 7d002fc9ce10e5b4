"""Model cards say what the record says, and where it says nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from huggingface_hub import ModelCard

from transientnet.models.cards import model_card, write_card
from transientnet.models.record import ModelRecord
from transientnet.prepare.contract import InputContract

FIGURE = {"value": 0.98765, "low": 0.98, "high": 0.99, "n": 1234}
RECORD = ModelRecord(
    "nightly",
    "1.2.0",
    ("bogus", "real"),
    InputContract(),
    licence="CC-BY-4.0",
    parent="realbogus@1.0.0",
    citation="A. Observer (2026)",
    thresholds=({"rate": 0.01, "threshold": 0.8},),
    metrics={
        "n": 1234,
        "test": {"auc": FIGURE, "per_class": {"real": {"recall": FIGURE}}},
        "by_brightness": {
            "real": [{"from": 18.0, "to": 19.0, "recall": 0.5, "low": 0.4, "high": 0.6, "n": 9}]
        },
    },
    training={
        "data": {"stamps": 5000, "objects": 900},
        "labels": "by eye",
        "circular": "the score that chose them",
        "split": "by object",
        "reproduce": "python -m training_reference train",
        "epochs": 12,
    },
)


def test_a_card_holds_the_record(tmp_path: Path) -> None:
    (tmp_path / "failures").mkdir()
    picture = tmp_path / "failures" / "missed_real.png"
    picture.write_bytes(b"")
    text = write_card(RECORD, tmp_path, pictures=[picture]).read_text()
    for part in (
        "# nightly@1.2.0",
        "| AUC | 0.9877 | 0.98 to 0.99 | 1234 |",
        "| real | Recall | 0.9877 |",
        "| real | 18 to 19 | 0.5 | 0.4 to 0.6 | 9 |",
        "by eye",
        "the score that chose them",
        "by object",
        "python -m training_reference train",
        "A. Observer (2026)",
        "Epochs: 12",
        "![missed real](failures/missed_real.png)",
        "threshold 0.8",
    ):
        assert part in text
    header = ModelCard(text).data
    assert (header.license, header.library_name) == ("cc-by-4.0", "transientnet")


def test_what_the_run_did_not_record_is_said_to_be_unknown() -> None:
    bare = dataclasses.replace(RECORD, metrics={}, training={}, citation="", thresholds=())
    assert model_card(bare).count("Not recorded by the run") >= 7
