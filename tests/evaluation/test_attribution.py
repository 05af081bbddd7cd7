"""Attributions against models whose answer is known, and the tests of attributions themselves."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from scipy.stats import spearmanr
from timm.layers import PatchEmbed
from torch import nn

from pacx.evaluation import attribution
from pacx.evaluation.attention import cases_by_rule, shares_by_region
from pacx.evaluation.attribution import (
    ProbedEncoder,
    explain,
    faithfulness_table,
    integrated_gradients,
    logit_change,
    occlusion,
    randomisation_table,
    randomised,
    rank_correlation,
    removal_curves,
)
from pacx.models.encoder import build_encoder, encode
from pacx.training.probe import fit_probes

ONCE = np.ones((1, 5), np.float32)


class LinearEncoder(nn.Module):
    """CLS token = a weighted sum of the patch embeddings: every patch's share is known."""

    def __init__(self, share):
        super().__init__()
        self.patch_embed = PatchEmbed(32, 8, 3, 12)
        self.register_buffer("share", share)

    def forward_features(self, images):
        patches = self.patch_embed(images)
        return torch.cat([self.share @ patches, patches], dim=1)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return ProbedEncoder(LinearEncoder(torch.randn(1, 16)), torch.randn(12), 0.3)


@pytest.fixture(scope="module")
def probe():
    torch.manual_seed(0)
    return ProbedEncoder(build_encoder(32, 8, 48, 3, 3), torch.randn(48), 0.1)


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return torch.randn(5, 3, 32, 32), torch.randn(1, 3, 32, 32)


def test_a_linear_model_is_explained_exactly(linear, images):
    x, baseline = images
    embed = linear.encoder.patch_embed
    known = ((embed(x) - embed(baseline)) @ linear.weight) * linear.encoder.share
    for method in (integrated_gradients, occlusion):
        found = method(linear, x, baseline).reshape(len(x), -1)
        np.testing.assert_allclose(found, known.detach(), atol=1e-4)


def test_a_probe_of_standardised_features_decides_on_raw_ones(probe, images):
    """The converged probe's layer, put on the encoder, gives the probe's own probabilities."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        many = torch.cat([images[0] + 0.3 * torch.randn(5, 3, 32, 32) for _ in range(12)])
        cls = encode(probe.encoder, many)[0].numpy()
    labels = (rng.random((len(cls), 2)) < 0.5).astype(np.float32)
    fitted = fit_probes((cls, labels))
    for label in (0, 1):
        weight, bias = fitted.weight[0, :, label].numpy(), fitted.bias[0, 0, label].item()
        logits = ProbedEncoder(probe.encoder, weight, bias)(many)
        np.testing.assert_allclose(
            logits.sigmoid().numpy(), fitted.probabilities(cls)[0, :, label], atol=1e-4
        )


def test_integrated_gradients_are_complete_and_equal_those_of_the_pixels(probe, images):
    x, baseline = images
    maps = integrated_gradients(probe, x, baseline, steps=32)
    change = logit_change(probe, x, baseline)
    np.testing.assert_allclose(maps.sum((1, 2)), change, rtol=0.02, atol=0.02)
    pixels = IntegratedGradients(probe).attribute(x, baseline, n_steps=32)
    patches = pixels.detach().sum(1).unflatten(2, (4, 8)).unflatten(1, (4, 8)).sum((2, 4))
    np.testing.assert_allclose(maps, patches, atol=1e-3)


def test_occlusion_is_what_removing_one_patch_does(probe, images):
    x, baseline = images
    maps = occlusion(probe, x, baseline)
    assert maps.shape == (5, 4, 4)
    changed = x.clone()
    changed[:, :, 8:16, 24:32] = baseline[:, :, 8:16, 24:32]
    with torch.no_grad():
        np.testing.assert_allclose(maps[:, 1, 3], probe(x) - probe(changed), atol=1e-5)


def test_occlusion_takes_no_more_images_at_once_than_stated(linear, images, monkeypatch):
    x, baseline = images
    x = torch.cat([x, -x])
    whole, seen, forward = occlusion(linear, x, baseline), [], linear.encoder.forward_features
    monkeypatch.setattr(attribution, "BATCH", 4)
    monkeypatch.setattr(
        linear.encoder, "forward_features", lambda part: seen.append(len(part)) or forward(part)
    )
    np.testing.assert_allclose(occlusion(linear, x, baseline), whole, atol=1e-5)
    assert max(seen) == 4


def test_maps_speak_for_the_evidence_whatever_its_sign(probe, images):
    x, baseline = images
    opposite = ProbedEncoder(probe.encoder, -probe.weight, -probe.bias)
    here, there = explain(probe, x, baseline), explain(opposite, x, baseline)
    assert list(here) == ["rollout", "integrated gradients", "occlusion"]
    for name, maps in here.items():
        np.testing.assert_allclose(maps, there[name], atol=1e-4)
    whole = np.abs(logit_change(probe, x, baseline))
    np.testing.assert_allclose(here["integrated gradients"].sum((1, 2)), whole, atol=0.1)


def test_the_patch_that_decides_goes_first(images):
    x, baseline = images
    share = torch.zeros(1, 16)
    share[0, 6] = 1  # only this patch counts
    decisive = ProbedEncoder(LinearEncoder(share), torch.randn(12), 0.0)
    right = np.zeros((5, 4, 4))
    right[:, 1, 2] = 1
    whole = np.abs(logit_change(decisive, x, baseline))
    zero = np.zeros_like(whole)
    shares = [0, 1 / 16, 0.5, 1]

    deletion, insertion = removal_curves(decisive, x, baseline, right, shares)
    np.testing.assert_allclose(deletion.T, [whole, zero, zero, zero], atol=1e-5)
    np.testing.assert_allclose(insertion.T, [zero, whole, whole, whole], atol=1e-5)
    deletion, insertion = removal_curves(decisive, x, baseline, -right, shares)
    np.testing.assert_allclose(deletion.T, [whole, whole, whole, zero], atol=1e-5)
    np.testing.assert_allclose(insertion.T, [zero, zero, zero, whole], atol=1e-5)

    areas = faithfulness_table(
        decisive, x, baseline, {"right": right, "wrong": -right}, ONCE, seed=0, steps=4, model="mae"
    )
    value = areas.set_index(["metric", "method"])["value"]
    # The trapezoids of a step at the first, or at the last, of four groups.
    assert value["deletion", "right"] == pytest.approx(1 / 8)
    assert value["deletion", "wrong"] == pytest.approx(7 / 8)
    assert value["insertion", "right"] == pytest.approx(7 / 8)
    assert value["insertion", "wrong"] == pytest.approx(1 / 8)
    right = areas[areas["method"] == "right"].set_index("metric")
    random = value["deletion", "random order"]
    assert right.loc["deletion", "difference_value"] == pytest.approx(1 / 8 - random)
    assert set(areas["model"]) == {"mae"}


def test_randomisation_goes_from_the_last_block_to_the_first(probe):
    trained = {k: v.clone() for k, v in probe.state_dict().items()}
    stages = dict(randomised(probe, seed=3))
    assert list(stages) == ["block 3", "block 2", "block 1", "patch embedding"]

    def changed(stage, name):
        key = f"encoder.{name}"
        return not torch.equal(stages[stage].state_dict()[key], trained[key])

    weight = "blocks.{}.attn.qkv.weight".format
    assert [changed("block 3", weight(i)) for i in range(3)] == [False, False, True]
    assert [changed("block 2", weight(i)) for i in range(3)] == [False, True, True]
    assert not changed("block 1", "patch_embed.proj.weight")
    assert changed("patch embedding", "patch_embed.proj.weight")
    assert all(torch.equal(v, probe.state_dict()[k]) for k, v in trained.items())
    assert all(torch.equal(s.weight, probe.weight) for s in stages.values())


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 6, 4, 4))
    pairs = zip(first, second, strict=True)
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in pairs]
    np.testing.assert_allclose(rank_correlation(first, second), expected)
    np.testing.assert_allclose(rank_correlation(first, np.exp(first)), 1)
    np.testing.assert_allclose(rank_correlation(first, -first), -1)


def test_maps_of_random_weights_differ(probe, images):
    maps = explain(probe, *images)
    table = randomisation_table(probe, *images, maps, ONCE, seed=3, model="pacx")
    assert list(table["what"].unique())[-1] == "patch embedding"
    assert len(table) == 4 * 3
    assert (table["value"] < 0.9).all()
    assert set(table["model"]) == {"pacx"}


def test_cases_are_the_first_wins_and_losses():
    before = np.array([1, 0, 0, 1, 1, 0, 1, 0, 0, 1], bool)
    after = np.array([1, 1, 0, 0, 0, 1, 0, 1, 1, 0], bool)
    chosen = cases_by_rule(before, after)
    assert list(chosen["kind"]) == ["win"] * 3 + ["loss"] * 3
    assert list(chosen["case"]) == [1, 5, 7, 3, 4, 6]
    alike = cases_by_rule(before, before)
    assert list(alike["case"]) == [0, 1, 2]
    assert set(alike["kind"]) == {"no difference"}


def test_shares_of_regions_are_compared_case_by_case():
    flat = np.ones((5, 4, 4), np.float32)
    left = flat.copy()
    left[:, :, 2:] = 0
    mask = np.zeros((5, 32, 32), np.float32)
    mask[:, :, :16] = 1
    regions = {"left": mask, "right": 1 - mask}
    table = shares_by_region({"mae": flat, "pacx": left}, regions, ONCE, method="rollout")
    value = table.set_index(["region", "model"])
    assert value.loc[("left", "mae"), "value"] == pytest.approx(0.5)
    assert value.loc[("left", "pacx"), "value"] == pytest.approx(1)
    assert value.loc[("right", "pacx"), "difference_value"] == pytest.approx(-0.5)
    assert set(table["area"]) == {0.5}
