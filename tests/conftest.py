"""What several test files share: one smoke run of the whole book."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def pacx(*arguments: str) -> subprocess.CompletedProcess:
    """Run the command line as a reader does."""
    command = [sys.executable, "-m", "pacx", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory) -> Path:
    """Folder of runs with every chapter executed in profile smoke, once a test session."""
    runs = tmp_path_factory.mktemp("runs")
    done = pacx("run", "--profile", "smoke", "--runs", str(runs))
    assert done.returncode == 0, done.stderr
    return runs
