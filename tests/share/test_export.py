"""The exported folder answers as the encoder does, in timm, transformers and ONNX Runtime."""

import copy
import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pydicom
import pytest
import timm
import torch
from conftest import PROJECT, REAL
from huggingface_hub import ModelCard
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from safetensors.torch import load_file, save_file
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
        (lambda c: c["model_args"].update(num_heads=8), "number of heads .8. has changed"),
        (lambda c: c["model_args"].update(num_heads=5), "must be a multiple of heads"),
        (lambda c: c["model_args"].update(num_heads=4.0), "whole numbers"),
        (lambda c: c["model_args"].update(patch_size=4), "do not fit"),
        (lambda c: c["model_args"].update(mlp_ratio=float("nan")), "not that of an exported"),
        (lambda c: c.pop("test_output"), "test_output"),
        (lambda c: c.update(test_output=[0.0]), "answers to a test image in another way"),
        (lambda c: c.update(test_output=[float("nan")] * 8), "answers to a test image in another"),
    ],
)
def test_a_folder_of_another_kind_is_refused(adapted, tmp_path, spoil, said):
    export_encoder(merge_lora(adapted), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    spoil(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PacxError, match=said):
        load_exported(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s["norm.weight"].fill_(torch.nan), "not finite, first in norm.weight"),
        (lambda s: s["blocks.1.attn.qkv.weight"].mul_(-1), "answers to a test image in another"),
        (lambda s: s.update({"norm.weight": s["norm.weight"].half()}), "not of 32-bit floats"),
        (lambda s: s.update(more=torch.zeros(1)), "1 unexpected .more"),
        (lambda s: s.pop("cls_token"), "1 missing .cls_token"),
    ],
)
def test_weights_of_another_kind_are_refused(adapted, tmp_path, spoil, said):
    export_encoder(merge_lora(adapted), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    spoil(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(PacxError, match=said):
        load_exported(tmp_path)


def bombs(encoder: Path, folder: Path) -> None:
    """Files of some kilobytes that claim, or become, gigabytes."""
    for name, sizes in {
        "depth": {"depth": 10**9}, "width": {"embed_dim": 2**62}, "wider": {"embed_dim": 2**80},
        "image": {"img_size": 2**31 * 8},
    }.items():  # fmt: skip
        shutil.copytree(encoder, folder / name)
        config = json.loads((encoder / "config.json").read_text())
        config["model_args"].update(sizes)
        (folder / name / "config.json").write_text(json.dumps(config))
    deep = "[" * 200_000 + "]" * 200_000
    shutil.copytree(encoder, folder / "deep")
    (folder / "deep" / "config.json").write_text(deep)
    save_file({"weight": torch.zeros(6, 1)}, folder / "deep.probe", metadata={"probe": deep})
    about = {"dataset": "tb", "classes": ["a"], "multiclass": False, "temperature": 1}
    text = {"probe": json.dumps(about | {"measured": {}})}
    weight = {"dtype": "F32", "shape": [10**9, 1], "data_offsets": [0, 4 * 10**9]}
    header = json.dumps({"__metadata__": text, "weight": weight})
    with (folder / "sparse.probe").open("wb") as file:  # four gigabytes on no disk
        file.write(len(header).to_bytes(8, "little") + header.encode())
        file.truncate(8 + len(header) + 4 * 10**9)
    (folder / "header.probe").write_bytes((2**40).to_bytes(8, "little"))
    with zipfile.ZipFile(folder / "inflates.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**28), compresslevel=1)
    torch.save({"weight": torch.zeros(1).expand(10**9)}, folder / "expands.pth")
    (folder / "claims.dcm").write_bytes(deflated(side=40_000, blocks=1))
    (folder / "becomes.dcm").write_bytes(deflated(side=100, blocks=20))


def deflated(side: int, blocks: int) -> bytes:
    """DICOM that claims so many pixels a side, and inflates to so many times 64 MiB."""
    file, meta = pydicom.Dataset(), pydicom.dataset.FileMetaDataset()
    file.Rows = file.Columns = side
    body, head = DicomBytesIO(), DicomBytesIO()
    body.is_little_endian, body.is_implicit_VR = True, False
    write_dataset(body, file)
    meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    head.is_little_endian, head.is_implicit_VR = True, False
    write_dataset(head, meta)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    pixels = b"\xe0\x7f\x10\x00OB\0\0" + (blocks * 2**26).to_bytes(4, "little")
    first = packer.compress(body.getvalue() + pixels) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**26)) + packer.flush(zlib.Z_FULL_FLUSH)
    return bytes(128) + b"DICM" + head.getvalue() + first + blocks * block + packer.flush()


def test_bombs_are_refused_at_once_and_in_little_memory(adapted, tmp_path, capsys):
    export_encoder(merge_lora(adapted), tmp_path / "encoder")
    bombs(tmp_path / "encoder", tmp_path)
    program = """
import json, resource, sys, time
from pathlib import Path
from pacx.data.images import read_image
from pacx.errors import PacxError
from pacx.models.imports import import_encoder
from pacx.share.calibration import load_probe
from pacx.share.export import load_exported

load_exported("encoder")  # what comes with the first use is no part of a bomb
read = {"": load_exported, ".probe": lambda p: load_probe(p, 96), ".pth": import_encoder,
        ".dcm": read_image}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for path in map(Path, sys.argv[1:]):
    before, start = peak(), time.perf_counter()
    try:
        read[path.suffix](path)
        said = None
    except PacxError as error:
        said = str(error)
    print(json.dumps([path.name, time.perf_counter() - start, peak() - before, said]))
"""
    names = sorted(f.name for f in tmp_path.iterdir() if f.name != "encoder")
    done = subprocess.run(
        [sys.executable, "-c", program, *names], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(names) == 12
    for name, seconds, mib, said in rows:
        with capsys.disabled():
            print(f"\n{name}: {seconds:.2f} s, {mib:.0f} MiB, {said}", end="")
        assert said, name
        assert "\n" not in said
        assert mib < 200, name
        assert seconds < 1, name


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
