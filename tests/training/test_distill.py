"""Variants of the distillation: settings, the MAE term, and the whole chain on a few phantoms."""

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_model
from tiny_hospital import hospital

from pacx import processes
from pacx.data.datasets.symile_mimic import Pairs
from pacx.errors import PacxError
from pacx.figures.style import name_of
from pacx.models.distillation import DistillationHeads, DistillationLoss
from pacx.models.encoder import add_lora, build_encoder
from pacx.models.lab_autoencoder import LabAutoencoder
from pacx.models.mae import MaskedAutoencoder
from pacx.profile import load_profile
from pacx.run import open_run
from pacx.training.batches import seed_step
from pacx.training.distill import (
    VARIANTS,
    Distillation,
    MaeTerm,
    Variant,
    settings_of,
    teacher_embeddings,
)
from pacx.training.ecg import load_ecg
from pacx.training.labs import load_labs
from pacx.training.pipeline import train_encoders

CHAIN = ["pacx", "pacx-raw", "pacx-other-ratio", "pacx-rank2", "pacx-maeterm", "pacx-replay"]


def open_with(tmp_path, **changes):
    return open_run(load_profile("smoke").model_copy(update=changes), tmp_path)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_settings_that_fit_and_have_a_name(tmp_path, name):
    run = open_with(tmp_path)
    settings = settings_of(run, VARIANTS[name])
    assert (settings == run.profile.distill) == (
        not VARIANTS[name].changes and VARIANTS[name].learning_rate_factor == 1
    )
    assert name_of(name)


def test_one_setting_changes_and_the_rest_stays(tmp_path):
    run = open_with(tmp_path)
    base = run.profile.distill
    small = settings_of(run, VARIANTS["pacx-rank2"])
    assert small.lora_rank < base.lora_rank
    assert small.lora_alpha / small.lora_rank == base.lora_alpha / base.lora_rank
    slow = settings_of(run, Variant(learning_rate_factor=0.5))
    assert slow == base.model_copy(update={"learning_rate": base.learning_rate / 2})
    with pytest.raises(ValidationError, match="lora_rnak"):
        settings_of(run, Variant(changes={"lora_rnak": 2}))


def tiny_student():
    torch.manual_seed(0)
    mae = MaskedAutoencoder(build_encoder(32, 8, 24, 1, 2), 16, 1, 2)
    student = add_lora(mae.requires_grad_(False).encoder, rank=2, dropout=0.0)
    mae.encoder = student.get_base_model()
    return mae, student


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (2, 6, 32, 32), np.uint8))


def loss_on(images, replay=None):
    mae, _ = tiny_student()
    term = MaeTerm(mae, 0.75, None if replay is None else replay.numpy())
    torch.manual_seed(1)  # the masks
    return term(images, torch.Generator().manual_seed(0))


def test_the_mae_term_takes_the_batch_or_what_is_replayed(images):
    paired, others = images
    assert loss_on(paired) == loss_on(paired) != loss_on(others)
    assert loss_on(paired, replay=others) == loss_on(others, replay=others)
    assert loss_on(paired, replay=others) != loss_on(paired, replay=paired)


def test_no_two_processes_and_no_two_steps_augment_alike(monkeypatch):
    drawn = set()
    for rank in (0, 1):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        for seed, step in ((7, 0), (7, 1), (8, 0)):
            generator = seed_step(seed, step)
            drawn |= {torch.rand((), generator=generator).item(), torch.rand(()).item()}
    assert len(drawn) == 12


def test_teachers_embed_the_data_they_are_given_whatever_its_names(tmp_path):
    run, rng = open_with(tmp_path), np.random.default_rng(0)
    names = pd.DataFrame({"patient": list("abc"), "study": list("xyz")})

    def pairs(ecg, observed):
        labs = np.full((3, 50), 0.5, np.float32)
        return Pairs(names, np.zeros((3, 8, 8), np.uint8), ecg, labs, observed)

    ecg, other = rng.normal(size=(2, 3, 12, 64)).astype(np.float32)
    all_labs = np.ones((3, 50), np.float32)
    first = teacher_embeddings(run, pairs(ecg, all_labs), training=0.0)
    second = teacher_embeddings(run, pairs(other, all_labs), training=0.0)
    third = teacher_embeddings(run, pairs(ecg, 0 * all_labs), training=0.0)
    assert not np.array_equal(first["ecg"], second["ecg"])
    assert np.array_equal(first["labs"], second["labs"])
    assert np.array_equal(first["ecg"], third["ecg"])
    assert not np.array_equal(first["labs"], third["labs"])


@pytest.mark.parametrize(("name", "load"), [("labs", load_labs), ("ecg", load_ecg)])
def test_a_teacher_of_another_shape_is_refused(tmp_path, name, load):
    run = open_with(tmp_path)
    folder = run.artefacts / name
    folder.mkdir(parents=True)
    (folder / "made.json").touch()
    save_model(LabAutoencoder(hidden=8), str(folder / "model.safetensors"))
    with pytest.raises(PacxError, match="do not fit"):
        load(run)


def test_the_mae_term_trains_the_student_and_leaves_the_decoder(images):
    mae, student = tiny_student()
    heads, loss = DistillationHeads(24, {"ecg": 5}, 8), DistillationLoss(modalities=("ecg",))
    settings = load_profile("smoke").distill
    plain = Distillation(student, heads, loss, settings, 0)
    with_term = Distillation(student, heads, loss, settings, 0, MaeTerm(mae, 0.75, None), 2.0)
    batch = [images[0], torch.randn(6, 5)]
    totals = []
    for stage in (plain, with_term):
        torch.manual_seed(2)
        total, terms = stage(*batch, generator=torch.Generator().manual_seed(0))
        totals.append(total.item())
    term = terms["mae"].item()
    assert totals[1] == pytest.approx(totals[0] + 2 * term, rel=1e-5)
    with_term.mae_term(images[0], torch.Generator()).backward()
    touched = {n for n, p in with_term.named_parameters() if p.grad is not None}
    assert any("lora_B" in name for name in touched)
    assert not any("decoder" in name or "mask_token" in name for name in touched)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A run with a handful of patients, in which some variants are distilled."""
    profile = load_profile("smoke")
    once = {"epochs": 1, "batch_size": 8}
    parts = {name: getattr(profile, name).model_copy(update=once) for name in ("mae", "labs")}
    parts["ecg"] = profile.ecg.model_copy(update={"epochs": 1, "batch_size": 2})
    parts["distill"] = profile.distill.model_copy(update={"epochs": 1, "batch_size": 16})
    run = open_run(
        profile.model_copy(update={"data_root": hospital(), **parts}),
        tmp_path_factory.mktemp("chain"),
    )
    train_encoders(run, "mae", *CHAIN)
    return run


def test_the_chain_distils_every_kind_of_variant(chain):
    weights = {(chain.artefact(n) / "model.safetensors").read_bytes() for n in ["mae", *CHAIN]}
    assert len(weights) == len(CHAIN) + 1
    for name in CHAIN:
        history = pd.read_csv(chain.artefact(name) / "history.csv")
        assert ("mae" in history) == (VARIANTS[name].mae_weight > 0)
        assert len(history) == 2
    assert (chain.artefact("mae-other-ratio") / "made.json").is_file()
