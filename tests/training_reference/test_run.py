"""The programs that make the weights, at a size that proves the programs and not the models."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from training_reference import learn, pretraining
from training_reference.broken import BROKEN, break_flux
from training_reference.data import MORPHOLOGY, Foreign, load, load_foreign
from training_reference.simulator import BOGUS, REAL, ZTF_LIKE, simulate
from training_reference.tables import by_family, table
from training_reference.train import foreign_folds, grouped_folds, train
from transientnet import load_model
from transientnet.models.raw import raw_model
from transientnet.models.raw_parity import hard_stamps, verify_raw
from transientnet.models.registry.manifest import Manifest
from transientnet.transfer.network import NetworkConfig

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


def test_catalogues_outrank_the_eye_where_it_is_bright_and_the_score_is_no_evidence_on_a_star(
    tmp_path: Path,
) -> None:
    axis = np.arange(63) - 31
    star = 3e4 * np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / 1.2**2)
    stamps = np.random.default_rng(0).normal(200, 5, (4, 3, 63, 63)) + [[[[1]], [[1]], [[0.02]]]] * star
    np.savez(tmp_path / "stamps.npz", triplets=stamps.astype(np.float32))
    (tmp_path / "labels.csv").write_text(
        "objectId,realbogus,realbogus_evidence,morphology3,science_class,magpsf,drb,jd,vetted,vetted_morphology\n"
        "a,real,catalogue,variable,,14,0.99,1,bogus,\n"
        "b,real,catalogue,variable,,19,0.99,1,bogus,\n"
        "c,real,score,variable,,14,0.99,1,,\n"
        "d,real,score,variable,,19,0.99,1,,\n"
    )
    alerts = load(tmp_path)
    assert alerts.binary.tolist() == [1, -1, -1, 1]
    assert [bool(reason) for reason in alerts.rejudged] == [True, True, True, False]


def test_visits_and_objects_are_never_split(shared_data: Path) -> None:
    elsewhere = load_foreign(shared_data / "rubin")
    assert "rubin_lsstcam" not in elsewhere.sets
    folds = foreign_folds(elsewhere, 5)
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(elsewhere.binary)))
    for column in ("visit", "diaObjectId"):
        owners = [{elsewhere.rows[i][column] for i in rows} for rows in folds]
        assert not set.intersection(owners[0], owners[1])


def test_a_foreign_set_without_stamps_is_no_stamps() -> None:
    elsewhere = load_foreign(None)
    assert isinstance(elsewhere, Foreign)
    assert len(elsewhere.chance()) == 0
    assert [len(rows) for rows in foreign_folds(elsewhere, 3)] == [0, 0, 0]


@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_broken_triplet_differs_and_keeps_its_shape(kind: str) -> None:
    flux = simulate(4, 3, telescope=ZTF_LIKE).triplets
    broken, kinds = break_flux(np.random.default_rng(0), flux, [kind])
    assert broken.shape == flux.shape
    assert set(kinds.tolist()) == {kind}
    assert all(
        not np.array_equal(one, other, equal_nan=True) for one, other in zip(broken, flux, strict=True)
    )


def test_a_chunk_is_a_function_of_its_number_and_holds_the_truth(tmp_path: Path) -> None:
    for name, number in (("a", 5), ("b", 5), ("c", 6)):
        pretraining.simulate_chunk(tmp_path / f"{name}.npz", number, 1)
    (first, truth), (again, _), (other, _) = (pretraining.load_chunk(tmp_path / f"{n}.npz") for n in "abc")
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert set(truth) == {*learn.HEADS, *learn.EXTRA}
    assert (truth["kinds"][truth["realbogus"] == 1] == -1).all()


def test_pretraining_that_was_killed_goes_on_and_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the smallest network: what is tested is the order of the work, not what it learns.
    small = NetworkConfig(oriented=(1, 1, 1, 1), plain=(2, 2, 2, 2), features=8)
    plan = replace(learn.SMOKE, batches=1, network=small, window=2, fresh_every=3, cycles=(5, 3))
    monkeypatch.setattr(pretraining, "SIMULATED_AT_ONCE", 40)
    monkeypatch.setattr(pretraining, "CHECKPOINT_STEPS", 2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    pretraining.pretrain(whole, plan, 0, alone=True, log=lambda line: None)

    def kill(line: str) -> None:
        if "step 6/" in line:
            raise KeyboardInterrupt

    # The line comes before the checkpoint of its step is written.
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(killed, plan, 0, alone=True, log=kill)
    pretraining.pretrain(killed, plan, 0, alone=True, log=lambda line: None)
    for path, again in zip(
        *(pretraining.pretrained(folder, plan) for folder in (whole, killed)), strict=True
    ):
        with np.load(path) as one, np.load(again) as other:
            for name in one.files:
                np.testing.assert_allclose(one[name], other[name], atol=1e-4)
    assert not list(whole.glob("simulated-*.npz"))


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
    plan = replace(learn.SMOKE, batches=1, cycles=(2, 2), steps=4, made=30)
    train(prepared, tmp_path, plan, workers=1, resamples=20)
    manifest = Manifest.parse((tmp_path / "weights_manifest.json").read_text(), "manifest")
    assert {record.name for record in manifest.records} == set(learn.HEADS)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["run"]["data_sha256"] == load(prepared).digest
    classifier = load_model(tmp_path / "weights" / "realbogus-0.2.0.onnx")
    assert classifier.record.training["seed"] == 0
    # Every model says which kind of bogus it would be, and how odd the input is.
    assert classifier.kinds == learn.EXTRA["kinds"]
    given = classifier.run_all(np.zeros((2, 3, 63, 63), np.float32))
    assert given["kinds"].shape == (2, len(classifier.kinds))
    assert given["oddity"].shape == (2, 1)
    raw = raw_model(classifier.path, classifier.record).SerializeToString()
    assert verify_raw(raw, classifier, hard_stamps(96)).n == 96
    assert "magnitude" in by_family(results)
    assert "realbogus" in table(results)
    assert np.isfinite(classifier.predict(load(prepared).triplets[:5]).probabilities).all()
    with pytest.raises(SystemExit, match="another plan"):
        train(prepared, tmp_path, plan, seed=1, workers=1)
    # What is there is not made again: not even its inputs are looked at.
    stored = tmp_path / "work" / "tuned-all-0-0.npz"
    before = stored.read_bytes()
    none = load_foreign(None)
    learn.fine_tune(stored, Path("absent"), [], load(prepared), np.arange(3), none, np.arange(0), plan, 0)
    assert stored.read_bytes() == before
