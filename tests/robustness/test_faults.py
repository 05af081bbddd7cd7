"""A full disk, a disk that is read-only, and what dead processes left: clear errors, no debris."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import PROJECT
from PIL import Image
from to_kill import RAW, give_executed_chapters

from pacx import cli
from pacx.book import build as book
from pacx.data import images
from pacx.data.images import load_images
from pacx.errors import PacxError
from pacx.files import cached_array
from pacx.models.checkpoints import save_checkpoint
from pacx.pairing import files as pair_files
from pacx.run import open_run


@pytest.fixture
def disk(tmp_path):
    """Makes a disk of so many KiB."""
    mounted = []

    def make(size: int) -> Path:
        place = tmp_path / f"disk{size}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no program to mount a small disk with")
        if done.returncode:
            pytest.skip(f"this user may not mount a small disk: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def names_of(folder: Path, count: int) -> list[str]:
    """So many images of 64 pixels a side."""
    folder.mkdir()
    for number in range(count):
        pixels = np.full((64, 64), number, np.uint8)
        pixels[-1, -1] += 1
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return [f"{number}.png" for number in range(count)]


# ---------------------------------------- a full disk
def test_no_room_for_the_image_cache(disk, tmp_path):
    cache = disk(100) / "cache"
    names = names_of(tmp_path / "images", 30)
    with pytest.raises(PacxError, match=r"0\.1 MiB \(No space left on device\).*another disk"):
        load_images(tmp_path / "images", names, 64, cache)
    assert not list(cache.glob("[!.]*"))


def test_no_room_for_a_cached_array(disk):
    cache, filled = disk(100) / "cache", []
    with pytest.raises(PacxError, match=r"cache cannot take an array of 0\.4 MiB"):
        cached_array(cache, ("large",), (100, 1000), np.float32, filled.append)
    assert not list(cache.glob("[!.]*"))
    assert not filled


def test_no_room_for_results_keeps_the_old_ones(disk):
    run = open_run("smoke", disk(200))
    run.save_results("numbers", pd.DataFrame({"value": [1.5]}))
    noise = np.random.default_rng(0).normal(size=100_000)
    with pytest.raises(PacxError, match=r"results/numbers\.parquet does not fit on its disk"):
        run.save_results("numbers", pd.DataFrame({"value": noise}))
    assert run.load_results("numbers")["value"].tolist() == [1.5]


def test_no_room_for_an_artefact(disk):
    run = open_run("smoke", disk(200))
    with pytest.raises(PacxError, match=r"artefacts/\S*model\S* does not fit on its disk"):
        run.build("model", lambda folder: save_checkpoint(torch.nn.Linear(500, 500), {}, folder))
    with pytest.raises(PacxError, match="model is missing"):
        run.artefact("model")


def test_no_room_for_phantoms(disk, monkeypatch, capsys):
    out = disk(200) / "hospital"
    monkeypatch.setattr(sys, "argv", ["pacx", "phantom", "--profile", "smoke", "--out", str(out)])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"pacx: {out}/")
    assert "does not fit on its disk" in said


@pytest.mark.parametrize(
    ("size", "said"),
    [(8, "Pairing stopped.*No space left"), (20_000, "cannot take an array")],
)
def test_no_room_for_pairs(disk, monkeypatch, size, said):
    place = disk(size)
    monkeypatch.setattr(pair_files, "read_image", None)  # no film is read where there is no room
    with pytest.raises(PacxError, match=f"(?s){said}"):
        pair_files.pair(RAW, RAW / "cxr", RAW / "ecg", place / "symile-mimic")
    assert not list(place.iterdir())


def test_no_room_for_the_tables_of_pairs(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(PacxError, match="symile-mimic does not fit on its disk"):
        pair_files.pair(RAW, RAW / "cxr", RAW / "ecg", tmp_path / "symile-mimic")
    assert not list(tmp_path.iterdir())


# ---------------------------------------- a read-only disk
def fill_with_seven(array):
    array.fill(7)


def test_read_only_run_folder(disk, monkeypatch, capsys):
    place = disk(200)
    run = open_run("smoke", place)
    cached_array(run.cache, ("kept",), (3,), np.float32, fill_with_seven)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    monkeypatch.setattr(sys, "argv", ["pacx", "run", "--profile", "smoke", "--runs", str(place)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr().err
    assert left.value.code == 1
    assert f"{run.folder} cannot be written (Read-only file system)" in said
    assert "--runs" in said
    assert len(said.splitlines()) == 1
    # What is there can still be read.
    assert cached_array(run.cache, ("kept",), (3,), np.float32, fill_with_seven).tolist() == [
        7,
        7,
        7,
    ]
    with pytest.raises(PacxError, match=r"cannot be written.*Read-only"):
        cached_array(run.cache, ("new",), (3,), np.float32, fill_with_seven)


# ---------------------------------------- Ctrl-C
BEGUN = "import os, time\nopen({!r}, 'x').write(str(os.getpid()))\ntime.sleep(100)"


@pytest.mark.skipif(os.name != "posix", reason="its Ctrl-C is no signal that a test can send")
@pytest.mark.parametrize("to_all", [False, True])
@pytest.mark.parametrize("command", ["run", "book", "phantom"])
def test_ctrl_c_ends_a_command_and_what_it_started(command, to_all):
    with tempfile.TemporaryDirectory() as short:  # for a kernel's sockets
        folder = Path(short)
        begun, out = folder / "begun", folder / "hospital"
        give_executed_chapters(folder)
        work = BEGUN.format(str(begun))
        with (folder / "notebooks" / "01_tiny.py").open("a") as chapter:
            chapter.write(f"\n# %%\n{work}\n")
        stub = folder / "stub" / "jupyter_book" / "cli" / "main.py"
        stub.write_text(f"def main():\n    {work.replace(chr(10), '; ')}\n")
        options = ["--runs", str(folder / "start"), "--project", short]
        options = ["--out", str(out)] if command == "phantom" else options
        open_run("smoke", folder / "start")
        process = subprocess.Popen(
            [sys.executable, "-m", "pacx", command, "--profile", "smoke", *options],
            env=os.environ | {"PYTHONPATH": f"{PROJECT}:{folder / 'stub'}", "TQDM_DISABLE": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        while not ((begun.exists() and begun.read_text()) or any(out.glob("*"))):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert [line for line in said.splitlines() if "Passed unknown" not in line] == [
            "pacx: interrupted"
        ]
        assert not begun.exists() or not psutil.pid_exists(int(begun.read_text()))
        assert not [*folder.rglob("*partial*"), *folder.rglob("*failed*")]


# ---------------------------------------- a site that is refused
def test_a_refused_site_does_not_stay(tmp_path, monkeypatch):
    def refuse(run, html, book, log):
        assert list(html.rglob("*.html"))
        raise PacxError("would publish patients")

    monkeypatch.setattr(book, "inspect_site", refuse)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    give_executed_chapters(tmp_path)
    run = open_run("smoke", tmp_path / "start")
    with pytest.raises(PacxError, match="would publish"):
        book.build(run, tmp_path)
    assert not list(run.folder.rglob("*.html"))


# ---------------------------------------- what others left
def test_a_decode_that_was_killed_goes_on(tmp_path, monkeypatch):
    names, cache = names_of(tmp_path / "images", 6), tmp_path / "cache"
    read, asked = images._squash, []
    monkeypatch.setattr(images, "BLOCK", 2)

    def stop(path, *rest):
        if path.name == "5.png":
            raise KeyboardInterrupt
        return read(path, *rest)

    monkeypatch.setattr(images, "_squash", stop)
    with pytest.raises(KeyboardInterrupt):
        load_images(tmp_path / "images", names, 8, cache)
    monkeypatch.setattr(images, "_squash", lambda *a: asked.append(a[0].name) or read(*a))
    decoded = load_images(tmp_path / "images", names, 8, cache)
    assert sorted(asked) == ["4.png", "5.png"]
    assert decoded[:, 0, 0].tolist() == list(range(6))
    assert [path.suffix for path in cache.glob("[!.]*")] == [".npy"]
