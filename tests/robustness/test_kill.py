"""Processes that are killed: the next one goes on and ends as an undisturbed one does."""

import errno
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from to_kill import PARTS, Noisy, train, work_alone

from pacx.errors import DiskFullError, PacxError
from pacx.run import CHECKPOINT, open_run
from pacx.training import checkpoint
from pacx.training import fit as fitting

KILLS = int(os.environ.get("PACX_KILLS", "10"))  # of all parts together
#: With ten kills, a server imports the library once and every process is forked from it; with more,
#: every process is a new program that imports it itself, as a command does.
STARTS = get_context("forkserver" if KILLS <= 10 else "spawn")
STARTS.set_forkserver_preload(["pacx.book.build", "pacx.pairing.files", "pacx.training.fit"])


@pytest.fixture
def often(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(fitting, "LOOK_EVERY", 1)


@pytest.mark.parametrize("stop", range(1, 10))
def test_training_goes_on_bit_for_bit_from_every_step(tmp_path, often, stop):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    with pytest.raises(InterruptedError):
        train(cut, Noisy(stop))
    torch.rand(7)  # what came before does not matter
    assert train(cut, Noisy()) == train(whole, Noisy())


def test_a_short_training_writes_no_checkpoint(tmp_path):
    train(tmp_path, Noisy())
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]


def test_a_checkpoint_is_kept_for_the_same_artefact_only(tmp_path):
    run, seen = open_run("smoke", tmp_path), []

    def make(folder: Path) -> None:
        seen.append(sorted(path.name for path in folder.iterdir()))
        (folder / CHECKPOINT).write_text("")
        (folder / "half").write_text("")
        if len(seen) < 4:
            raise InterruptedError

    for settings in (1, 1, 2):
        with pytest.raises(InterruptedError):
            run.build("thing", make, settings)
    folder = run.build("thing", make, 2)
    assert seen == [["key"], ["key", CHECKPOINT], ["key"], ["key", CHECKPOINT]]
    assert sorted(path.name for path in folder.iterdir()) == ["half", "made.json"]
    assert visible(run.artefacts) == [folder]


def test_bad_input_leaves_no_checkpoint(tmp_path):
    run = open_run("smoke", tmp_path)

    def make(folder: Path) -> None:
        raise PacxError("bad")

    with pytest.raises(PacxError, match="bad"):
        run.build("thing", make)
    assert not visible(run.artefacts)
    assert not unfinished(run.artefacts)


def test_a_full_disk_keeps_the_checkpoint(tmp_path):
    run, seen = open_run("smoke", tmp_path), []

    def make(folder: Path) -> None:
        seen.append((folder / CHECKPOINT).exists())
        (folder / CHECKPOINT).touch()
        if len(seen) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFullError, match="artefacts/thing does not fit on its disk"):
        run.build("thing", make)
    run.build("thing", make)
    assert seen == [False, True]


def test_a_folder_that_a_killed_process_left_is_removed(tmp_path):
    run = open_run("smoke", tmp_path)

    def killed(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.build("thing", killed)
    folder = run.build("thing", lambda folder: (folder / "whole").write_text(""))
    assert sorted(path.name for path in folder.iterdir()) == ["made.json", "whole"]


@pytest.mark.skipif(os.name != "posix", reason="has no lock")
@pytest.mark.parametrize("settings", [1, 2])
def test_one_artefact_is_made_by_one_process_at_a_time(tmp_path, monkeypatch, settings):
    run = open_run("smoke", tmp_path)
    begun, waiting, go_on = (threading.Event() for _ in range(3))
    # Polling what pytest captures would lose what another thread prints at that moment.
    monkeypatch.setattr("pacx.files.PATIENCE", 0)
    monkeypatch.setattr("pacx.files.print", lambda text, file: waiting.set(), raising=False)

    def make(folder: Path, who: str) -> None:
        (folder / "weights").write_text(who)
        if who == "first":
            begun.set()
            assert go_on.wait(30)
        (folder / "config").write_text(who)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(run.build, "thing", partial(make, who="first"), 1)
        assert begun.wait(30)
        second = pool.submit(run.build, "thing", partial(make, who="second"), settings)
        assert waiting.wait(30)
        assert (run.artefacts / ".thing.partial" / "weights").read_text() == "first"
        go_on.set()
        first.result()
        folder = second.result()
    last = {1: "first", 2: "second"}[settings]  # with the same settings it is made once
    assert {(folder / name).read_text() for name in ("weights", "config")} == {last}


def test_trainings_that_start_together_make_an_artefact_once(place):
    started = [start("training", place / "given", place / "out") for _ in range(2)]
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    assert (place / "given" / "begun").read_text() == "x"
    (weights,) = (place / "out").rglob("weights")
    assert weights.read_bytes() == train(place, Noisy())


def test_books_that_are_built_together_wait_for_each_other(place):
    given, out = place / "given", place / "out"
    PARTS["book"].give(given)
    shutil.copytree(given / "start", out)
    started = [start("book", given, out) for _ in range(2)]
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    code, _ = run("book", given, place / "alone")
    assert code == 0
    assert contents(out) == contents(place / "alone")


@pytest.fixture
def place():
    """A folder whose path is short enough for a kernel's sockets, and where they stay."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        (Path(folder) / "given").mkdir()
        yield Path(folder)


@pytest.mark.parametrize("name", PARTS)
def test_what_is_killed_goes_on(place, name):
    given, whole, cut = place / "given", place / "whole", place / "cut"
    PARTS[name].give(given)
    code, seconds = run(name, given, whole)
    expected = contents(whole)
    assert code == 0
    assert expected
    rng, kills = np.random.default_rng(KILLS), 0
    while kills < PARTS[name].kills * KILLS / 10:
        code, took = run(name, given, cut, rng.uniform(0, seconds))
        if code:
            assert code == -signal.SIGKILL
            kills += 1
            assert contents(cut).items() <= expected.items()  # nothing half-written has a name
        else:  # was done before it could be killed
            assert contents(cut) == expected
            shutil.rmtree(cut)
            seconds = min(seconds, took)
    assert run(name, given, cut)[0] == 0
    assert contents(cut) == expected
    assert not unfinished(cut)


def run(name: str, given: Path, out: Path, limit: float | None = None) -> tuple[int, float]:
    """Work in a process group of its own, killed at the limit: exit code, and seconds."""
    if not out.exists() and (given / "start").exists():
        shutil.copytree(given / "start", out)
    process = start(name, given, out)
    started = time.perf_counter()
    process.join(limit)
    if process.exitcode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode, time.perf_counter() - started


def start(name: str, given: Path, out: Path) -> BaseProcess:
    """A process group of its own that begins to work."""
    ready, tell = STARTS.Pipe(duplex=False)
    process = STARTS.Process(target=work_alone, args=(name, given, out, tell))
    process.start()
    tell.close()
    ready.recv()
    return process


def contents(folder: Path) -> dict[str, object]:
    """What lies there under its final name, without the times that some files tell."""

    def content(file: Path) -> object:
        if file.suffix == ".ipynb":
            cells = nbformat.read(file, as_version=4).cells
            return [(cell.source, cell.get("outputs")) for cell in cells]
        return (
            sorted(json.loads(file.read_text())) if file.name == "made.json" else file.read_bytes()
        )

    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    passing = ".partial", ".lock"  # gone when the work is done
    return {n: content(f) for n, f in files.items() if not any(p in n for p in passing)}


def visible(folder: Path) -> list[Path]:
    """What lies there besides hidden files, such as locks."""
    return list(folder.glob("[!.]*"))


def unfinished(folder: Path) -> list[Path]:
    """Temporary names, but for `profile.<process>.partial`: a run does not look for others'."""
    return [path for path in folder.rglob("*.partial*") if not path.name.startswith("profile.")]
