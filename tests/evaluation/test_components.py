"""What teachers know, and what the MAE's decoder still paints."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score
from tiny_hospital import cohort, hospital

from pacx.data.datasets import load_pairs, symile_mimic
from pacx.evaluation import forgetting
from pacx.evaluation.alignment import compare_alignment, ridge_alignment
from pacx.evaluation.features import extract_features
from pacx.evaluation.forgetting import compare_reconstruction, image_errors, reconstruction_errors
from pacx.evaluation.teachers import compare_teachers, explained, true_states
from pacx.figures.components import knowledge
from pacx.models.encoder import build_encoder
from pacx.models.mae import MaskedAutoencoder
from pacx.phantom.state import STATES
from pacx.profile import load_profile
from pacx.run import open_run
from pacx.training.distill import teacher_embeddings
from pacx.training.ecg import train_ecg
from pacx.training.labs import train_labs
from pacx.training.mae import pretrain_mae, pretraining_images


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    profile = load_profile("smoke")
    parts = {
        name: getattr(profile, name).model_copy(update={"epochs": 1, "batch_size": batch})
        for name, batch in {"mae": 8, "labs": 8, "ecg": 2}.items()
    }
    folder = tmp_path_factory.mktemp("components")
    run = open_run(profile.model_copy(update={"data_root": hospital(), **parts}), folder)
    for stage in (pretrain_mae, train_labs, train_ecg):
        stage(run)
    return run


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_an_images_error_is_that_of_its_removed_pixels(norm_pix_loss):
    torch.manual_seed(0)
    mae = MaskedAutoencoder(build_encoder(32, 8, 24, 1, 2), 16, 1, 2, norm_pix_loss).eval()
    images, noise = torch.randn(5, 3, 32, 32), torch.rand(5, 16)
    with torch.no_grad():
        errors = image_errors(mae, images, noise, 0.75)
        output = mae(images, 0.75, noise)
        if not norm_pix_loss:
            assert errors.mean().item() == pytest.approx(output.loss.item(), rel=1e-5)
        _, painted = mae.reconstruct(images, output)
        for i in range(5):
            removed = output.mask[i].bool()
            gap = mae.patchify(painted)[i, removed] - mae.patchify(images)[i, removed]
            assert errors[i].item() == pytest.approx(gap.square().mean().item(), rel=1e-4)


def test_reconstruction_compares_encoders_under_one_decoder(run, monkeypatch):
    table = compare_reconstruction(run, ["mae", "random"]).set_index("model")
    assert np.isnan(table.loc["mae", "difference_value"])
    assert table.loc["random", "difference_value"] != 0
    images = pretraining_images(run, "val")
    errors = reconstruction_errors(run, "mae", images)
    assert errors.shape == (len(images),)
    assert table.loc["mae", "value"] == pytest.approx(errors.mean())
    monkeypatch.setattr(forgetting, "infer", partial(forgetting.infer, size=4))
    again = reconstruction_errors(run, "mae", np.array(images))
    assert np.allclose(again, errors, rtol=1e-4)  # the masks do not depend on the batches


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_alignment_reads_the_pooling_that_is_asked_for(run, pooling):
    table = compare_alignment(run, ["random"], "labs", pooling=pooling).set_index("metric")
    assert set(table["pooling"]) == {pooling}
    parts = {s: load_pairs(run, s) for s in ("train", "test")}
    features = {
        s: getattr(extract_features(run, "random", p.cxr), pooling) for s, p in parts.items()
    }
    targets = {s: teacher_embeddings(run, p)["labs"] for s, p in parts.items()}
    by_hand = ridge_alignment(
        features["train"], targets["train"], features["test"], targets["test"]
    )
    own = np.diag(by_hand.similarity)
    assert table.loc["cosine", "value"] == pytest.approx(own.mean())
    nearest = (by_hand.similarity >= own[:, None]).sum(axis=1) <= 5
    assert table.loc["R@5", "value"] == pytest.approx(nearest.mean())
    assert table.loc["R@5", "low"] <= nearest.mean() <= table.loc["R@5", "high"]


def test_explained_is_r2_of_the_repeated_cases():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 3))
    predicted = truth + rng.normal(size=(40, 3)) * [0.1, 1, 3]
    drawn = rng.integers(0, 3, (2, 40))
    for weights in drawn:
        rows = np.repeat(np.arange(40), weights)
        null = truth[rows].mean(0)  # sklearn's idea of knowing nothing
        expected = r2_score(truth[rows], predicted[rows], multioutput="raw_values")
        found = explained(truth, predicted, null, weights[None].astype(np.float32))
        assert found[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("split", ["train", "test"])
def test_true_states_are_in_the_order_of_the_pairs(run, split):
    pairs = symile_mimic.load_pairs(hospital(), split, 32, run.cache)
    patients = cohort("symile-mimic").patients()
    expected = patients.loc[patients["split"] == split, list(STATES)].to_numpy()
    found = true_states(run, split, pairs)
    assert list(found) == list(STATES)
    assert found.to_numpy() == pytest.approx(expected, abs=1e-4)


def test_teachers_are_compared_on_every_state(run):
    table = compare_teachers(run)
    assert set(table["state"]) == {*STATES, "mean"}
    assert len(table) == 2 * 2 * (len(STATES) + 1)
    for target in ("ecg", "labs"):
        part = table[(table["target"] == target) & (table["model"] == "teacher")]
        mean, states = part[part["state"] == "mean"], part[part["state"] != "mean"]
        assert mean["value"].item() == pytest.approx(states["value"].mean())
    assert (table["low"] <= table["value"]).all()
    assert len(knowledge(table).axes) == 2
