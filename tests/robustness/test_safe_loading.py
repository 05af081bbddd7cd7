"""Files are read, never obeyed; nothing goes to the network unless the reader asks."""

import pickle
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PROJECT
from tiny_hospital import copy

from pacx.data.datasets.symile_mimic import load_pairs
from pacx.errors import PacxError
from pacx.models.checkpoints import read_checkpoint, save_checkpoint
from pacx.models.ecg_founder import load_ecg_founder


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def plain(payload, path):
    path.write_bytes(pickle.dumps(payload))


def legacy(payload, path):
    torch.save(payload, path, _use_new_zipfile_serialization=False)


def array(payload, path):
    with path.open("wb") as file:
        np.save(file, np.array([payload] * 40, dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("reader", "write"),
    [*product(["checkpoint", "ECG weights"], [plain, legacy, torch.save, array]),
     ("array", plain), ("array", array)],
)  # fmt: skip
def test_malicious_pickles_do_nothing(tmp_path, reader, write):
    marker, folder = tmp_path / "ran", tmp_path / "model"
    if reader == "checkpoint":
        save_checkpoint(torch.nn.Linear(1, 1), {}, folder)
        path, read = folder / "model.safetensors", lambda: read_checkpoint(folder)
    elif reader == "ECG weights":
        path, read = tmp_path / "weights.pth", lambda: load_ecg_founder(path)
    else:
        path = copy("symile-mimic", tmp_path) / "data_npy" / "train" / "ecg_train.npy"
        read = lambda: load_pairs(tmp_path, "train", 32, tmp_path / "cache")  # noqa: E731
    write(Malicious(marker), path)
    with pytest.raises(PacxError, match=path.name if reader != "checkpoint" else "model"):
        read()
    assert not marker.exists()


def test_sources_use_no_unsafe_loader():
    files = [*(PROJECT / "pacx").rglob("*.py"), *(PROJECT / "notebooks").glob("*.py")]
    unsafe = re.compile(
        r"shell\s*=\s*True|os\.system|os\.popen|allow_pickle\s*=\s*True|read_pickle|"
        r"(pickle|joblib)\.load|yaml\.(unsafe_|full_)?load\(|"
        r"torch\.load\((?![^)]*weights_only=True)"
    )
    found = [f"{f.name}: {m[0]}" for f in files for m in unsafe.finditer(f.read_text("utf-8"))]
    assert not found


OFFLINE = """
import importlib, pkgutil, socket, sys

def refuse(*_):
    raise AssertionError("somebody asked for the network")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import pacx
for module in pkgutil.walk_packages(pacx.__path__, "pacx."):
    if module.name != "pacx.__main__":
        importlib.import_module(module.name)
from pacx.book.chapter import open_chapter
run = open_chapter(sys.argv[1], sys.argv[2])
from pacx.training.labs import load_labs, train_labs
train_labs(run)
load_labs(run)
"""


def test_a_chapter_opens_and_trains_without_a_network(tmp_path):
    profile = tmp_path / "tiny.yaml"
    profile.write_text(
        "extends: smoke\nname: tiny\nphantom: {seed: 1, image_size: 32, ecg_hz: 100, coupling: 1.0,"
        " patients: {symile-mimic: {train: 80, val: 12, test: 12}}}\n"
    )
    command = [sys.executable, "-c", OFFLINE, str(profile), str(tmp_path / "runs")]
    cut_off = ["unshare", "--net"]
    if shutil.which("unshare") and not subprocess.run([*cut_off, "true"]).returncode:
        command = [*cut_off, *command]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
