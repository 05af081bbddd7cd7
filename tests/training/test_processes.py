"""Trainings in several processes, in parts of a batch, and in half precision."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import PROJECT, pacx
from pydantic import ValidationError
from tiny_hospital import hospital

from pacx import processes
from pacx.data.images import normalise
from pacx.errors import PacxError
from pacx.models.distillation import DistillationHeads, DistillationLoss
from pacx.models.encoder import add_lora, build_encoder
from pacx.models.mae import MaskedAutoencoder
from pacx.profile import DistillSettings, load_profile
from pacx.training import fit as fitting
from pacx.training.distill import Distillation
from pacx.training.fit import fit
from pacx.training.mae import MaePretraining

HERE = PROJECT / "tests"
SCRIPT = str(HERE / "to_train_together.py")
TOGETHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def saved(file: Path) -> dict:
    return torch.load(file, weights_only=True)


def start(command: list, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_take_the_steps_of_one(tmp_path):
    start([sys.executable, SCRIPT, "alone.pt"], tmp_path)
    start([*TOGETHER, SCRIPT, "together.pt"], tmp_path)
    alone, together = (saved(tmp_path / name) for name in ("alone.pt", "together.pt"))
    assert len(alone["gradients"]) == 3
    for one, two in zip(alone["gradients"], together["gradients"], strict=True):
        assert one.keys() == two.keys()
        assert sum(gradient.abs().max() > 0 for gradient in one.values()) > len(one) / 2
        for name in one:
            torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=0, msg=name)
    for term, values in alone["losses"].items():
        np.testing.assert_allclose(together["losses"][term], values, atol=1e-5, err_msg=term)


def test_two_stopped_processes_go_on_where_they_were(tmp_path):
    for name in ("undisturbed", "stopped"):
        (tmp_path / name).mkdir()
    start([*TOGETHER, SCRIPT, "undisturbed.pt", "undisturbed"], tmp_path)
    command = [*TOGETHER, SCRIPT, "stopped.pt", "stopped"]
    done = subprocess.run([*command, "2"], cwd=tmp_path, capture_output=True, text=True)
    assert "InterruptedError" in done.stderr
    assert not (tmp_path / "stopped.pt").exists()
    one = [sys.executable, *command[len(TOGETHER) :]]
    done = subprocess.run(one, cwd=tmp_path, capture_output=True, text=True)
    assert "is of a training in 2 processes, this one has 1" in done.stderr
    start(command, tmp_path)
    undisturbed, stopped = (saved(tmp_path / f"{n}.pt") for n in ("undisturbed", "stopped"))
    assert stopped["losses"] == undisturbed["losses"]
    (last,) = stopped["gradients"]  # it took the third step only
    for name, gradient in undisturbed["gradients"][2].items():
        assert torch.equal(last[name], gradient), name


def test_train_under_torchrun_fills_the_run_once(tmp_path):
    settings = load_profile("smoke").model_dump(mode="json")
    settings |= {"name": "two", "data_root": str(hospital())}
    settings["mae"] |= {"batch_size": 4, "epochs": 1}
    settings["labs"] |= {"batch_size": 4, "epochs": 2}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(settings))
    command = ["-m", "pacx", "train", "mae", "labs", "--profile", "two.yaml"]
    start([*TOGETHER, *command], tmp_path)
    made = tmp_path / "runs" / "two" / "artefacts"
    assert sorted(path.name for path in made.glob("[!.]*")) == ["labs", "mae"]
    before = (made / "mae" / "made.json").read_bytes()
    start([sys.executable, *command], tmp_path)  # alone, it finds them
    assert (made / "mae" / "made.json").read_bytes() == before
    history = pd.read_csv(made / "labs" / "history.csv")
    assert len(history) == history["step"].max()
    assert history["loss"].notna().all()


def test_processes_of_slurm_are_counted_or_refused(monkeypatch):
    job = {"NTASKS": "8", "STEP_NUM_TASKS": "1", "PROCID": "3", "LOCALID": "1", "JOB_ID": "7"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    processes.join_processes()  # one step of a larger job
    assert processes.world() == 1
    for nodes, first in {"gpu[03-04,7]": "gpu03", "a1,b[2-3]": "a1", "node": "node"}.items():
        given = processes._of_slurm(os.environ | {"SLURM_STEP_NODELIST": nodes})
        assert given["MASTER_ADDR"] == first
        assert (given["RANK"], given["LOCAL_RANK"], given["WORLD_SIZE"]) == ("3", "1", "1")


def test_processes_that_cannot_meet_are_an_error(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(PacxError, match=r"cannot train together: .*MASTER_PORT.* unset WORLD_SIZE"):
        processes.join_processes()


def test_a_batch_that_cannot_be_divided_is_an_error():
    with pytest.raises(PacxError, match="batch of 8 cannot be divided among 1 processes in 3"):
        pretrain(8, accumulate=3)


def test_parts_of_a_batch_make_the_same_step():
    whole, parts = (pretrain(8, accumulate=n) for n in (1, 4))
    # Losses, not weights: the bias of the keys has no gradient, and AdamW steps on its rounding.
    np.testing.assert_allclose(parts[1]["loss"], whole[1]["loss"], rtol=1e-5)
    assert parts[1]["step"].tolist() == [1, 2, 3]


def test_half_precision_is_close_and_keeps_whole_weights():
    whole, half = (pretrain(8, precision=p) for p in ("fp32", "bf16"))
    assert all(weight.dtype == torch.float32 for weight in half[0])
    # bfloat16 keeps 8 bits: 2^-8 of a loss that is near 1.
    np.testing.assert_allclose(half[1]["loss"], whole[1]["loss"], rtol=2**-6)


def test_half_precision_clips_gradients():
    settings = load_profile("smoke").distill.model_copy(update={"batch_size": 8})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 32, 32), dtype=np.uint8)
    ecg = rng.normal(size=(8, 12)).astype(np.float32)
    losses = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        student = add_lora(build_encoder(32, 8, 24, 1, 2))
        heads, loss = DistillationHeads(24, {"ecg": 12}, 16), DistillationLoss(modalities=("ecg",))
        stage = Distillation(student, heads, loss, settings, 0)
        history = fit(stage, [images, ecg], "tiny", steps=2, clip=1.0, precision=precision)
        losses.append(history["total"])
    np.testing.assert_allclose(*losses, rtol=2**-6)


def test_a_loss_that_is_no_number_stops_the_training_there():
    stage = Breaks(*tiny_mae(8))
    with pytest.raises(PacxError, match=r"tiny: the loss is NaN.*Lower the learning rate"):
        fit(stage, [tiny_images(8)], "tiny", steps=99)
    assert stage.steps == fitting.LOOK_EVERY


def test_half_precision_of_16_bit_needs_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(PacxError, match="fp16 needs a GPU"):
        pretrain(8, precision="fp16")


def test_distillation_refuses_parts_of_a_batch():
    values = load_profile("smoke").distill.model_dump() | {"accumulate": 2}
    with pytest.raises(ValidationError, match="negatives are the other rows"):
        DistillSettings.model_validate(values)


def test_commands_name_what_can_be_trained(tmp_path):
    done = pacx("train", "mea", "--profile", "smoke", "--runs", str(tmp_path))
    assert done.returncode == 1
    assert "Not in this profile: mea. Choose mae, mae-other-ratio, labs" in done.stderr
    done = pacx("train", "--precision", "8", "--runs", str(tmp_path))
    assert "precision: Input should be 'fp32'" in done.stderr


class OneMask(MaePretraining):
    """An MAE whose images all lose the same patches, and are not augmented."""

    def forward(self, images, generator):
        mask = torch.linspace(0, 1, 16).expand(len(images), -1)
        loss = self.mae(normalise(images), self.mask_ratio, mask).loss
        return loss, {"loss": loss}


class Breaks(MaePretraining):
    """An MAE whose second loss is infinite."""

    steps = 0

    def forward(self, images, generator):
        self.steps += 1
        loss, _ = super().forward(images, generator)
        return loss, {"loss": loss * (1 if self.steps == 1 else np.inf)}


def tiny_mae(batch: int) -> tuple:
    """What an `MaePretraining` is made of."""
    torch.manual_seed(0)
    mae = MaskedAutoencoder(build_encoder(32, 8, 24, 1, 2), 16, 1, 2)
    return mae, 0.75, load_profile("smoke").mae.model_copy(update={"batch_size": batch}), 0


def tiny_images(batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, 32, 32), dtype=np.uint8)


def pretrain(batch: int, **how) -> tuple[list[torch.Tensor], pd.DataFrame]:
    """Three steps: weights and history."""
    stage = OneMask(*tiny_mae(batch))
    history = fit(stage, [tiny_images(batch)], "tiny", steps=3, **how)
    return [p.detach() for p in stage.mae.parameters()], history
