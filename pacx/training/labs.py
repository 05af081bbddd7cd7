"""Stage 1, blood tests: the mask-aware denoising autoencoder."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_model

from pacx.data.datasets import load_pairs, require_data
from pacx.models.checkpoints import load_matching
from pacx.models.lab_autoencoder import LabAutoencoder, corrupt, masked_mse
from pacx.run import Run
from pacx.training.fit import Stage, fit
from pacx.training.targets import teacher_name


class LabDenoising(Stage):
    """Paper, section 'Unimodal pretraining': drop observed labs, restore all observed ones."""

    def __init__(self, model: LabAutoencoder, settings, seed: int):
        super().__init__(settings, seed)
        self.model = model

    def forward(self, percentiles, observed, generator):
        """Loss of percentiles and observed, (B, L) each."""
        kept = corrupt(observed, self.settings.drop, generator)
        predicted, _ = self.model(percentiles, kept)
        loss = masked_mse(predicted, percentiles, observed)
        return loss, {"loss": loss}


def train_labs(run: Run, share: float = 1.0) -> Path:
    """Train the lab autoencoder on the training pairs for a share of the epochs, or load it.

    Returns:
        Folder with `model.safetensors` and `history.csv`.

    Raises:
        NoDataError: The pairs have no blood tests.
    """
    require_data(run, "labs")
    settings, seed, precision = run.profile.labs, run.profile.seed, run.profile.precision
    settings = settings.model_copy(update={"epochs": max(1, round(share * settings.epochs))})

    def make(folder: Path) -> None:
        torch.manual_seed(seed)
        pairs = load_pairs(run, "train")
        model = LabAutoencoder(pairs.percentiles.shape[1])
        stage = LabDenoising(model, settings, seed)
        training = [pairs.percentiles, pairs.observed]
        fit(stage, training, "labs", folder=folder, precision=precision)
        save_model(model, str(folder / "model.safetensors"))

    return run.build(teacher_name("labs", share), make, settings, precision, seed)


def load_labs(run: Run, share: float = 1.0) -> LabAutoencoder:
    """The lab autoencoder of this run, in evaluation mode.

    Raises:
        PacxError: The artefact is missing, or of another shape.
    """
    weights = run.artefact(teacher_name("labs", share)) / "model.safetensors"
    state = load_file(weights)
    model = LabAutoencoder(len(state["decoder.2.bias"]))
    return load_matching(model, state, weights).eval()
