"""Mistakes of a reader: one clear error, a non-zero exit, no traceback, and nothing written.

Broken tables and arrays are in test_data_bad_input.py, broken raw MIMIC in test_data_pairing.py.
"""

import json
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from pacx import cli
from pacx.book.chapter import open_chapter
from pacx.data.images import load_images, read_image
from pacx.errors import PacxError
from pacx.models import ecg_founder
from pacx.models.checkpoints import load_matching, read_checkpoint, save_checkpoint
from pacx.models.encoder import build_encoder, load_encoder, save_encoder
from pacx.profile import load_profile

PAIR = ["pair", "--mimic-iv", "{t}", "--mimic-cxr", "{t}", "--mimic-ecg", "{t}", "--out", "{t}/new"]
RUN = ["run", "--profile", "smoke", "--runs", "{t}/runs"]
#: Arguments, exit code (2: the command's usage is wrong), and a word of the message. `{t}` is an
#: empty folder with one file, `file`.
COMMANDS = [
    (["nothing"], 2, "No such command"),
    (["run", "nothing"], 2, "unexpected extra argument"),
    (["run", "--profile"], 2, "requires an argument"),
    (["run", "--nothing"], 2, "No such option"),
    (["run", "--profile", "nobody"], 1, "Choose one of"),
    (["run", "--profile", "../profiles/nobody"], 1, "Choose one of"),
    (["run", "--profile", "{t}/nobody.yaml"], 1, "nobody.yaml"),
    (["run", "--profile", "smoke", "--runs", "{t}/file"], 2, "is a file"),
    (["run", "--profile", "smoke", "--runs", "{t}/file/below"], 1, "--runs"),
    (["run", "--profile", "smoke", "--runs", "/proc/nowhere"], 1, "--runs"),
    ([*RUN, "--project", "{t}/nowhere"], 2, "does not exist"),
    ([*RUN, "--project", "{t}/file"], 2, "is a file"),
    ([*RUN, "--data-root", "{t}/nowhere"], 2, "does not exist"),
    ([*RUN, "--data-root", "{t}/file"], 2, "is a file"),
    (["book", "--profile", "smoke", "--runs", "{t}/file"], 2, "is a file"),
    (["evidence", "--runs", "{t}/file"], 2, "is a file"),
    (["evidence", "--out", "{t}/file"], 2, "is a file"),
    (["phantom"], 2, "Missing option"),
    (["phantom", "--out", "{t}/file"], 2, "is a file"),
    (["phantom", "--out", "{t}/file/below", "--profile", "smoke"], 1, "Check the path"),
    (["phantom", "--out", "/proc/nowhere", "--profile", "smoke"], 1, "Check the path"),
    (["data"], 2, "Usage"),
    (["data", "check", "nobody", "--root", "{t}"], 1, "Choose one of"),
    (["data", "check", "nih-14", "--root", "{t}/nowhere"], 1, "is missing"),
    (["data", "check", "nih-14", "--root", "{t}"], 1, "is missing"),
    (["data", "check", "nih-14", "--root", "{t}/file"], 2, "is a file"),
    (["data", "check", "nih-14", "--root", "{t}", "--montage", "{t}"], 2, "is a directory"),
    (["data", "check", "nih-14", "--root", "{t}", "--most", "0"], 2, "--most"),
    (["data", "check", "nih-14", "--root", "{t}", "--most", "all"], 2, "--most"),
    (["doctor", "--runs", "{t}/file"], 2, "is a file"),
    ([*PAIR, "--seed", "-1"], 2, "--seed"),
    ([*PAIR, "--seed", "4294967296"], 2, "--seed"),
    (PAIR, 1, "missing"),
]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "file").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "said"), COMMANDS, ids=[" ".join(c[0]) for c in COMMANDS]
)
def test_commands(place, monkeypatch, capsys, arguments, code, said):
    command = [a.replace("{t}", str(place)) for a in arguments]
    monkeypatch.setattr(sys, "argv", ["pacx", *command])
    monkeypatch.setenv("COLUMNS", "400")  # so that no message is broken into lines
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert left.value.code == code
    assert said in err + out
    assert "Traceback" not in err
    assert [path.name for path in place.iterdir()] == ["file"]


def test_unknown_chapter_leaves_the_run_empty(place, monkeypatch, capsys):
    command = ["run", "--profile", "smoke", "--runs", str(place), "--only", "99"]
    monkeypatch.setattr(sys, "argv", ["pacx", *command])
    with pytest.raises(SystemExit):
        cli.main()
    assert "There is no chapter '99'" in capsys.readouterr().err
    assert not (place / "smoke").exists()


#: Settings that replace the smoke profile's, and the key that the message names.
SETTINGS = [
    ({"seed": -1}, "seed"),
    ({"seed": 2**32}, "seed"),
    ({"seed": "many"}, "seed"),
    ({"name": "../elsewhere"}, "name"),
    ({"name": ""}, "name"),
    ({"name": ".hidden"}, "name"),
    ({"benchmarks": []}, "benchmarks"),
    ({"benchmarks": "tb"}, "benchmarks"),
    ({"leaks": "maybe"}, "leaks"),
    ({"benchmark_split": "image"}, "benchmark_split"),
    ({"bootstrap": 0}, "bootstrap"),
    ({"mae": 3}, "mae"),
    ({"vit": {"width": -1}}, "vit.width"),
    ({"label_efficiency": {"fractions": [2.0], "draws": 1}}, "label_efficiency.fractions"),
    ({"label_efficiency": {"fractions": [], "draws": 1}}, "label_efficiency.fractions"),
    ({"label_efficiency": {"fractions": [float("nan")], "draws": 1}}, "fractions"),
    ({"paper_probe": {"learning_rate": float("inf")}}, "paper_probe.learning_rate"),
    ({"paper_probe": {"epochs": 1.5}}, "paper_probe.epochs"),
    ({7: "seven"}, "7"),
]


@pytest.mark.parametrize(("changes", "key"), SETTINGS, ids=[str(s[0]) for s in SETTINGS])
def test_settings(place, changes, key):
    mine = place / "mine.yaml"
    mine.write_text(yaml.safe_dump({"extends": "smoke", **changes}))
    with pytest.raises(PacxError, match=key) as caught:
        load_profile(mine)
    assert "mine.yaml" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"\x00", b"\xff\xfe", b"a: [", b"[1, 2]", b"", b"seed: 2001-99-99", b"seed: 0b_",
     b"seed: " + b"9" * 5000, b"seed: !!python/object/apply:os.getcwd []", b"[" * 5000,
     b"extends: {t}/mine.yaml", b"extends: 3"],
)  # fmt: skip
def test_files_that_are_no_profile(place, content):
    mine = place / "mine.yaml"
    mine.write_bytes(content.replace(b"{t}", str(place).encode()))
    with pytest.raises(PacxError):
        load_profile(mine)


@pytest.mark.parametrize("profile", ["nobody", "", "/", 3, None, "nobody.yaml"])
def test_unknown_profile_in_a_notebook(place, profile):
    with pytest.raises(PacxError, match="Choose one of"):
        open_chapter(profile, place / "runs")
    assert [path.name for path in place.iterdir()] == ["file"]


def test_file_as_the_runs_of_a_notebook(place):
    with pytest.raises(PacxError, match="cannot be written"):
        open_chapter("smoke", place / "file")


def spoil_checkpoint(folder, how):
    weights, config = folder / "model.safetensors", folder / "config.json"
    state = torch.nn.Linear(3, 2).state_dict()
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-4])
    elif how == "empty":
        weights.write_bytes(b"")
    elif how == "huge header":
        weights.write_bytes(b"\xff" * 8 + weights.read_bytes()[8:])
    elif how == "pickle":
        torch.save(state, weights)
    elif how == "no weights":
        weights.unlink()
    elif how == "no config":
        config.unlink()
    elif how == "config is a list":
        config.write_text(json.dumps([1]))
    elif how == "config is not JSON":
        config.write_text("{")
    elif how == "config is not text":
        config.write_bytes(b"\xff")
    elif how == "missing":
        save_file({"weight": state["weight"]}, weights)
    elif how == "unexpected":
        save_file(state | {"extra": torch.zeros(1)}, weights)
    else:
        save_file(state | {"bias": torch.zeros(5)}, weights)


@pytest.mark.parametrize(
    "how",
    ["truncated", "empty", "huge header", "pickle", "no weights", "no config", "config is a list",
     "config is not JSON", "config is not text", "missing", "unexpected", "shape"],
)  # fmt: skip
def test_checkpoints(tmp_path, how):
    model = torch.nn.Linear(3, 2)
    before = model.weight.detach().clone()
    save_checkpoint(model, {"in": 3}, tmp_path)
    spoil_checkpoint(tmp_path, how)
    with pytest.raises(PacxError) as caught:
        load_matching(model, read_checkpoint(tmp_path)[1], tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(
    "change",
    [{"patch_size": 0}, {"heads": 0}, {"depth": -1}, {"image_size": 30}, {"width": 50},
     {"patch_size": "8"}, {"patch_size": None}, {"heads": [4]}, {"unknown": 1}],
)  # fmt: skip
def test_sizes_of_an_encoder(tmp_path, change):
    config = {"image_size": 32, "patch_size": 8, "width": 48, "depth": 1, "heads": 4}
    save_encoder(build_encoder(**config), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(PacxError, match=r"config\.json does not describe a CXR encoder: ."):
        load_encoder(tmp_path)


def test_ecg_weights_with_any_byte_broken(tmp_path, monkeypatch):
    tiny = {"base_filters": 16, "filter_list": (16,), "m_blocks_list": (1,), "n_classes": 2}
    monkeypatch.setattr(ecg_founder, "ECG_FOUNDER", ecg_founder.ECG_FOUNDER | tiny)
    path, rng = tmp_path / "weights.pth", np.random.default_rng(0)
    torch.save(ecg_founder.Net1D(**ecg_founder.ECG_FOUNDER).state_dict(), path)
    whole = path.read_bytes()
    refused = 0
    for _ in range(150):
        spoilt = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)
        # The names lie in front and behind, where damage does most.
        for place in rng.integers(min(3000, len(spoilt)), size=20) if spoilt else []:
            spoilt[place * rng.choice([1, -1])] ^= int(rng.integers(1, 256))
        path.write_bytes(spoilt)
        try:
            ecg_founder.load_ecg_founder(path)
        except PacxError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.dcm"])
@pytest.mark.parametrize("content", [b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a" * 9])
def test_images(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PacxError, match=name):
        read_image(tmp_path / name)


def test_other_bad_images(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(PacxError, match="is no file"):
        read_image(tmp_path / "folder.png")
    with pytest.raises(PacxError, match="missing or unreadable"):
        load_images(tmp_path, ["folder.png"], 8, tmp_path / "cache")
    Image.new("L", (15_000, 15_000)).save(tmp_path / "bomb.png")
    with pytest.raises(PacxError, match=r"bomb\.png"):
        read_image(tmp_path / "bomb.png")
    assert not (tmp_path / "cache").exists()
