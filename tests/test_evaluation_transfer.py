"""The tables of chapters 06 to 10, on encoders with random weights and a handful of patients."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pacx.constants import CHESTX6_CLASSES, MEDMOD_PHENOTYPES
from pacx.data.splits import refuse_leaks
from pacx.data.table import make_dataset
from pacx.errors import PacxError
from pacx.evaluation.features import extract_features, extract_rollouts, images_of
from pacx.evaluation.transfer import compare_probes, open_benchmark, probe_scores
from pacx.profile import load_profile
from pacx.run import open_run


@pytest.fixture
def run(tmp_path):
    small = load_profile("smoke").model_copy(update={"data_root": tmp_path / "data"})
    return open_run(small, tmp_path / "runs")


def _write_images(folder, n):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        bright = rng.integers(0, 120, (64, 64)) + 120 * (i % 2)
        Image.fromarray(bright.astype(np.uint8)).save(folder / f"{i}.png")


def _dataset(run, patients=None):
    n = 60
    root = run.data_root / "own"
    _write_images(root, n)
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(n)], "bright": np.arange(n) % 2.0})
    table["patient"] = table["study"] = table["image"]
    table["split"] = ["train"] * 30 + ["val"] * 10 + ["test"] * 20
    return make_dataset("own", "binary", ["bright"], table, root)


def _write_distilled(run, subjects):
    folder = run.data_root / "symile-mimic"
    folder.mkdir(parents=True)
    pd.DataFrame({"subject_id": subjects, "hadm_id": subjects}).to_csv(
        folder / "train.csv", index=False
    )


def test_probes_become_a_table(run):
    dataset = _dataset(run)
    table = compare_probes(run, dataset, ["random"], reference="random")
    assert len(table) == 1
    assert table["value"][0] > 0.9  # brightness is easy, random features keep it
    assert table["low"][0] <= table["value"][0] <= table["high"][0]
    f1 = compare_probes(run, dataset, ["random"], reference="random", metric="F1")
    assert 0 <= f1["value"][0] <= 1


def test_draws_and_cache(run, monkeypatch):
    dataset = _dataset(run)
    first = np.array(probe_scores(run, dataset, "random", fraction=0.5))
    assert first.shape == (run.profile.label_efficiency.draws, 20, 1)
    monkeypatch.setattr("pacx.evaluation.transfer.fit_probes", None)  # a second fit would fail
    np.testing.assert_array_equal(probe_scores(run, dataset, "random", fraction=0.5), first)


def test_changed_labels_are_probed_again(run):
    dataset = _dataset(run)
    before = np.array(probe_scores(run, dataset, "random"))
    flipped = replace(dataset, table=dataset.table.assign(bright=1 - dataset.table["bright"]))
    assert np.corrcoef(before.ravel(), probe_scores(run, flipped, "random").ravel())[0, 1] < 0


def test_features_of_a_slice_are_its_own(run):
    images = images_of(run, _dataset(run), "train")
    everything = extract_features(run, "random", images)
    part = extract_features(run, "random", images[10:20])
    np.testing.assert_allclose(part.cls, everything.cls[10:20], atol=1e-4)
    maps = extract_rollouts(run, "random", images[10:20])
    assert maps.shape == (10, 8, 8)
    assert (maps.sum(axis=(1, 2)) <= 1).all()


def test_a_missing_encoder_names_its_chapter(run):
    with pytest.raises(PacxError, match="02_cxr_mae"):
        extract_features(run, "mae", np.zeros((1, 64, 64), np.uint8))


def test_distilled_patients_are_refused(run):
    _write_distilled(run, ["1", "2"])
    phenotypes = {name: [0, 1] * 30 for name in MEDMOD_PHENOTYPES}
    folder = run.data_root / "medmod"
    folder.mkdir(parents=True)
    ids = np.arange(100, 160)
    table = pd.DataFrame(
        {"subject_id": ids, "hadm_id": ids, "stay_id": ids, "cxr_path": "x.png", **phenotypes}
    )
    table.to_csv(folder / "medmod.csv", index=False)
    assert len(open_benchmark(run, "medmod").table) == 60
    table.loc[0, "subject_id"] = 2
    table.to_csv(folder / "medmod.csv", index=False)
    with pytest.raises(PacxError, match="distillation"):
        open_benchmark(run, "medmod")


def test_a_patient_in_two_splits_is_refused(run):
    _write_distilled(run, ["1"])
    for split in ("train", "val", "test"):
        _write_images(run.data_root / "chestx6" / split / CHESTX6_CLASSES[0], 2)
    dataset = open_benchmark(run, "chestx6")
    dataset.table.loc[:, "patient"] = "the same"
    with pytest.raises(PacxError, match="more than one split"):
        refuse_leaks(pd.DataFrame({"patient": []}), dataset)
