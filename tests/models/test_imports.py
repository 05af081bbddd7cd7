"""Weights of others: their names, their adapters, and everything that must be refused."""

import argparse
import pickle
import re
from pathlib import Path

import pytest
import timm
import torch
from golden_formula import formula_weights, golden_files, setting
from safetensors.torch import save_file
from tiny_hospital import hospital

from pacx.data.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from pacx.errors import PacxError
from pacx.models.encoder import add_lora, build_encoder, encode, load_encoder, merge_lora
from pacx.models.imports import import_encoder
from pacx.models.mae import MaskedAutoencoder
from pacx.profile import load_profile
from pacx.run import open_run
from pacx.training.mae import pretrain_mae

SHAPE = (32, 8, 64, 2, 1)
TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return build_encoder(*SHAPE).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def public_mae(encoder) -> dict[str, torch.Tensor]:
    """The names of the public weights, decoder included."""
    state = MaskedAutoencoder(encoder, 32, 1, 2).state_dict()
    return {name.removeprefix("encoder."): tensor for name, tensor in state.items()}


def authors_checkpoint(encoder) -> tuple[torch.nn.Module, dict]:
    """A Lightning checkpoint of stage 2 as the authors' code writes it."""
    model = add_lora(encoder).eval()
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn(p.shape)
    state = {f"cxr_encoder.{name}": tensor for name, tensor in model.state_dict().items()}
    state["logit_scale"] = torch.tensor(2.6)
    state["cxr_to_shared.mlp.1.weight"] = torch.zeros(4, 64)
    about = {"epoch": 9, "global_step": 100, "pytorch-lightning_version": "2.5.0"}
    return model, about | {"state_dict": state, "hyper_parameters": {"lora_r": 8}}


def test_arguments_beside_the_weights_are_allowed_and_nothing_else(tmp_path):
    encoder = build_encoder(32, 8, 24, 1, 2)
    weights = {"model": public_mae(encoder), "args": argparse.Namespace(lr=1e-3), "epoch": 3}
    torch.save(weights, tmp_path / "mae.pth")
    loaded, _ = import_encoder(str(tmp_path / "mae.pth"), heads=2)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    torch.save(weights | {"path": tmp_path}, tmp_path / "more.pth")
    with pytest.raises(PacxError, match=r"more\.pth is damaged or holds more than weights"):
        import_encoder(str(tmp_path / "more.pth"), heads=2)


def test_stage_one_goes_on_from_a_foreign_encoder(tmp_path):
    profile = load_profile("smoke")
    torch.manual_seed(5)
    foreign = build_encoder(**profile.vit.model_dump())
    torch.save({"model": public_mae(foreign)}, tmp_path / "mae.pth")
    wrong = build_encoder(**profile.vit.model_dump() | {"depth": 1})
    torch.save({"model": public_mae(wrong)}, tmp_path / "wrong.pth")

    def run_from(name):
        # A learning rate too small to change a weight: what was loaded comes out.
        update = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-12, "weights": tmp_path / name}
        mae = profile.mae.model_copy(update=update)
        about = {"name": name, "data_root": hospital(), "mae": mae}
        return open_run(profile.model_copy(update=about), tmp_path / "runs")

    encoder = load_encoder(pretrain_mae(run_from("mae.pth")))
    for name, tensor in foreign.state_dict().items():
        torch.testing.assert_close(encoder.state_dict()[name], tensor, rtol=0, atol=1e-9)
    with pytest.raises(PacxError, match=r"wrong\.pth do not fit VisionTransformer.*missing"):
        pretrain_mae(run_from("wrong.pth"))


def golden(item: str) -> dict:
    return next(iter(golden_files(item).values()))


def test_public_mae_weights(encoder, images, tmp_path):
    state = public_mae(encoder)
    pattern = {re.sub(r"blocks\.\d+", "blocks.N", name) for name in state}
    published = {re.sub(r"blocks\.\d+", "blocks.N", name) for name, *_ in golden("G3")["state"]}
    assert pattern == published
    torch.save({"model": state}, tmp_path / "mae.pth")
    found, table = import_encoder(tmp_path / "mae.pth")
    for ours, theirs in zip(encode(found, images), encode(encoder, images), strict=True):
        assert torch.equal(ours, theirs)
    assert set(table.loc[table["what"] == "loaded", "here"]) == set(encoder.state_dict())
    left_out = table.loc[table["what"] != "loaded", "in the file"]
    assert left_out.str.startswith(("decoder_", "mask_token")).all()
    assert len(table) == len(state)


def test_authors_checkpoint_with_adapters(encoder, images, tmp_path):
    model, checkpoint = authors_checkpoint(encoder)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    found, table = import_encoder(tmp_path / "last.ckpt")
    assert torch.allclose(encode(found, images)[0], encode(model, images)[0], atol=1e-5)
    assert torch.equal(encode(found, images)[0], encode(merge_lora(model), images)[0])
    assert (table["what"] == "adapter, merged").sum() == 2 * 3 * 2  # blocks, layers, A and B
    assert set(table["here"]) - {""} == set(build_encoder(*SHAPE).state_dict())
    assert (table["what"] == "left out: not of the encoder").sum() == 2


def test_the_authors_names_and_numbers(tmp_path):
    """The reference code's own names, shapes and formula weights give its recorded embedding."""
    reference = golden("G10")
    weights = formula_weights(reference)
    state = {f"cxr_encoder.{name}": tensor for name, tensor in weights.items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    heads, alpha = (int(setting(reference["model"], name)) for name in ("num_heads", "alpha"))
    found, _ = import_encoder(tmp_path / "last.ckpt", heads=heads)
    layer = "base_model.model.blocks.1.mlp.fc1."
    a, b = (weights[f"{layer}lora_{x}.default.weight"] for x in "AB")
    by_rule = weights[f"{layer}base_layer.weight"] + alpha / len(a) * b @ a
    assert torch.allclose(found.blocks[1].mlp.fc1.weight, by_rule, atol=1e-6)
    with pytest.raises(PacxError, match="give `heads`"):
        import_encoder(tmp_path / "last.ckpt")


def test_stage_one_checkpoint_and_safetensors(encoder, images, tmp_path):
    state = {f"model.{name}": tensor for name, tensor in public_mae(encoder).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "mae.ckpt")
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    for file in ("mae.ckpt", "encoder.safetensors"):
        found, _ = import_encoder(tmp_path / file)
        assert torch.equal(encode(found, images)[0], encode(encoder, images)[0])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("missing", "do not fit"),
        ("adapter", "do not fit"),
        ("unexpected", "do not fit"),
        ("shape", "do not fit"),
        ("not finite", "not finite, first in cxr_encoder.base_model.model.norm.bias"),
        ("two", "holds 2 vision transformers"),
        ("none", "holds 0 vision transformers"),
        ("no norm", "lacks norm.weight"),
        ("no positions", "lacks pos_embed"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(encoder, tmp_path, damage, said):
    state = authors_checkpoint(encoder)[1]["state_dict"]
    inner = "cxr_encoder.base_model.model."
    if damage == "missing":
        del state[f"{inner}blocks.1.attn.proj.bias"]
    elif damage == "adapter":
        del state[f"{inner}blocks.1.mlp.fc2.lora_B.default.weight"]
    elif damage == "unexpected":
        state[f"{inner}blocks.0.attn.q_norm.weight"] = torch.ones(64)
    elif damage == "shape":
        state[f"{inner}norm.bias"] = torch.zeros(63)
    elif damage == "not finite":
        state[f"{inner}norm.bias"][3] = float("nan")
    elif damage == "two":
        state["teacher.cls_token"] = torch.zeros(1, 1, 64)
    elif damage == "none":
        del state[f"{inner}cls_token"]
    elif damage == "no norm":
        del state[f"{inner}norm.weight"]
    else:
        del state[f"{inner}pos_embed"]
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    with pytest.raises(PacxError, match=said):
        import_encoder(tmp_path / "last.ckpt")


class Malicious:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_files_are_read_never_obeyed(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Malicious(marker)))
    torch.save({"state_dict": {}, "hook": Malicious(marker)}, tmp_path / "b.ckpt")
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    torch.save({"model": [1, 2]}, tmp_path / "d.pth")
    for file, said in (("a.pth", "damaged"), ("b.ckpt", "more than weights"),
                       ("c.safetensors", "damaged"), ("d.pth", "no state dict")):  # fmt: skip
        with pytest.raises(PacxError, match=said):
            import_encoder(tmp_path / file)
    assert not marker.exists()
    with pytest.raises(PacxError, match="neither a file nor a model"):
        import_encoder("no-such-model")


def test_timm_model_from_the_cache(tmp_path, monkeypatch):
    torch.manual_seed(0)
    theirs = timm.create_model(TINY, num_classes=0).eval()
    mean, std = theirs.pretrained_cfg["mean"], theirs.pretrained_cfg["std"]
    assert mean != IMAGENET_MEAN  # otherwise the test shows nothing
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    cache = {f"timm/{TINY}": str(tmp_path / "model.safetensors")}
    monkeypatch.setattr(
        "pacx.models.imports.try_to_load_from_cache", lambda repo, _: cache.get(repo)
    )
    found, table = import_encoder(f"hf-hub:timm/{TINY}")
    grey = torch.randint(0, 256, (1, 224, 224), generator=torch.Generator().manual_seed(0))
    pixels = grey[:, None].expand(-1, 3, -1, -1) / 255
    as_they_do = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.inference_mode():
        ours = encode(found, normalise(grey))[0]
        assert torch.allclose(ours, theirs(as_they_do), atol=1e-3)
    assert (table["what"] == "loaded").all()
    with pytest.raises(PacxError, match=r"hf download timm/vit_base_patch16_224\.mae"):
        import_encoder("vit_base_patch16_224.mae")
    assert std != IMAGENET_STD
