import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pacx.errors import PacxError
from pacx.models.encoder import (
    LAYER_NORM_EPS,
    add_lora,
    build_encoder,
    encode,
    load_encoder,
    merge_lora,
    save_encoder,
    trainable_parameters,
)
from pacx.models.imports import import_encoder


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return build_encoder(32, 8, 48, 2, 3).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def train_adapters(model) -> None:
    """Give every trainable tensor another value; LoRA starts as a no-op."""
    generator = torch.Generator().manual_seed(2)
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn(p.shape, generator=generator)


def test_every_layer_norm_has_the_same_eps(encoder):
    norms = [m for m in encoder.modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 2 * 2 + 1
    assert {m.eps for m in norms} == {LAYER_NORM_EPS}


def test_positions_are_fixed(encoder):
    assert not encoder.pos_embed.requires_grad
    table = encoder.pos_embed[0, 1:].reshape(4, 4, 48)
    assert torch.equal(table[0, :, :24], table[3, :, :24])  # first half: the column
    assert torch.equal(table[:, 0, 24:], table[:, 3, 24:])  # second half: the row
    assert not torch.equal(table[0, 0], table[0, 1])


@pytest.mark.parametrize("shape", [(30, 8, 48, 2, 3), (32, 8, 48, 2, 5), (32, 8, 42, 2, 3)])
def test_sizes_must_divide(shape):
    with pytest.raises(PacxError, match="multiple"):
        build_encoder(*shape)


def test_saved_and_loaded_encoder_is_the_same(encoder, images, tmp_path):
    save_encoder(encoder, tmp_path / "cxr")
    loaded = load_encoder(tmp_path / "cxr").eval()
    for a, b in zip(encode(encoder, images), encode(loaded, images), strict=True):
        assert torch.equal(a, b)
    assert {f.name for f in (tmp_path / "cxr").iterdir()} == {"config.json", "model.safetensors"}


def test_every_hidden_width_survives_saving(tmp_path):
    encoder = build_encoder(16, 8, 44, 1, 2, mlp_ratio=120 / 44)  # 44 * (120 / 44) < 120
    assert encoder.blocks[0].mlp.fc1.out_features == 120
    save_encoder(encoder, tmp_path)
    imported, _ = import_encoder(tmp_path / "model.safetensors", heads=2)
    for again in (load_encoder(tmp_path), imported):
        assert again.blocks[0].mlp.fc1.out_features == 120


@pytest.mark.parametrize("damage", ["missing", "unexpected", "shape", "prefix"])
def test_partly_matching_weights_are_refused(encoder, tmp_path, damage):
    save_encoder(encoder, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    if damage == "missing":
        del state["blocks.1.attn.qkv.bias"]
    elif damage == "unexpected":
        state["head.weight"] = torch.zeros(2, 48)
    elif damage == "shape":
        state["norm.weight"] = torch.ones(47)
    else:  # a whole Lightning state dict: nothing matches
        state = {f"model.{name}": tensor for name, tensor in state.items()}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(PacxError, match="do not fit VisionTransformer"):
        load_encoder(tmp_path)


def test_damaged_folders_are_one_clear_error(encoder, tmp_path):
    with pytest.raises(PacxError, match="holds no config"):
        load_encoder(tmp_path)
    save_encoder(encoder, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"depth": 2}))
    with pytest.raises(PacxError, match="does not describe a CXR encoder"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(PacxError, match="cannot be read"):
        load_encoder(tmp_path)
    save_encoder(encoder, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(PacxError, match="cannot be read"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("norms", ["all", "final"])
def test_merged_lora_is_the_adapted_encoder(encoder, images, norms):
    before, _ = encode(encoder, images)
    model = add_lora(encoder, rank=4, alpha=8, dropout=0.1, norms=norms).eval()
    assert torch.allclose(encode(model, images)[0], before)  # a fresh adapter does nothing
    train_adapters(model)
    adapted, _ = encode(model, images)
    merged = merge_lora(model)
    assert torch.allclose(encode(merged, images)[0], adapted, atol=1e-5)
    assert (adapted - before).abs().max() > 0.1
    assert list(merged.state_dict()) == list(build_encoder(32, 8, 48, 2, 3).state_dict())
    assert torch.equal(encode(model, images)[0], adapted)  # merging took nothing away


def test_lora_trains_adapters_and_the_chosen_norms(encoder):
    lora = 8 * sum(
        layer.in_features + layer.out_features
        for block in encoder.blocks
        for layer in (block.attn.qkv, block.mlp.fc1, block.mlp.fc2)
    )
    assert trainable_parameters(add_lora(encoder, norms="final")) == lora + 2 * 48
    again = build_encoder(32, 8, 48, 2, 3)
    assert trainable_parameters(add_lora(again, norms="all")) == lora + 5 * 2 * 48


def test_adapters_must_be_merged_before_saving(encoder, tmp_path):
    with pytest.raises(PacxError, match="merge_lora"):
        save_encoder(add_lora(encoder), tmp_path)
