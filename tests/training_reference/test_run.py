"""The programs that make the weights, at a size that proves the programs and not the models."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from training_reference import learn
from training_reference.data import MORPHOLOGY, load
from training_reference.simulator import BOGUS, REAL, ZTF_LIKE, simulate
from training_reference.train import grouped_folds, train
from transientnet import load_model
from transientnet.models.registry.manifest import Manifest

COLUMNS = (
    *("objectId", "realbogus", "realbogus_evidence", "morphology3", "science_class"),
    *("magpsf", "drb", "jd", "vetted", "vetted_morphology"),
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of simulated alerts, labelled as the real one is."""
    folder = tmp_path_factory.mktemp("alerts")
    kinds = [*REAL, *BOGUS] * 8
    drawn = simulate(len(kinds), 4, telescope=ZTF_LIKE, kinds=kinds)
    np.savez(folder / "stamps.npz", triplets=drawn.triplets)
    science = {"asteroid": "asteroid", "supernova": "sn", "variable star": "varstar", "nuclear": "agn"}
    with open(folder / "labels.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for row, (kind, real, morphology) in enumerate(
            zip(drawn.kind, drawn.real, drawn.morphology, strict=True)
        ):
            seen = ["", ""] if row % 3 else ["real" if real else "bogus", morphology]
            named = science.get(str(kind), "" if real else "bogus")
            label, evidence = ("real", "catalogue") if real else ("bogus", "score")
            facts = [15 + row % 7, 0.9 * real, 2458000]
            writer.writerow([f"obj{row // 2}", label, evidence, morphology, named, *facts, *seen])
    return folder


def test_inspection_outranks_score_and_unsure_is_no_label(tmp_path: Path) -> None:
    np.savez(tmp_path / "stamps.npz", triplets=np.zeros((3, 3, 63, 63), np.float32))
    (tmp_path / "labels.csv").write_text(
        "objectId,realbogus,realbogus_evidence,morphology3,science_class,magpsf,drb,jd,vetted,vetted_morphology\n"
        "a,real,score,variable,,18,0.99,1,bogus,\n"
        "b,,,orphan,,18,0.5,1,real,hosted\n"
        "c,bogus,score,,,18,0.01,1,unsure,\n"
    )
    alerts = load(tmp_path)
    assert alerts.binary.tolist() == [0, 1, -1]
    assert alerts.raw_binary.tolist() == [1, -1, 0]
    assert alerts.morphology.tolist() == [MORPHOLOGY.index("bogus"), MORPHOLOGY.index("hosted"), -1]


def test_packets_are_labelled_by_their_own_fields(shared_data: Path) -> None:
    alerts = load(shared_data / "packets" / "ztf")
    assert len(alerts) == 24
    assert set(alerts.evidence) <= {"catalogue", "score", ""}
    assert (alerts.binary >= 0).sum() > 10


def test_folds_never_cut_through_an_object(prepared: Path) -> None:
    alerts = load(prepared)
    folds = grouped_folds(alerts, 3, 0)
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(alerts)))
    owners = [set(alerts.groups[rows]) for rows in folds]
    assert not owners[0] & owners[1]
    assert not owners[1] & owners[2]


@pytest.mark.timeout(400)
# Other tests kill processes, and with them may go the helper that multiprocessing keeps for all.
@pytest.mark.filterwarnings("ignore:resource_tracker")
def test_a_run_makes_models_that_load_and_a_rerun_goes_on_from_its_files(
    prepared: Path, tmp_path: Path
) -> None:
    plan = replace(learn.SMOKE, chunks=1, batches=1, pretrain_steps=4, steps=4, made=30)
    train(prepared, tmp_path, plan, workers=1, resamples=20)
    manifest = Manifest.parse((tmp_path / "weights_manifest.json").read_text(), "manifest")
    assert {record.name for record in manifest.records} == set(learn.HEADS)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["run"]["data_sha256"] == load(prepared).digest
    classifier = load_model(tmp_path / "weights" / "realbogus-0.1.0.onnx")
    assert classifier.record.training["seed"] == 0
    assert np.isfinite(classifier.predict(load(prepared).triplets[:5]).probabilities).all()
    with pytest.raises(SystemExit, match="another plan"):
        train(prepared, tmp_path, plan, seed=1, workers=1)
    # What is there is not made again: not even its inputs are looked at.
    stored = tmp_path / "work" / "tuned-all-0.npz"
    before = stored.read_bytes()
    learn.fine_tune(stored, Path("absent"), [], load(prepared), np.arange(3), plan, 0)
    assert stored.read_bytes() == before
