"""Attention and alignment, measured on the encoder."""

import numpy as np
import pytest
import torch

from pacx.errors import PacxError
from pacx.evaluation.alignment import ridge_alignment
from pacx.evaluation.attention import (
    attention_maps,
    attention_rollout,
    mass_in_mask,
    rollout_of,
    upsample,
)
from pacx.models.encoder import build_encoder


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return build_encoder(32, 8, 48, 3, 3).eval()


@pytest.fixture(scope="module")
def maps(encoder):
    return attention_maps(encoder, torch.randn(2, 3, 32, 32))


def test_reading_attention_leaves_the_encoder_as_it_was(encoder):
    images = torch.randn(2, 3, 32, 32)
    before, fused = encoder(images), [b.attn.fused_attn for b in encoder.blocks]
    maps = attention_maps(encoder, images)
    assert maps.shape == (2, 3, 3, 17, 17)
    assert torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-5)
    assert [b.attn.fused_attn for b in encoder.blocks] == fused
    assert not any(b.attn.attn_drop._forward_pre_hooks for b in encoder.blocks)
    assert torch.equal(encoder(images), before)
    with pytest.raises(AssertionError):  # timm's own, at a wrong image size
        attention_maps(encoder, torch.randn(2, 3, 40, 40))
    assert [b.attn.fused_attn for b in encoder.blocks] == fused
    assert not any(b.attn.attn_drop._forward_pre_hooks for b in encoder.blocks)


def test_rollout_is_the_product_over_layers(maps):
    joint = torch.eye(17)
    for layer in maps.mean(2).unbind(1):
        a = layer + torch.eye(17)
        joint = (a / (a.sum(-1, keepdim=True) + 1e-6)) @ joint
    assert torch.allclose(joint.sum(-1), torch.ones(()), atol=1e-5)
    assert torch.allclose(attention_rollout(maps).flatten(1), joint[:, 0, 1:], atol=1e-6)


def test_the_mean_of_heads_is_all_that_a_rollout_needs(encoder):
    images = torch.randn(2, 3, 32, 32)
    mean = attention_maps(encoder, images, mean_of_heads=True)
    assert mean.shape == (2, 3, 1, 17, 17)
    expected = attention_rollout(attention_maps(encoder, images))
    assert torch.allclose(rollout_of(encoder, images), expected, atol=1e-7)


def test_uniform_attention_gives_a_flat_map():
    flat = torch.full((1, 2, 1, 17, 17), 1 / 17)
    rollout = attention_rollout(flat)
    assert torch.allclose(rollout, rollout[0, 0, 0].expand(1, 4, 4))
    assert not torch.allclose(rollout, attention_rollout(flat[:, 1:]))


def test_patches_that_form_no_square_are_refused(maps):
    with pytest.raises(PacxError, match="square"):
        attention_rollout(maps[..., :16, :16])


def test_mass_over_a_partition_is_one(maps):
    rollout = attention_rollout(maps)
    left = torch.zeros(2, 32, 32, dtype=torch.bool)
    left[:, :, :13] = True  # cuts through patches
    shares = mass_in_mask(rollout, left), mass_in_mask(rollout, ~left)
    assert torch.allclose(shares[0] + shares[1], torch.ones(2), atol=1e-6)
    spot = torch.zeros(1, 4, 4)
    spot[0, 1, 2] = 3.0
    inside = torch.zeros(1, 32, 32)
    inside[0, 8:16, 16:20] = 1  # the left half of that patch
    assert mass_in_mask(spot, inside).item() == pytest.approx(0.5)
    with pytest.raises(PacxError, match="masks"):
        mass_in_mask(rollout, left[0])


def test_a_large_map_has_the_pixels_that_were_asked_for(maps):
    assert upsample(attention_rollout(maps), 32).shape == (2, 32, 32)


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 16))
    y = x @ rng.normal(size=(16, 8)) + 5
    return x[:300], y[:300], x[300:], y[300:]


def test_linear_targets_are_found_and_shuffled_ones_are_not(pairs):
    found = ridge_alignment(*pairs)
    assert found.cosine_centred > 0.99
    assert found.recall[1] > 0.9
    assert abs(found.random_centred) < 0.2 < found.random_raw  # the common mean flatters
    x, y, *test = pairs
    shuffled = ridge_alignment(x, np.random.default_rng(1).permutation(y), *test)
    assert shuffled.recall[10] < 0.4
    assert abs(shuffled.cosine_centred) < 0.3
