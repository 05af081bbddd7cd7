"""The command line: help, exit codes, and one clear line for bad input."""

import time

import pytest
import yaml
from conftest import pacx

from pacx.profile import available_profiles


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
