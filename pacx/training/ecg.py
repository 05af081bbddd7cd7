"""Stage 1, ECG: a Net1D that learns diagnoses, as ECGFounder learned them on real ECGs."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_model

from pacx.constants import ECG_DIAGNOSES
from pacx.data.datasets import require_data
from pacx.data.datasets.ecg_archive import load_ecg_archive
from pacx.models.checkpoints import load_matching
from pacx.models.ecg_founder import ECG_FOUNDER, Net1D, load_ecg_founder
from pacx.processes import infer
from pacx.run import Run
from pacx.training.fit import Stage, fit
from pacx.training.targets import teacher_name


class EcgDiagnosis(Stage):
    """Multilabel diagnosis with binary cross-entropy."""

    def __init__(self, model: Net1D, settings, seed: int):
        super().__init__(settings, seed)
        self.model = model

    def forward(self, ecg, diagnoses, generator):
        """Loss of ECGs (B, 12, T) and diagnoses (B, K)."""
        loss = F.binary_cross_entropy_with_logits(self.model(ecg), diagnoses)
        return loss, {"loss": loss}


def train_ecg(run: Run, share: float = 1.0) -> Path:
    """Train the ECG teacher for a share of the epochs, or load it; every tenth record is held out.

    Where the profile names the published ECGFounder, nothing is trained: its weights are checked
    in full and become the artefact.

    Returns:
        Folder with `model.safetensors`; after training also `history.csv` and `held_out.npz`
        (logits, diagnoses).

    Raises:
        NoDataError: There is neither an archive nor weights, or the pairs have no ECG.
        PacxError: The published weights are missing or do not match in full.
    """
    require_data(run, "ecg")
    settings, seed, precision = run.profile.ecg, run.profile.seed, run.profile.precision
    settings = settings.model_copy(update={"epochs": max(1, round(share * settings.epochs))})

    def make(folder: Path) -> None:
        if settings.weights is not None:
            model = load_ecg_founder(settings.weights)
        else:
            torch.manual_seed(seed)
            model = new_teacher(run)
            archive = load_ecg_archive(run.data_root, run.cache)
            held_out = np.arange(len(archive.ecg)) % 10 == 0
            training = [archive.ecg[~held_out], archive.diagnoses[~held_out]]
            stage = EcgDiagnosis(model, settings, seed)
            fit(stage, training, "ecg", folder=folder, precision=precision)
            logits = infer(model, model.eval(), archive.ecg[held_out])
            np.savez(folder / "held_out.npz", logits=logits, diagnoses=archive.diagnoses[held_out])
        save_model(model, str(folder / "model.safetensors"))

    return run.build(teacher_name("ecg", share), make, settings, precision, seed)


def load_ecg(run: Run, share: float = 1.0) -> Net1D:
    """The ECG teacher of this run, in evaluation mode.

    Raises:
        PacxError: The artefact is missing, or of another shape.
    """
    model = new_teacher(run)
    weights = run.artefact(teacher_name("ecg", share)) / "model.safetensors"
    return load_matching(model, load_file(weights), weights).eval()


def new_teacher(run: Run) -> Net1D:
    """An untrained Net1D: ECGFounder's where the profile names its weights, else a smaller one."""
    settings = run.profile.ecg
    if settings.weights is not None:
        return Net1D(**ECG_FOUNDER)
    smaller = {
        "base_filters": settings.base_filters,
        "filter_list": settings.filter_list,
        "m_blocks_list": settings.blocks,
        "groups_width": settings.groups_width,
        "n_classes": len(ECG_DIAGNOSES),
    }
    return Net1D(**ECG_FOUNDER | smaller)
