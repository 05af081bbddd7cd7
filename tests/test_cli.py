"""The command line: help, exit codes, and one clear line for bad input."""

import shutil
import time

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import pacx
from typer.testing import CliRunner

from pacx import cli
from pacx.data.table import TERMS
from pacx.models.encoder import build_encoder
from pacx.pairing import check
from pacx.profile import available_profiles, load_profile
from pacx.run import open_run
from pacx.share import cards


@pytest.mark.parametrize("command", [[], ["run"], ["book"], ["phantom"], ["doctor"]])
def test_help_explains(command):
    done = pacx(*command, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_help_is_quick():
    pacx("--help")  # compiles
    started = time.perf_counter()
    pacx("--help")
    assert time.perf_counter() - started < 2


def test_version():
    assert pacx("--version").stdout.strip() == "0.1.0"


def test_doctor_lists_profiles():
    done = pacx("doctor")
    assert done.returncode == 0, done.stderr
    for profile in available_profiles():
        assert f"profile {profile}:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--profile", "nobody"], "Choose one of"),
        (["book", "--profile", "nobody"], "Choose one of"),
        (["phantom", "--out", "x", "--profile", "nobody"], "Choose one of"),
        (["run", "--profile", "smoke", "--only", "99"], "01_cohort"),
        (["run", "--profile", "smoke", "--project", "tests"], "checkout"),
        (["book", "--profile", "smoke"], "pacx run --profile smoke"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, said, tmp_path):
    if arguments[0] != "phantom":
        arguments = [*arguments, "--runs", str(tmp_path)]
    done = pacx(*arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_unknown_key_in_a_profile_is_named(tmp_path):
    from importlib import resources

    smoke = resources.files("pacx") / "profiles" / "smoke.yaml"
    values = yaml.safe_load(smoke.read_text()) | {"epoch": 3}
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(values))
    done = pacx("run", "--profile", str(mine), "--runs", str(tmp_path))
    assert done.returncode == 1
    assert "epoch" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_option_is_a_usage_error():
    assert pacx("run", "--nothing").returncode == 2


def test_export_of_a_copied_run_touches_no_run(tmp_path):
    run = open_run("smoke", tmp_path)
    shutil.copytree(run.folder, tmp_path / "kept")
    run = open_run(load_profile("smoke").model_copy(update={"seed": 5}), tmp_path)
    run.save_results("numbers", pd.DataFrame({"value": [1]}))
    done = pacx("export", str(tmp_path / "kept"), "--to", str(tmp_path / "encoder"))
    assert done.returncode == 1
    assert "kept holds the run of profile smoke. Rename" in done.stderr
    assert run.load_results("numbers")["value"].item() == 1


def test_book_of_other_settings_touches_no_run(tmp_path):
    run = open_run(load_profile("smoke", precision="bf16"), tmp_path)
    run.save_results("numbers", pd.DataFrame({"value": [1]}))
    done = pacx("book", "--profile", "smoke", "--runs", str(tmp_path))
    assert done.returncode == 1
    assert "other settings" in done.stderr
    assert str(run.folder / "profile.yaml") in done.stderr
    assert run.load_results("numbers")["value"].item() == 1
    own = ["--profile", str(run.folder / "profile.yaml"), "--runs", str(tmp_path)]
    assert "Not executed yet" in pacx("book", *own).stderr


@pytest.mark.parametrize(
    ("dataset", "place"),
    [("tb", ""), ("chexpert", "runs/private/"), ("vindr-cxr", "runs/private/")],
)
def test_a_montage_of_patients_goes_where_git_does_not_look(tmp_path, monkeypatch, dataset, place):
    tiles = [np.zeros((8, 8), np.uint8)]
    nothing = pd.DataFrame()
    found = check.Check(dataset, tmp_path, TERMS[dataset], nothing, nothing, tiles=tiles)
    monkeypatch.setattr(check, "check_dataset", lambda *arguments: found)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["data", "check", dataset, "--root", "data"])
    picture = tmp_path / f"{place}{dataset}-montage.png"
    assert picture.is_file()
    assert f"The montage is at {picture}" in done.output


@pytest.mark.parametrize("onnx", [True, False])
def test_the_card_speaks_of_onnx_where_there_is_some(tmp_path, monkeypatch, onnx):
    monkeypatch.setattr(cards, "export_onnx", lambda *arguments, **options: None)
    torch.save(build_encoder(32, 8, 64, 1, 1).state_dict(), tmp_path / "mae.pth")
    folder, _ = cards.export_import(str(tmp_path / "mae.pth"), tmp_path / "encoder", onnx=onnx)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert ("onnxruntime" in card) == onnx
