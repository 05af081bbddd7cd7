"""Baselines are the linear models they claim to be, and learn from training patients only."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.special import expit
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from pacx.data.datasets import load_dataset, load_pairs
from pacx.data.images import load_images
from pacx.evaluation import baselines
from pacx.evaluation.baselines import POOLINGS, READINGS, features_of, readings_of
from pacx.evaluation.features import extract_features, images_of
from pacx.evaluation.transfer import probe_scores, train_probes
from pacx.models.encoder import load_encoder
from pacx.run import Run
from pacx.training.distill import standardise, teacher_embeddings
from pacx.training.mae import pretraining_images
from pacx.training.targets import whiten

ALL = [(model, reading) for model in (*READINGS, "mae") for reading in readings_of(model)]


def test_every_model_has_readings():
    assert readings_of("pacx") == POOLINGS
    assert readings_of("supervised") == ("own head",)


def test_pixels_are_the_principal_components_of_the_pretraining_images(run, dataset):
    known, images = pretraining_images(run, "train"), images_of(run, dataset, "test")
    pca = PCA(32, svd_solver="full").fit(known.reshape(len(known), -1) / 255)
    expected = pca.transform(images.reshape(len(images), -1) / 255)
    ours = np.asarray(features_of(run, dataset, "pixels", "test", "32 components"))
    signs = np.sign((ours * expected).sum(0))  # of an axis, either direction will do
    np.testing.assert_allclose(ours * signs, expected, atol=2e-3 * expected.std())
    few = features_of(run, dataset, "pixels", "test", "16 components")
    np.testing.assert_array_equal(few, ours[:, :16])
    # There are no more components than images.
    assert features_of(run, dataset, "pixels", "test", "192 components").shape == (80, len(known))


@pytest.fixture
def every_rank(monkeypatch):
    """The maps to the teachers with all their directions."""
    baselines._fit_map.cache_clear()
    monkeypatch.setattr(baselines, "_RANKS", (4, 10_000))
    yield
    baselines._fit_map.cache_clear()


@pytest.mark.parametrize("reading", ["pixels-teachers", "mae-teachers", "mae-cca"])
def test_reduced_rank_regression_is_ridge_regression_when_the_rank_is_full(
    run, dataset, reading, every_rank
):
    source, towards = reading.split("-")
    pairs, scale = load_pairs(run, "train"), whiten if towards == "cca" else standardise
    targets = np.concatenate([scale(t) for t in teacher_embeddings(run, pairs).values()], 1)

    tested = [features_of(run, dataset, "mae", "test", pooling) for pooling in POOLINGS]
    if source == "pixels":
        tested = [features_of(run, dataset, "pixels", "test", "192 components")]
    known = np.asarray(baselines._source(run, source, pairs.cxr), np.float64)
    scaler = StandardScaler().fit(known)
    x = scaler.transform(known)
    ridge = RidgeCV(np.logspace(-1, 5, 13)).fit(x, targets)
    # The same by hand: (X'X + a I)^-1 X'Y on what has mean 0.
    flat = targets - targets.mean(0)
    weight = np.linalg.solve(x.T @ x + ridge.alpha_ * np.eye(x.shape[1]), x.T @ flat)
    test = scaler.transform(np.concatenate(tested, 1).astype(np.float64))
    _, singular, directions = np.linalg.svd(x @ weight, full_matrices=False)
    full = features_of(run, dataset, reading, "test", "rank 10000")
    back = full @ baselines._map_to_teachers(run, source, towards)[1] - targets.mean(0) @ (
        directions.T @ directions
    )
    np.testing.assert_allclose(back, test @ weight, atol=1e-3 * np.abs(test @ weight).max())
    # Of rank 4: the best approximation of what is predicted for the training pairs.
    four = baselines._map_to_teachers(run, source, towards)[1][:4]
    left = np.square(x @ weight - x @ weight @ four.T @ four).sum()
    assert left == pytest.approx(np.square(singular[4:]).sum(), rel=0.02)
    np.testing.assert_allclose(
        features_of(run, dataset, reading, "test", "rank 4"), full[:, :4], atol=1e-4
    )


def test_the_supervised_reading_is_the_networks_own_head(run, dataset):
    encoder = load_encoder(run.artefact("supervised")).eval()
    cls, mean = extract_features(run, "supervised", images_of(run, dataset, "test"))
    weight, bias = (v.numpy() for v in baselines.supervised_head(run))
    expected = expit(np.concatenate([cls, mean], 1) @ weight[0] + bias[0])
    for facts in ({}, {"probe": "paper"}, {"fraction": 0.5}):
        scores = probe_scores(run, dataset, "supervised", pooling="own head", split="test", **facts)
        assert scores.shape == (1, 80, len(dataset.labels))
        np.testing.assert_allclose(scores[0], expected, atol=1e-6)
    start = load_encoder(run.artefact("mae")).state_dict()
    moved = [not torch.equal(v, start[k]) for k, v in encoder.state_dict().items()]
    assert np.mean(moved) > 0.9  # end to end
    history = pd.read_csv(run.artefact("supervised") / "history.csv")
    assert history["loss"].notna().all()


def test_states_are_the_true_ones(run, dataset):
    states = features_of(run, dataset, "states", "val", "true states")
    table = dataset.split("val")
    assert states.shape == (60, 13)
    np.testing.assert_allclose(states[:, 0], table["state_age"], atol=1e-6)


@pytest.mark.parametrize(("model", "reading"), ALL)
def test_features_of_an_image_do_not_depend_on_the_others(run, dataset, model, reading):
    everybody = features_of(run, dataset, model, "test", reading)
    assert np.isfinite(everybody).all()
    assert len(everybody) == 80
    rows = dataset.table.index[dataset.table["split"] == "test"][10:13]
    few = replace(dataset, table=dataset.table.loc[rows])
    np.testing.assert_allclose(
        features_of(run, few, model, "test", reading), everybody[10:13], atol=1e-3, rtol=1e-3
    )


def test_the_papers_probe_reads_mirrored_baselines_too(run, dataset, monkeypatch):
    probe = run.profile.paper_probe.model_copy(update={"flip": True})
    monkeypatch.setattr(run, "profile", run.profile.model_copy(update={"paper_probe": probe}))
    for model, readings in READINGS.items():
        reading = readings[0]
        plain, mirrored = (
            features_of(run, dataset, model, "train", reading, mirrored=turned)
            for turned in (False, True)
        )
        assert np.allclose(plain, mirrored) == (model == "states")
        scores = probe_scores(run, dataset, model, pooling=reading, probe="paper")
        assert np.isfinite(scores).all()


def test_a_map_to_the_teachers_is_fitted_again_after_a_new_training(run, monkeypatch):
    before = baselines._map_to_teachers(run, "mae", "teachers")
    assert baselines._map_to_teachers(run, "mae", "teachers") is before
    monkeypatch.setattr(baselines, "fingerprint_of", lambda run, model: f"{model}, trained again")
    assert baselines._map_to_teachers(run, "mae", "teachers") is not before


@pytest.fixture(scope="module")
def others(run, tmp_path_factory):
    """The same run, whose patients outside of the training splits are all noise."""
    root = tmp_path_factory.mktemp("others")
    for part in ("data", "artefacts"):
        shutil.copytree(run.folder / part, root / run.profile.name / part)
    other = Run(run.profile, root)
    rng = np.random.default_rng(0)
    truth = pd.read_csv(other.data_root / "phantom-truth" / "labels.csv")
    changed = truth["split"] != "train"
    states = truth.columns.str.startswith("state_")
    truth.loc[changed, states] = rng.normal(size=(changed.sum(), states.sum()))
    truth.to_csv(other.data_root / "phantom-truth" / "labels.csv", index=False)
    images = [other.data_root / "phantom-truth" / name for name in truth.loc[changed, "image"]]
    images += sorted((other.data_root / "chexpert" / "valid").rglob("*.jpg"))
    for image in images:
        Image.fromarray(rng.integers(0, 256, (32, 32), np.uint8)).save(image)
    for split in ("val", "val_retrieval", "test"):
        for file in (other.data_root / "symile-mimic" / "data_npy" / split).glob("*.npy"):
            array = np.load(file)
            if array.dtype == np.float32:
                np.save(file, rng.permuted(array))
    return other


@pytest.mark.parametrize(("model", "reading"), ALL)
def test_no_test_patient_influences_what_is_learned(run, dataset, others, model, reading):
    noise = load_dataset("phantom-truth", others.data_root)
    ours, theirs = (
        features_of(r, d, model, "train", reading) for r, d in ((run, dataset), (others, noise))
    )
    np.testing.assert_array_equal(ours, theirs)
    tested = [
        features_of(r, d, model, "test", reading) for r, d in ((run, dataset), (others, noise))
    ]
    assert not np.allclose(*tested)
    if reading != readings_of(model)[0]:
        return
    # With few labels, a probe knows no validation patient either.
    ours, theirs = (
        train_probes(r, d, model, fraction=0.5, pooling=reading)
        for r, d in ((run, dataset), (others, noise))
    )
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.loss, theirs.loss)


def test_training_patients_do_influence_the_pixels(run, dataset, others, tmp_path):
    """Or the test above would say nothing."""
    for part in ("data", "artefacts"):
        shutil.copytree(others.folder / part, tmp_path / run.profile.name / part)
    changed = Run(run.profile, tmp_path)
    for image in sorted((changed.data_root / "chexpert" / "train").rglob("*.jpg"))[:40]:
        Image.fromarray(255 * np.eye(32, dtype=np.uint8)).save(image)
    again = load_dataset("phantom-truth", changed.data_root)
    names = list(again.split("train")["image"])
    same = load_images(again.root, names, 32, changed.cache)
    np.testing.assert_array_equal(same, images_of(run, dataset, "train"))
    for model, reading in (("pixels", "16 components"), ("pixels-teachers", "rank 8")):
        before = features_of(run, dataset, model, "train", reading)
        assert not np.allclose(features_of(changed, again, model, "train", reading), before)
