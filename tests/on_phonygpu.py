"""Every training, and all that is read from networks, on a pretend accelerator.

`test_devices.py` starts this file in a process of its own. Each case computes the same as on the
CPU, and fails as soon as one of the tensors that it moves is left behind.
"""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from phonygpu import DEVICE, Moves
from PIL import Image
from torch import nn

from pacx import processes
from pacx.evaluation import attribution, forgetting
from pacx.evaluation.features import extract_features, extract_rollouts
from pacx.models.distillation import DistillationHeads, DistillationLoss
from pacx.models.encoder import add_lora, build_encoder, merge_lora
from pacx.models.lab_autoencoder import LabAutoencoder
from pacx.models.segmenter import Segmenter
from pacx.profile import load_profile
from pacx.run import open_run
from pacx.share import predict
from pacx.share.export import export_encoder
from pacx.training import ecg, paper_probe, probe
from pacx.training.distill import Distillation, MaeTerm, teacher_embeddings
from pacx.training.fit import fit
from pacx.training.labs import LabDenoising
from pacx.training.mae import MaePretraining, new_mae
from pacx.training.segmentation import Segmentation, segment
from pacx.training.supervised import Supervised

N = 8
SMOKE = load_profile("smoke")
ONCE = {"epochs": 1, "batch_size": N}
STAGES = ("mae", "labs", "ecg", "distill", "supervised", "segmentation")
VIT = {"image_size": 16, "patch_size": 8, "width": 24, "depth": 1, "heads": 2}
PROFILE = SMOKE.model_copy(
    update={"vit": SMOKE.vit.model_copy(update=VIT)}
    | {stage: getattr(SMOKE, stage).model_copy(update=ONCE) for stage in STAGES}
)
_numbers = np.random.default_rng(0)
IMAGES = _numbers.integers(0, 256, (2 * N, 16, 16), dtype=np.uint8)
MASKS = (IMAGES > 128).astype(np.uint8)
LABELS = (_numbers.random((2 * N, 3)) < 0.5).astype(np.float32)
PERCENTILES = _numbers.random((2 * N, 50), dtype=np.float32)
OBSERVED = (_numbers.random((2 * N, 50)) < 0.7).astype(np.float32)
ECG = _numbers.normal(size=(2 * N, 12, 200)).astype(np.float32)
TEACHERS = [_numbers.normal(size=(2 * N, width)).astype(np.float32) for width in (12, 10)]
X = _numbers.normal(size=(60, 4)).astype(np.float32)
Y = (X[:, :2] + _numbers.normal(size=(60, 2)) > 0).astype(np.float32)
ONE_OF = np.eye(3, dtype=np.float32)[_numbers.integers(0, 3, 60)]


@pytest.fixture
def run(tmp_path):
    """Opens runs without anything in them."""
    folders = itertools.count()
    return lambda: open_run(PROFILE, tmp_path / str(next(folders)))


@pytest.fixture
def on_device(monkeypatch):
    """Moves everything that asks for its place to the accelerator."""

    def use():
        for module in (processes, probe, predict):
            monkeypatch.setattr(module, "device", lambda: DEVICE, raising=False)
        monkeypatch.setattr(probe, "_LARGE", 0)

    return use


def encoder():
    return build_encoder(**VIT)


def mae_step():
    run = SimpleNamespace(profile=PROFILE)
    return MaePretraining(new_mae(run), 0.75, PROFILE.mae, 0), [IMAGES]


def labs_step():
    return LabDenoising(LabAutoencoder(), PROFILE.labs, 0), [PERCENTILES, OBSERVED]


def ecg_step():
    model = ecg.new_teacher(SimpleNamespace(profile=PROFILE))
    truth = np.zeros((2 * N, model.dense.out_features), np.float32)
    return ecg.EcgDiagnosis(model, PROFILE.ecg, 0), [ECG, truth]


def distill_step(term=None):
    student = add_lora(encoder(), rank=2)
    heads = DistillationHeads(24, {"ecg": 12, "labs": 10}, 8)
    mae_term = term(student) if term else None
    stage = Distillation(student, heads, DistillationLoss(), PROFILE.distill, 0, mae_term, 1.0)
    return stage, [IMAGES, *TEACHERS]


def replay_step():
    def term(student):
        mae = new_mae(SimpleNamespace(profile=PROFILE)).requires_grad_(False)
        mae.encoder = student.get_base_model()
        return MaeTerm(mae, 0.75, IMAGES)

    return distill_step(term)


def segmentation_step():
    return Segmentation(encoder(), Segmenter(24, 8), PROFILE.segmentation, 0), [IMAGES, MASKS]


def supervised_step():
    return Supervised(encoder(), nn.Linear(48, 3), PROFILE.supervised, 0), [IMAGES, LABELS]


STEPS = (
    mae_step, labs_step, ecg_step, distill_step, replay_step, segmentation_step, supervised_step
)  # fmt: skip


def train(step, precision, steps=1):
    torch.manual_seed(0)
    stage, arrays = step()
    history = fit(stage, arrays, "on a pretend GPU", steps=steps, clip=1.0, precision=precision)
    assert {p.device.type for p in stage.parameters()} == {"cpu"}
    if step is distill_step:
        merge_lora(stage.student)
    return history.to_numpy()


def features(run, monkeypatch):
    return extract_features(run(), "random", IMAGES)


def rollouts(run, monkeypatch):
    return extract_rollouts(run(), "random", IMAGES)


def teachers(run, monkeypatch):
    pairs = SimpleNamespace(table=IMAGES, ecg=ECG, percentiles=PERCENTILES, observed=OBSERVED)
    return teacher_embeddings(run(), pairs, training=0.0).values()


def held_out_ecg(run, monkeypatch):
    archive = SimpleNamespace(ecg=ECG, diagnoses=np.zeros((2 * N, 14), np.float32))
    monkeypatch.setattr(ecg, "load_ecg_archive", lambda *_: archive)
    monkeypatch.setattr(ecg, "ECG_DIAGNOSES", range(14))
    return np.load(ecg.train_ecg(run()) / "held_out.npz")["logits"]


def reconstruction(run, monkeypatch):
    def untrained(run):
        torch.manual_seed(0)
        return new_mae(run).eval()

    monkeypatch.setattr(forgetting, "load_mae", untrained)
    monkeypatch.setattr(forgetting, "fingerprint_of", lambda *_: "")
    return forgetting.reconstruction_errors(run(), "random", IMAGES)


def segmentation(run, monkeypatch):
    return segment(run(), "squares", "random", (IMAGES, MASKS), IMAGES)


def attributions(run, monkeypatch):
    torch.manual_seed(0)
    probed = attribution.ProbedEncoder(encoder(), torch.randn(24), 0.1)
    images, baseline = torch.randn(3, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    maps = attribution.explain(probed, images, baseline)
    given = probed, images, baseline, maps, np.ones((1, 3)), 0
    tables = (
        attribution.randomisation_table(*given), attribution.faithfulness_table(*given, steps=2)
    )  # fmt: skip
    return [*maps.values(), *(table[["value"]].to_numpy() for table in tables)]


def probes(run, monkeypatch):
    some = probe.fit_probes((X, Y), subsets=np.arange(0, 60, 2)[None])
    one_of = probe.fit_probes((X, ONE_OF), (X[::2], ONE_OF[::2]), multiclass=True)
    return [some.probabilities(X), one_of.probabilities(X)]


def paper_probes(run, monkeypatch):
    found = []
    for labels, multiclass in ((Y, False), (ONE_OF, True)):
        train, val = (np.stack([X, -X]), labels), (X, labels)
        fitted = paper_probe.fit_paper_probes(
            train, val, PROFILE.paper_probe, multiclass=multiclass
        )
        found += [fitted.probabilities(X), fitted.loss.numpy()]
    return found


def predictions(run, monkeypatch):
    if not hasattr(predict, "device"):
        pytest.skip("`pacx predict` computes on the CPU")
    folder = run().folder
    torch.manual_seed(0)
    export_encoder(encoder(), folder / "encoder")
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / f"{number:02d}.png")
    predict.predict([folder], folder / "encoder", folder / "out", overlay=True)
    return [pd.read_parquet(folder / "out" / "embeddings.parquet").iloc[:, 1:].to_numpy()]


READINGS = (
    features, rollouts, teachers, held_out_ecg, reconstruction, segmentation, attributions, probes,
    paper_probes, predictions,
)  # fmt: skip
BY_NAME = {"ids": lambda case: getattr(case, "__name__", case)}


@pytest.mark.parametrize("step", STEPS, **BY_NAME)
def test_a_training_computes_there_what_it_computes_here(step, on_device):
    expected = train(step, "fp32", steps=2)
    on_device()
    # The same additions, but for fused attention and fused layers.
    np.testing.assert_allclose(train(step, "fp32", steps=2), expected, rtol=1e-4, atol=1e-5)
    # 8 and 11 significant bits, through a handful of layers.
    for precision, bits in {"bf16": 8, "fp16": 11}.items():
        rounded = fails_if_something_is_left_behind(lambda p=precision: train(step, p))
        np.testing.assert_allclose(rounded, expected[:1], rtol=8 * 2**-bits, atol=8 * 2**-bits)
        assert not np.array_equal(rounded, expected[:1])


@pytest.mark.parametrize("reading", READINGS, **BY_NAME)
def test_a_reading_computes_there_what_it_computes_here(reading, run, on_device, monkeypatch):
    expected = reading(run, monkeypatch)
    on_device()
    found = fails_if_something_is_left_behind(lambda: reading(run, monkeypatch))
    for here, there in zip(expected, found, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-4)


def fails_if_something_is_left_behind(case):
    """What it computes, having failed without one of the last two moves, such as of a batch."""
    with pytest.MonkeyPatch.context() as patch:
        moves = Moves(patch)
        found = case()
    for number in (moves.count - 2, moves.count - 1):
        with pytest.MonkeyPatch.context() as patch:
            Moves(patch, left_behind=number)
            with pytest.raises(RuntimeError, match="same device"):
                case()
    return found
