"""Stage 1, ECG: a Net1D that learns diagnoses, as ECGFounder learned them on real ECGs."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model

from pacx.constants import ECG_DIAGNOSES
from pacx.data.datasets.ecg_archive import load_ecg_archive
from pacx.models.ecg_founder import ECG_FOUNDER, Net1D, load_ecg_founder
from pacx.run import Run
from pacx.training.fit import Stage, fit


class EcgDiagnosis(Stage):
    """Multilabel diagnosis with binary cross-entropy."""

    def __init__(self, model: Net1D, settings, seed: int):
        super().__init__(settings, seed)
        self.model = model

    def training_step(self, batch, _):
        """One step on ECGs (B, 12, T) and diagnoses (B, K)."""
        ecg, diagnoses = batch
        loss = F.binary_cross_entropy_with_logits(self.model(ecg), diagnoses)
        self.note(loss=loss)
        return loss


def train_ecg(run: Run) -> Path:
    """Train the ECG teacher, or load it; every tenth record is held out.

    Returns:
        Folder with `model.safetensors`, `history.csv` and `held_out.npz` (logits, diagnoses).
    """
    settings, seed = run.profile.ecg, run.profile.seed

    def make(folder: Path) -> None:
        torch.manual_seed(seed)
        archive = load_ecg_archive(run.data_root, run.cache)
        held_out = np.arange(len(archive.ecg)) % 10 == 0
        model = new_teacher(run)
        stage = EcgDiagnosis(model, settings, seed)
        history = fit(stage, [archive.ecg[~held_out], archive.diagnoses[~held_out]], "ecg")
        save_model(model, str(folder / "model.safetensors"))
        history.to_csv(folder / "history.csv", index=False)
        with torch.inference_mode():
            ecg = torch.from_numpy(archive.ecg[held_out])
            logits = torch.cat([model.eval()(part) for part in ecg.split(256)])
        np.savez(folder / "held_out.npz", logits=logits, diagnoses=archive.diagnoses[held_out])

    return run.build("ecg", make, settings, run.profile.phantom if run.is_phantom else "", seed)


def load_ecg(run: Run) -> Net1D:
    """The ECG teacher: the published ECGFounder where the profile names it, else this run's.

    Raises:
        PacxError: The weights do not match in full, or the artefact is missing.
    """
    if run.profile.ecg.weights is not None:
        return load_ecg_founder(run.profile.ecg.weights).eval()
    model = new_teacher(run)
    load_model(model, str(run.artefact("ecg") / "model.safetensors"))
    return model.eval()


def new_teacher(run: Run) -> Net1D:
    """An untrained Net1D of the profile's size."""
    settings = run.profile.ecg
    smaller = {
        "base_filters": settings.base_filters,
        "filter_list": settings.filter_list,
        "m_blocks_list": settings.blocks,
        "groups_width": settings.groups_width,
        "n_classes": len(ECG_DIAGNOSES),
    }
    return Net1D(**ECG_FOUNDER | smaller)
