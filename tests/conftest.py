"""What several test files share: one smoke run of the whole book, made without a network."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
#: Makes Python processes refuse the network, where the system cannot take it away.
REFUSING = {"PYTHONPATH": str(Path(__file__).parent / "offline")}


def pacx(*arguments: str) -> subprocess.CompletedProcess:
    """Run the command line as a reader without a network does."""
    prefix, environment = cut_off()
    command = [*prefix, sys.executable, "-m", "pacx", *arguments]
    return subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, env=os.environ | environment
    )


@cache
def cut_off() -> tuple[list[str], dict[str, str]]:
    """What goes before a command, and its environment, so that nothing below it has a network."""
    prefix = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") and not subprocess.run([*prefix, "true"]).returncode:
        return prefix, {}
    return [], REFUSING


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory) -> Path:
    """Folder of runs with every chapter executed in profile smoke, once a test session."""
    runs = tmp_path_factory.mktemp("runs")
    done = pacx("run", "--profile", "smoke", "--runs", str(runs))
    assert done.returncode == 0, done.stderr
    return runs
