"""Every chapter runs, and the runner copes with failure and with nothing to do."""

import os
import subprocess
import sys
import textwrap

import nbformat
import pytest
import torch
from conftest import PROJECT, REFUSING, cut_off, pacx
from joblib import cpu_count

from pacx.book.execution import execute
from pacx.errors import PacxError
from pacx.profile import load_profile
from pacx.run import open_run

CHAPTERS = sorted(path.stem for path in (PROJECT / "notebooks").glob("[0-9][0-9]_*.py"))


@pytest.mark.parametrize(("prefix", "environment"), [cut_off(), ([], REFUSING)])
@pytest.mark.parametrize(
    "ask",
    [
        "socket.create_connection(('192.0.2.1', 80), 2)",
        "socket.getaddrinfo('example.org', 80)",
        "socket.socket().connect(('192.0.2.1', 80))",
        "os.system('true') or subprocess.run([sys.executable, '-c', 'import socket; '"
        " 'socket.socket().connect((\"192.0.2.1\", 80))'], check=True)",
    ],
)
def test_commands_of_the_tests_have_no_network(prefix, environment, ask):
    program = f"import os, socket, subprocess, sys; {ask}"
    command = [*prefix, sys.executable, "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, timeout=60
    )
    assert done.returncode
    assert "OSError" in done.stderr or "gaierror" in done.stderr


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_runs_without_error(smoke_runs, chapter):
    notebook = nbformat.read(smoke_runs / "smoke" / "notebooks" / f"{chapter}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert all(cell.execution_count for cell in code)
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert notebook.metadata["pacx"]["profile"] == "smoke"
    assert str(smoke_runs) not in nbformat.writes(notebook), "a path of this machine"


@pytest.mark.parametrize("name", ["transfer", "label_efficiency", "alignment", "components"])
def test_results_that_the_book_compares_exist(smoke_runs, name):
    frame = open_run("smoke", smoke_runs).load_results(name)
    assert {"dataset", "model", "metric", "value"} <= set(frame.columns)
    assert {"mae", "pacx"} <= set(frame["model"])


def test_second_run_executes_nothing(smoke_runs):
    done = pacx("run", "--profile", "smoke", "--runs", str(smoke_runs))
    assert done.returncode == 0
    assert done.stdout.count("unchanged") == len(CHAPTERS)


@pytest.fixture
def project(tmp_path):
    """A project with two tiny chapters; the second fails while a file is missing."""
    folder = tmp_path / "project"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "constraints.txt").write_text("")
    chapter = """\
        # %% tags=["parameters"]
        profile = "demo"
        runs = "runs"

        # %%
        {}
    """
    bodies = {"01_good": "print(profile)", "02_bad": "open('needed')"}
    for name, body in bodies.items():
        text = textwrap.dedent(chapter).format(body)
        (folder / "notebooks" / f"{name}.py").write_text(text)
    return folder


def test_failure_names_chapter_cell_and_error_then_run_goes_on(project, tmp_path, capsys):
    run = open_run("smoke", tmp_path / "runs")
    with pytest.raises(PacxError, match=r"02_bad failed in cell .*FileNotFoundError") as caught:
        execute(run, project=project)
    assert "02_bad.failed.ipynb" in str(caught.value)
    files = sorted(path.name for path in run.notebooks.iterdir())
    assert files == ["01_good.ipynb", "02_bad.failed.ipynb"]

    (project / "needed").write_text("")
    capsys.readouterr()
    execute(run, project=project)
    assert "01_good: unchanged" in capsys.readouterr().out
    assert sorted(path.name for path in run.notebooks.iterdir()) == [
        "01_good.ipynb",
        "02_bad.ipynb",
    ]


@pytest.mark.skipif(cpu_count() < 2 or torch.cuda.is_available(), reason="one chapter at a time")
def test_a_chapter_that_fails_leaves_the_one_that_runs_beside_it(project, tmp_path):
    run = open_run("smoke", tmp_path / "runs")
    failed = run.notebooks / "02_bad.failed.ipynb"
    wait = f"""
# %%
import time
from pathlib import Path

until = time.monotonic() + 60
while not Path({str(failed)!r}).exists():
    assert time.monotonic() < until
    time.sleep(0.1)
"""
    with (project / "notebooks" / "01_good.py").open("a") as source:
        source.write(wait)
    with pytest.raises(PacxError, match="02_bad failed in cell"):
        execute(run, project=project)
    assert failed.is_file()
    assert (run.notebooks / "01_good.ipynb").is_file()


def test_failure_on_real_data_tells_no_patient(project, tmp_path):
    profile = load_profile("smoke", data_root=tmp_path)
    run = open_run(profile, tmp_path / "runs")
    with pytest.raises(PacxError, match="02_bad failed in cell") as caught:
        execute(run, project=project)
    assert "needed" not in str(caught.value)
    private = sorted(path.name for path in run.private.iterdir())
    assert private == ["01_good.ipynb", "02_bad.failed.ipynb"]
    assert sorted(path.name for path in run.notebooks.iterdir()) == ["01_good.ipynb"]


def test_changed_chapter_is_executed_again(project, tmp_path, capsys):
    run = open_run("smoke", tmp_path / "runs")
    execute(run, only="01", project=project)
    execute(run, only="01", project=project)
    assert "unchanged" in capsys.readouterr().out
    source = project / "notebooks" / "01_good.py"
    source.write_text(source.read_text() + "\n# %%\n1 + 1\n")
    execute(run, only="01", project=project)
    assert "unchanged" not in capsys.readouterr().out
