"""Processes that are killed: the next one goes on and ends as an undisturbed one does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pacx.errors import PacxError
from pacx.profile import load_profile
from pacx.run import CHECKPOINT, open_run
from pacx.training import fit as fitting
from pacx.training.fit import Stage, fit

KILLS = int(os.environ.get("PACX_KILLS", "2"))


class Part(nn.Module):
    """Has a generator of its own."""

    def __init__(self):
        super().__init__()
        self.draws = torch.Generator().manual_seed(5)


class Noisy(Stage):
    """Draws from every source of randomness that the real stages draw from."""

    def __init__(self, stop: int = -1, pause: float = 0.0):
        torch.manual_seed(3)
        settings = load_profile("smoke").labs.model_copy(update={"epochs": 5, "batch_size": 4})
        super().__init__(settings, 0)
        self.model, self.part = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), Part()
        self.stop, self.pause = stop, pause

    def training_step(self, batch, _):
        """One step, which the chosen one does not survive."""
        if len(self.history) == self.stop:
            raise InterruptedError
        time.sleep(self.pause)
        noise = torch.randn(3, generator=self.draws) * torch.randn(3, generator=self.part.draws)
        loss = (self.model(batch[0] + noise) - torch.rand(3)).square().mean()
        self.note(loss=loss)
        return loss


def train(folder: Path, stage: Noisy) -> bytes:
    """Train on (10, 3) rows, two batches an epoch; weights and history as bytes."""
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    history = fit(stage, [rows], "noisy", folder=folder)
    weights = [w.numpy().tobytes() for w in stage.state_dict().values()]
    return b"".join(weights) + history.to_numpy().tobytes()


def build(root: Path, pause: float = 0.0) -> bytes:
    """The same as an artefact of a run."""

    def make(folder: Path) -> None:
        (folder / "weights").write_bytes(train(folder, Noisy(pause=pause)))

    return (open_run("smoke", root).build("noisy", make) / "weights").read_bytes()


@pytest.fixture
def often(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0)


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
    assert not list(tmp_path.iterdir())


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
    assert list(run.artefacts.iterdir()) == [folder]


def test_bad_input_leaves_no_checkpoint(tmp_path):
    run = open_run("smoke", tmp_path)

    def make(folder: Path) -> None:
        raise PacxError("bad")

    with pytest.raises(PacxError, match="bad"):
        run.build("thing", make)
    assert not list(run.artefacts.iterdir())


def test_a_killed_training_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    code = (
        "import sys, pathlib; from pacx.training import fit; fit.CHECKPOINT_SECONDS = 0; "
        "import test_kill; print('ready', flush=True); "
        "test_kill.build(pathlib.Path(sys.argv[1]), pause=0.3)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cut")]
    for _ in range(KILLS):
        process = subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0.2, 2.0))
        process.kill()
        process.communicate()
    artefacts = open_run("smoke", tmp_path / "cut").artefacts
    assert build(tmp_path / "cut") == build(tmp_path / "whole")
    assert [path.name for path in artefacts.iterdir()] == ["noisy"]
