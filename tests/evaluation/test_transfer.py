"""The tables of chapters 06 to 11, on encoders with random weights and a handful of patients."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from conftest import REAL
from PIL import Image
from safetensors.torch import save_model
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pacx.constants import CHESTX6_CLASSES, MEDMOD_PHENOTYPES
from pacx.data.datasets import read_folder
from pacx.data.images import IMAGENET_MEAN, IMAGENET_STD, load_images
from pacx.data.splits import refuse_leaks
from pacx.data.table import make_dataset
from pacx.errors import PacxError
from pacx.evaluation.features import extract_features, extract_rollouts, images_of
from pacx.evaluation.statistics import bootstrap_weights, f1_thresholds, macro_auroc
from pacx.evaluation.transfer import (
    best_reading,
    compare_probes,
    labels_left_out,
    open_benchmark,
    probe_scores,
    train_probes,
)
from pacx.models import imports
from pacx.profile import VitSettings, load_profile
from pacx.run import open_run
from pacx.training import encoders
from pacx.training.encoders import encoder_of
from pacx.training.fit import fit
from pacx.training.mae import MaePretraining, new_mae
from pacx.training.paper_probe import fit_paper_probes
from pacx.training.probe import fit_probes, labels_of

PROBES = ("converged", "paper")


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


def test_every_metric_is_sklearns(run):
    dataset = _dataset(run)
    # Labels that an image shows only partly, so that no score is perfect.
    noise = np.random.default_rng(1).random(60) < 0.25
    table = dataset.table.assign(bright=np.abs(dataset.table["bright"] - noise))
    dataset = replace(dataset, table=table)
    known, truth = (labels_of(dataset, split)[:, 0] for split in ("val", "test"))
    chosen_on, scores = (
        np.asarray(probe_scores(run, dataset, "random", split=split))[0, :, 0]
        for split in ("val", "test")
    )
    assert len(chosen_on) == 10
    tuned = f1_thresholds(known[:, None], chosen_on[:, None])[0]
    expected = {
        "AUROC": roc_auc_score(truth, scores),
        "AUPRC": average_precision_score(truth, scores),
        "F1": f1_score(truth, scores >= 0.5),
        "F1 (tuned)": f1_score(truth, scores >= tuned),
    }
    for metric, value in expected.items():
        row = compare_probes(run, dataset, ["random"], reference="random", metric=metric)
        assert row["value"][0] == pytest.approx(value, abs=1e-6), metric
        assert row["low"][0] <= value <= row["high"][0]


def test_draws_and_cache(run, monkeypatch):
    dataset = _dataset(run)
    first = np.array(probe_scores(run, dataset, "random", fraction=0.5))
    assert first.shape == (run.profile.label_efficiency.draws, 20, 1)
    monkeypatch.setattr("pacx.evaluation.transfer.fit_probes", None)  # a second fit would fail
    np.testing.assert_array_equal(probe_scores(run, dataset, "random", fraction=0.5), first)


def test_mirrored_images_are_a_second_view_of_the_papers_probe(run, monkeypatch):
    dataset = _dataset(run)
    seen = []

    def spy(train, *rest, **settings):
        seen.append(train[0])
        return fit_paper_probes(train, *rest, **settings)

    monkeypatch.setattr("pacx.evaluation.transfer.fit_paper_probes", spy)
    plain = np.array(probe_scores(run, dataset, "random"))
    probe_scores(run, dataset, "random", probe="paper")
    probe = run.profile.paper_probe.model_copy(update={"flip": True})
    monkeypatch.setattr(run, "profile", run.profile.model_copy(update={"paper_probe": probe}))
    probe_scores(run, dataset, "random", probe="paper")
    assert [len(views) for views in seen] == [1, 2]
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    images = images_of(run, dataset, "train")[:, :, ::-1]
    np.testing.assert_allclose(seen[1][1], extract_features(run, "random", images).cls, atol=1e-5)
    np.testing.assert_array_equal(probe_scores(run, dataset, "random"), plain)
    assert load_profile("paper").paper_probe.flip


def test_the_papers_probe_is_another_one_and_kept_apart(run, monkeypatch):
    dataset = _dataset(run)
    both = {p: np.array(probe_scores(run, dataset, "random", probe=p)) for p in PROBES}
    assert not np.allclose(both["converged"], both["paper"], atol=1e-3)
    train, val = (
        (extract_features(run, "random", images_of(run, dataset, s)).cls, labels_of(dataset, s))
        for s in ("train", "val")
    )
    test = extract_features(run, "random", images_of(run, dataset, "test")).cls
    expected = fit_paper_probes(train, val, run.profile.paper_probe, seed=run.profile.seed)
    np.testing.assert_allclose(both["paper"], expected.probabilities(test), atol=1e-5)
    expected = fit_probes(train, val).probabilities(test)
    np.testing.assert_allclose(both["converged"], expected, atol=1e-5)
    for name in ("fit_probes", "fit_paper_probes"):  # a second fit would fail
        monkeypatch.setattr(f"pacx.evaluation.transfer.{name}", None)
    for name, scores in both.items():
        np.testing.assert_array_equal(probe_scores(run, dataset, "random", probe=name), scores)
        table = compare_probes(run, dataset, ["random"], reference="random", probe=name)
        assert table["probe"].tolist() == [name]
        truth = labels_of(dataset, "test")
        assert table["value"][0] == pytest.approx(roc_auc_score(truth, scores[0]), abs=1e-6)


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_validation_labels_choose_only_where_all_training_labels_are_known(
    run, monkeypatch, fraction
):
    seen = []

    def spy(train, val, **settings):
        seen.append((val, settings["subsets"]))
        return fit_probes(train, val, **settings)

    monkeypatch.setattr("pacx.evaluation.transfer.fit_probes", spy)
    probe_scores(run, _dataset(run), "random", fraction=fraction)
    ((val, subsets),) = seen
    assert (val is None) == (fraction < 1)
    assert (subsets is None) == (fraction == 1)
    assert subsets is None or subsets.shape == (run.profile.label_efficiency.draws, 15)


def _with_readings(monkeypatch, dataset, shown):
    """Features of the test images and of the others: each reading shows the labels, or nothing."""

    def features_of(run, dataset, model, split, reading):
        truth, rng = labels_of(dataset, split), np.random.default_rng(len(split))
        where = "test" if split == "test" else "train and val"
        strength = 3.0 if shown[reading] in (where, "everywhere") else 0.0
        return (strength * truth + rng.normal(size=(len(truth), 4))).astype(np.float32)

    monkeypatch.setattr("pacx.evaluation.transfer.features_of", features_of)


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_the_best_reading_is_chosen_by_validation_not_by_test_labels(run, monkeypatch, fraction):
    dataset = _dataset(run)
    shown = {"cls": "test", "mean": "train and val"}
    _with_readings(monkeypatch, dataset, shown)
    facts = {"fraction": fraction}
    assert best_reading(run, dataset, "mae", **facts) == "mean"
    best = compare_probes(run, dataset, ["mae", "random"], pooling="best", **facts)
    mean = compare_probes(run, dataset, ["mae", "random"], pooling="mean", **facts)
    assert best["pooling"].tolist() == ["mean", "mean"]
    pd.testing.assert_frame_equal(best, mean)
    _with_readings(monkeypatch, dataset, {"cls": "everywhere", "mean": "test"})
    best = compare_probes(run, dataset, ["mae"], pooling="best", **facts)
    assert best["pooling"].tolist() == ["cls"]
    assert best["value"][0] > 0.9


def test_each_model_has_its_own_best_reading_and_the_first_of_equal_ones(run, monkeypatch):
    dataset = _dataset(run)

    def features_of(run, dataset, model, split, reading):
        truth = labels_of(dataset, split)
        told = {"mae": "mean", "pacx": "cls", "pixels": "32 components"}.get(model) == reading
        noise = np.random.default_rng(len(truth)).normal(size=(len(truth), 3))
        return (2.0 * told * truth + noise).astype(np.float32)

    monkeypatch.setattr("pacx.evaluation.transfer.features_of", features_of)
    models = ["mae", "pacx", "random", "pixels"]
    table = compare_probes(run, dataset, models, pooling="best").set_index("model")
    assert table["pooling"].to_dict() == {
        "mae": "mean", "pacx": "cls", "random": "cls", "pixels": "32 components",
    }  # fmt: skip
    assert np.isnan(table.loc["mae", "difference_value"])


def test_the_best_reading_may_differ_between_tasks(run, monkeypatch):
    dataset = _dataset(run)
    rng = np.random.default_rng(0)
    table = dataset.table.assign(other=rng.integers(0, 2, 60).astype(float))
    dataset = make_dataset("own", "multilabel", ["bright", "other"], table, dataset.root)

    def features_of(run, dataset, model, split, reading):
        truth = labels_of(dataset, split)
        noise = np.random.default_rng(len(truth)).normal(size=(len(truth), 3))
        shown = truth[:, [1 if reading == "mean" else 0]]
        return (2 * shown + noise).astype(np.float32)

    monkeypatch.setattr("pacx.evaluation.transfer.features_of", features_of)
    assert best_reading(run, dataset, "mae", tasks=["bright"]) == "cls"
    assert best_reading(run, dataset, "mae", tasks=["other"]) == "mean"


def test_a_model_with_one_reading_needs_no_choice(run, monkeypatch):
    dataset = _dataset(run)
    monkeypatch.setattr("pacx.evaluation.transfer.train_probes", None)
    assert best_reading(run, dataset, "supervised") == "own head"
    assert best_reading(run, dataset, "states") == "true states"


def test_the_split_of_another_hospital_is_scored_by_the_same_probes(run):
    dataset = _dataset(run)
    table = dataset.table.copy()
    table.loc[table.index[40:52], "split"] = "shifted"
    table["bright"] = np.abs(table["bright"] - (table.index % 5 == 0))  # no score is perfect
    dataset = replace(dataset, table=table)
    found = {
        split: compare_probes(run, dataset, ["random"], reference="random", split=split)["value"][0]
        for split in ("test", "shifted")
    }
    probes = train_probes(run, dataset, "random")
    for split, value in found.items():
        features = extract_features(run, "random", images_of(run, dataset, split)).cls
        scores = probes.probabilities(features)[0]
        assert value == pytest.approx(roc_auc_score(labels_of(dataset, split), scores), abs=1e-6)
    assert found["test"] != found["shifted"]
    with pytest.raises(PacxError, match="split 'shifted' is empty"):
        compare_probes(run, replace(dataset, table=table[:40]), ["random"], split="shifted")


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


def test_labels_with_one_value_among_the_known_test_cases_are_named(run):
    dataset = _dataset(run)
    table = dataset.table.assign(all_ill=1.0, all_well=0.0, unknown=np.nan, half=np.nan)
    table.loc[table["bright"] == 1, "half"] = 1.0
    labels = ["bright", "all_ill", "all_well", "unknown", "half"]
    many = make_dataset("own", "multilabel", labels, table, dataset.root)
    assert labels_left_out(many) == labels[1:]
    assert labels_left_out(dataset) == []


def test_a_missing_encoder_names_its_chapter(run):
    with pytest.raises(PacxError, match="02_cxr_mae"):
        extract_features(run, "mae", np.zeros((1, 64, 64), np.uint8))


def test_imagenet_is_a_reasoned_gap(run, monkeypatch):
    with pytest.raises(PacxError, match="ViT-B/16 at 224 px"):
        encoder_of(run, "imagenet")
    monkeypatch.setattr(encoders, "IMAGENET_VIT", run.profile.vit)
    monkeypatch.setattr(imports, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(PacxError, match="nothing is downloaded"):
        encoder_of(run, "imagenet")


def test_imagenet_weights_of_the_local_cache_take_our_images(run, monkeypatch, tmp_path):
    """Its own normalisation is folded into its first layer."""
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False).eval()
    save_model(theirs, str(tmp_path / "model.safetensors"))
    vit = VitSettings(image_size=224, patch_size=16, width=192, depth=12, heads=3)
    monkeypatch.setattr(run, "profile", run.profile.model_copy(update={"vit": vit}))
    monkeypatch.setattr(encoders, "IMAGENET", name)
    monkeypatch.setattr(encoders, "IMAGENET_VIT", vit)
    monkeypatch.setattr(
        imports, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors")
    )
    pixels = torch.rand(2, 3, 224, 224)

    def normalised(mean, std):
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    cfg = theirs.pretrained_cfg
    assert cfg["mean"] != IMAGENET_MEAN
    with torch.inference_mode():
        expected = theirs.forward_features(normalised(cfg["mean"], cfg["std"]))
        ours = encoder_of(run, "imagenet").forward_features(normalised(IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    grey = np.random.default_rng(0).integers(0, 255, (2, 224, 224)).astype(np.uint8)
    assert extract_features(run, "imagenet", grey).cls.shape == (2, 192)


def test_distilled_patients_are_refused_removed_or_waived(run, capsys, monkeypatch):
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
    monkeypatch.setattr(run, "profile", run.profile.model_copy(update={"leaks": "remove"}))
    left = open_benchmark(run, "medmod")
    assert "2" not in set(left.table["patient"])
    assert len(left.table) == 59
    assert "medmod: 1 patients who were distilled are left out" in capsys.readouterr().out
    monkeypatch.setattr(run, "profile", run.profile.model_copy(update={"leaks": "waive"}))
    assert len(open_benchmark(run, "medmod").table) == 60
    assert "WAIVED" in capsys.readouterr().out


def test_a_patient_in_two_splits_is_refused(run):
    _write_distilled(run, ["1"])
    for split in ("train", "val", "test"):
        _write_images(run.data_root / "chestx6" / split / CHESTX6_CLASSES[0], 2)
    dataset = open_benchmark(run, "chestx6")
    dataset.table.loc[:, "patient"] = "the same"
    with pytest.raises(PacxError, match="more than one split"):
        refuse_leaks(pd.DataFrame({"patient": []}), dataset)


@pytest.mark.real
def test_probe_of_real_covid_x_rays(run, monkeypatch, capsys):
    """COVID-19 against no finding; 44 X-rays carry no claim, so only the procedure is checked."""
    if not (REAL / "cxr" / "metadata.csv").is_file():
        pytest.skip(f"no real X-rays in {REAL} (set PACX_REAL)")
    data = read_folder("actualmed", REAL / "cxr")
    images = load_images(data.root, list(data.table["image"]), 64, run.cache)
    torch.manual_seed(0)
    mae = new_mae(run)
    settings = run.profile.mae.model_copy(update={"batch_size": 16})
    history = fit(MaePretraining(mae, 0.75, settings, 0), [images], "mae", steps=100)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    monkeypatch.setattr("pacx.evaluation.features.encoder_of", lambda *_: mae.encoder.eval())
    features = extract_features(run, "random", images).mean
    assert np.isfinite(features).all()
    assert len(np.unique(features, axis=0)) == len(images)

    known = data.table["COVID-19"].notna().to_numpy()
    labels = data.table.loc[known, "COVID-19"].to_numpy()
    patients = data.table.loc[known, "patient"].to_numpy()
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for trained, tested in folds.split(features[known], labels, patients):
        assert not set(patients[trained]) & set(patients[tested])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    scores = cross_val_predict(
        probe, features[known], labels, groups=patients, cv=folds, method="predict_proba"
    )[:, 1]
    weights = bootstrap_weights(patients, 1000, seed=0)
    low, high = np.quantile(macro_auroc(labels[:, None], scores[:, None], weights), [0.025, 0.975])
    value = roc_auc_score(labels, scores)
    with capsys.disabled():
        print(f"\nreal COVID-19 probe: AUROC {value:.2f} [{low:.2f}, {high:.2f}]")
    assert 0 <= low <= value <= high <= 1
