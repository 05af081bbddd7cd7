"""The exported folder answers as the encoder does, in timm, transformers and ONNX Runtime."""

import copy
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import timm
import torch
from conftest import REAL
from huggingface_hub import ModelCard
from PIL import Image
from pydicom.data import get_testdata_file
from safetensors.torch import load_file
from typer.testing import CliRunner

from pacx.cli import app
from pacx.data.images import normalise, read_image
from pacx.errors import PacxError
from pacx.evaluation.claims import PRIMARY
from pacx.models.encoder import add_lora, build_encoder, encode, merge_lora, save_encoder
from pacx.phantom.radiograph import render_radiographs
from pacx.phantom.state import sample_patients
from pacx.run import open_run
from pacx.share.cards import export_run
from pacx.share.export import (
    ONNX,
    OPSET,
    export_encoder,
    export_onnx,
    load_exported,
    onnx_missing,
)

SIZE = 56
#: Largest differences from PyTorch; embeddings are LayerNorm's, so about 1 large.
LIMITS = {"fp32": 1e-4, "fp16": 2e-2}


def squash(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def phantoms() -> torch.Tensor:
    images, _ = render_radiographs(sample_patients(4, seed=0), SIZE, seed=0)
    real = squash(read_image(get_testdata_file("RG1_UNCR.dcm")))
    return normalise(torch.from_numpy(np.concatenate([images, real[None]])))


@pytest.fixture(scope="module")
def adapted():
    """An encoder with adapters that do something."""
    torch.manual_seed(0)
    model = add_lora(build_encoder(SIZE, 8, 96, 4, 4)).eval()
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.05 * torch.randn(p.shape)
    return model


@pytest.fixture(scope="module")
def exported(adapted, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "encoder"
    encoder = merge_lora(adapted).eval()
    export_encoder(encoder, folder)
    export_onnx(encoder, folder)
    return folder


@torch.inference_mode()
def check_parity(exported: Path, adapted, images: torch.Tensor, capsys) -> None:
    cls, patches = encode(adapted, images)
    found = {}
    ours = encode(load_exported(exported), images)
    assert torch.allclose(ours[0], cls, atol=1e-5)
    hub = timm.create_model(f"local-dir:{exported}", pretrained=True).eval()
    found["timm"] = hub(images), hub.forward_features(images)[:, 1:]
    for name, file in ONNX.items():
        session = onnxruntime.InferenceSession(exported / file, providers=["CPUExecutionProvider"])
        for batch in (images, images[:1]):
            answer = session.run(["cls", "patches"], {"pixel_values": batch.numpy()})
            assert [a.dtype for a in answer] == [np.float32, np.float32]
            assert len(answer[0]) == len(batch)
            if len(batch) == len(images):
                found[name] = tuple(map(torch.from_numpy, answer))
    for name, (c, p) in found.items():
        difference = max(float((c - cls).abs().max()), float((p - patches).abs().max()))
        with capsys.disabled():
            print(f"\n{name}: largest difference from PyTorch {difference:.1e}", end="")
        assert difference < LIMITS.get(name, 1e-5)
        assert torch.cosine_similarity(c, cls).min() > 0.99


def test_parity_on_phantoms_and_on_a_public_x_ray(exported, adapted, phantoms, capsys):
    check_parity(exported, adapted, phantoms, capsys)


@pytest.mark.real
def test_parity_on_real_x_rays(exported, adapted, capsys):
    if not (REAL / "cxr" / "metadata.csv").is_file():
        pytest.skip(f"no real X-rays in {REAL} (set PACX_REAL)")
    names = pd.read_csv(REAL / "cxr" / "metadata.csv")["image"]
    images = np.stack([squash(read_image(REAL / "cxr" / "images" / name)) for name in names])
    check_parity(exported, adapted, normalise(torch.from_numpy(images)), capsys)


@torch.inference_mode()
def test_the_exported_encoder_has_the_adapters(exported, adapted, phantoms):
    with adapted.disable_adapter():
        base = encode(adapted, phantoms)[0]
    plain = timm.create_model(
        "vit_base_patch16_224", img_size=SIZE, patch_size=8, embed_dim=96, depth=4, num_heads=4,
        num_classes=0, checkpoint_path=exported / "model.safetensors",
    ).eval()  # fmt: skip
    assert torch.allclose(plain(phantoms), encode(adapted, phantoms)[0], atol=1e-5)
    assert (plain(phantoms) - base).abs().max() > 0.01


@torch.inference_mode()
def test_transformers_takes_the_folder(exported, adapted, phantoms, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoImageProcessor, AutoModel

    model = AutoModel.from_pretrained(exported).eval()
    answer = model(phantoms)
    assert torch.allclose(answer.pooler_output, encode(adapted, phantoms)[0], atol=1e-5)
    prepare = AutoImageProcessor.from_pretrained(exported)
    grey = squash(read_image(get_testdata_file("RG1_UNCR.dcm")))
    pixels = prepare(Image.fromarray(grey).convert("RGB"), return_tensors="pt")["pixel_values"]
    assert torch.allclose(pixels, normalise(torch.from_numpy(grey[None].copy())), atol=1e-5)


def test_graphs_state_their_opset_and_leave_the_batch_free(exported):
    for file in ONNX.values():
        graph = onnx.load(exported / file)
        assert {o.version for o in graph.opset_import if o.domain == ""} == {OPSET}
        onnx.checker.check_model(graph)
        first = graph.graph.input[0].type.tensor_type.shape.dim[0]
        assert first.dim_param == "batch"
    sizes = [(exported / file).stat().st_size for file in ONNX.values()]
    assert sizes == sorted(sizes, reverse=True)  # fp32, fp16


def test_key_names_are_timms(exported):
    model = timm.create_model("vit_base_patch16_224", num_classes=0, depth=4, pretrained=False)
    assert list(load_file(exported / "model.safetensors")) == sorted(model.state_dict())


def test_adapters_must_be_merged_first(adapted, tmp_path):
    with pytest.raises(PacxError, match="merge_lora"):
        export_encoder(adapted, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c: c["pretrained_cfg"].update(mean=[0.5, 0.5, 0.5]), "prepares images in another"),
        (lambda c: c["pretrained_cfg"].update(crop_mode="center"), "crop_mode"),
        (lambda c: c.pop("model_args"), "not that of an exported encoder"),
        (lambda c: c.update(model_args=[1]), "not that of an exported encoder"),
        (lambda c: c["model_args"].update(embed_dim="wide"), "not that of an exported encoder"),
        (lambda c: c["model_args"].update(depth=5), "depth 5 does not fit"),
    ],
)
def test_a_folder_of_another_kind_is_refused(adapted, tmp_path, spoil, said):
    export_encoder(merge_lora(adapted), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    spoil(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PacxError, match=said):
        load_exported(tmp_path)


def test_an_artefact_is_not_an_export(adapted, tmp_path):
    save_encoder(merge_lora(adapted), tmp_path)
    with pytest.raises(PacxError, match="pacx export RUN --to FOLDER"):
        load_exported(tmp_path)


def test_without_onnx_the_message_says_what_to_install(adapted, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert onnx_missing() == ["onnx", "onnxruntime"]
    with pytest.raises(PacxError, match="pip install onnx onnxruntime"):
        export_onnx(copy.deepcopy(merge_lora(adapted)), tmp_path)
    assert not list(tmp_path.iterdir())


def command(*arguments: str):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_export_and_predict_of_a_run(smoke_runs, tmp_path):
    to, run = tmp_path / "encoder", smoke_runs / "smoke"
    done = command("export", run, "--to", to, "--probe", "tb")
    assert done.exit_code == 0, done.exception
    files = {str(f.relative_to(to)) for f in to.rglob("*") if f.is_file()}
    assert files == {
        "README.md", "DATA_CARD.md", "LICENSE", "config.json", "model.safetensors",
        "range.safetensors", "probes/tb.safetensors", ONNX["fp32"], ONNX["fp16"],
    }  # fmt: skip
    card = (to / "README.md").read_text()
    assert ModelCard(card).data.license == "apache-2.0"
    for part in (
        "Not for clinical use", "| tb |", "Brier, calibrated", "## Limits", "CLS token",
        "Logistic regression on standardised features", PRIMARY[0].text,
    ):  # fmt: skip
        assert part in card
    assert "Every patient is made up" in (to / "DATA_CARD.md").read_text()
    with pytest.raises(PacxError, match="exists"):
        export_run(open_run(run / "profile.yaml", smoke_runs), to, probes=[])

    x_ray, out = get_testdata_file("RG1_UNCR.dcm"), tmp_path / "predictions"
    done = command("predict", x_ray, "--encoder", to, "--probe", "tb", "--out", out)
    assert done.exit_code == 0, done.exception
    assert "tb: Brier score" in done.output
    table = pd.read_csv(out / "predictions.csv")
    assert 0 < table["tb: tuberculosis"][0] < 1
    assert pd.read_parquet(out / "embeddings.parquet").shape == (1, 1 + 48)


def test_export_of_weights_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr("pacx.share.export.onnx_missing", lambda: ["onnx", "onnxruntime"])
    weights = build_encoder(32, 8, 64, 2, 1).eval()
    torch.save({"model": weights.state_dict()}, tmp_path / "mae.pth")
    to = tmp_path / "encoder"
    done = command("export", tmp_path / "mae.pth", "--to", to)
    assert done.exit_code == 0, done.exception
    assert "blocks.1.norm2.bias" in done.output
    assert "pip install onnx onnxruntime" in done.output
    assert {f.name for f in to.iterdir()} == {
        "README.md", "config.json", "imported.csv", "model.safetensors",
    }  # fmt: skip
    images = torch.zeros(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(encode(load_exported(to), images)[0], encode(weights, images)[0])
    assert ModelCard.load(to / "README.md").data.license == "other"
    done = command("export", "nothing.pth", "--to", tmp_path / "other")
    assert isinstance(done.exception, PacxError)
    assert not (tmp_path / "other").exists()
