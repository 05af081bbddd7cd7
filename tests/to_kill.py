"""What the tests kill: a noisy training, and one piece of work for each part of the book."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import nbformat
import numpy as np
import torch
from PIL import Image
from torch import nn

from pacx.book import build as book
from pacx.book.execution import execute
from pacx.data import images
from pacx.files import cached_array
from pacx.pairing import files as pair_files
from pacx.phantom.hospital import write_hospital
from pacx.profile import load_profile
from pacx.run import open_run
from pacx.training import checkpoint
from pacx.training import fit as fitting
from pacx.training.fit import Stage, fit

RAW = Path(__file__).parent / "golden" / "symile_pairing" / "raw"
CHAPTER = """# %% tags=["parameters"]
profile, runs = "smoke", "runs"

# %%
import pandas as pd
from pacx.run import open_run

run = open_run(profile, runs)
table = run.save_results("tableNUMBER", pd.DataFrame({"value": [NUMBER]}))
table["value"].sum()
"""
#: Takes the place of Jupyter Book: copies every file, the second half a moment after the first.
STUB = """import sys, time
from pathlib import Path

def main():
    source, html = Path(sys.argv[2]), Path(sys.argv[4]) / "_build" / "html"
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        page = html / file.relative_to(source)
        if page.suffix in (".md", ".ipynb"):
            page = page.with_suffix(".html")
        page.parent.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes()
        with page.open("wb") as out:
            out.write(content[: len(content) // 2])
            out.flush()
            time.sleep(0.02)
            out.write(content[len(content) // 2 :])
"""


class Noisy(Stage):
    """Draws from every source of randomness that the real stages draw from."""

    def __init__(self, stop: int = -1, pause: float = 0.0):
        torch.manual_seed(3)
        settings = load_profile("smoke").labs.model_copy(update={"epochs": 5, "batch_size": 4})
        super().__init__(settings, 0)
        self.model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
        self.stop, self.pause, self.steps = stop, pause, 0

    def forward(self, rows, generator):
        """Loss of (B, 3), which the chosen step does not survive."""
        if self.steps == self.stop:
            raise InterruptedError
        self.steps += 1
        time.sleep(self.pause)
        noise = torch.randn(3, generator=generator)
        loss = (self.model(rows + noise) - torch.rand(3)).square().mean()
        return loss, {"loss": loss}


def checkpoint_at_every_step() -> None:
    """Of all trainings of this process."""
    checkpoint.CHECKPOINT_SECONDS, fitting.LOOK_EVERY = 0, 1


def train(folder: Path, stage: Noisy) -> bytes:
    """Train on (10, 3) rows, two batches an epoch; weights and history as bytes."""
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    history = fit(stage, [rows], "noisy", folder=folder)
    weights = [w.numpy().tobytes() for w in stage.state_dict().values()]
    return b"".join(weights) + history.to_numpy().tobytes()


def give_nothing(given: Path) -> None:
    pass


def give_images(given: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(100):
        pixels = rng.integers(0, 256, (256, 256), dtype=np.uint8)
        Image.fromarray(pixels).save(given / f"{number}.png", compress_level=1)


def give_chapters(given: Path) -> None:
    (given / "notebooks").mkdir()
    for number in range(3):
        text = CHAPTER.replace("NUMBER", str(number))
        (given / "notebooks" / f"0{number}_tiny.py").write_text(text)
    (given / "constraints.txt").touch()


def give_executed_chapters(given: Path) -> None:
    give_chapters(given)
    (given / "book").mkdir()
    (given / "book" / "index.md").write_text("# A tiny book")
    (given / "_config.yml").touch()
    pages = [{"file": f"notebooks/0{number}_tiny"} for number in range(3)]
    toc = {"root": "book/index", "parts": [{"chapters": pages}]}
    (given / "_toc.yml").write_text(json.dumps(toc))
    (given / "stub" / "jupyter_book" / "cli").mkdir(parents=True)
    (given / "stub" / "jupyter_book" / "__init__.py").touch()
    (given / "stub" / "jupyter_book" / "cli" / "main.py").write_text(STUB)
    about = {"key": "", "seconds": 1.0, "profile": "smoke", "commit": "none", "made": "2026-01-01"}
    executed = given / "start" / "smoke" / "notebooks"
    executed.mkdir(parents=True)
    for number in range(3):
        notebook = nbformat.v4.new_notebook(metadata={"pacx": about})
        nbformat.write(notebook, executed / f"0{number}_tiny.ipynb")


def train_noisy(given: Path, out: Path) -> None:
    checkpoint_at_every_step()

    def make(folder: Path) -> None:
        with (given / "begun").open("a") as log:
            log.write("x")
        (folder / "weights").write_bytes(train(folder, Noisy(pause=0.1)))

    open_run("smoke", out).build("noisy", make)


def decode_images(given: Path, out: Path) -> None:
    images.BLOCK = 4
    names = sorted(path.name for path in given.iterdir())
    images.load_images(given, names, 64, out)


def cache_numbers(given: Path, out: Path) -> None:
    def fill(array: np.ndarray) -> None:
        for row in range(len(array)):
            array[row] = row
            time.sleep(0.01)

    cached_array(out, ("numbers",), (50, 10_000), np.float32, fill)


def pair_admissions(given: Path, out: Path) -> None:
    pair_files.PIXELS = 32
    pair_files.pair(RAW, RAW / "cxr", RAW / "ecg", out / "symile-mimic")


def write_phantoms(given: Path, out: Path) -> None:
    pairs = {"train": 10, "val": 10, "test": 10}
    patients = {"symile-mimic": pairs, "chexpert": {"train": 20, "val": 5}, "tb": {"train": 50}}
    write_hospital(out, patients, image_size=32, ecg_hz=100, seed=11)


def execute_chapters(given: Path, out: Path) -> None:
    execute(open_run("smoke", out), project=given)


def build_book(given: Path, out: Path) -> None:
    os.environ["PYTHONPATH"] = str(given / "stub")
    book.build(open_run("smoke", out), project=given)


class Part(NamedTuple):
    """Work that is killed: how often of ten times, what it needs, and what it does."""

    kills: int
    give: Callable[[Path], None]
    work: Callable[[Path, Path], None]


PARTS = {
    "training": Part(2, give_nothing, train_noisy),
    "image cache": Part(2, give_images, decode_images),
    "cached array": Part(1, give_nothing, cache_numbers),
    "pairing": Part(1, give_nothing, pair_admissions),
    "phantom hospital": Part(1, give_nothing, write_phantoms),
    "chapters": Part(2, give_chapters, execute_chapters),
    "book": Part(1, give_executed_chapters, build_book),
}


def work_alone(name: str, given: Path, out: Path, tell: Connection) -> None:
    """Work in a process group of its own, after saying so; temporary files go beside `given`."""
    os.setsid()
    tempfile.tempdir = str(given.parent)
    tell.send("ready")
    PARTS[name].work(given, out)
