"""Stage 1, X-rays: masked autoencoding."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from pacx.data.augment import PRETRAINING, augment
from pacx.data.datasets import load_dataset, require_data
from pacx.data.images import load_images, normalise
from pacx.models.checkpoints import load_matching
from pacx.models.encoder import build_encoder, load_encoder, save_encoder
from pacx.models.imports import import_encoder
from pacx.models.mae import MaskedAutoencoder
from pacx.run import Run
from pacx.training.fit import Stage, fit


class MaePretraining(Stage):
    """Paper, section 'Unimodal pretraining': pixel MSE on the masked patches."""

    betas = (0.9, 0.95)
    decay_matrices_only = True

    def __init__(self, mae: MaskedAutoencoder, mask_ratio: float, settings, seed: int):
        super().__init__(settings, seed)
        self.mae, self.mask_ratio = mae, mask_ratio

    def forward(self, images, generator):
        """Loss of (B, H, W) uint8 images."""
        images, _ = augment(images, PRETRAINING, generator)
        loss = self.mae(normalise(images), self.mask_ratio).loss
        return loss, {"loss": loss}


def pretrain_mae(
    run: Run, name: str = "mae", *, mask_ratio: float | None = None, further_steps: int = 0
) -> Path:
    """Pretrain the CXR encoder, or load it when this run has it already.

    Where the profile names weights, the encoder goes on from them; the decoder starts anew.

    Args:
        run: The run.
        name: Of the artefact.
        mask_ratio: Share of patches removed; the profile's unless given.
        further_steps: Go on from the artefact `mae` for so many steps instead of starting anew.

    Returns:
        Folder with `model.safetensors` and `config.json` (the encoder), `decoder.safetensors` and
        `history.csv`.

    Raises:
        NoDataError: There are no X-rays.
        PacxError: The named weights are missing, damaged, or of another shape than the profile's.
    """
    require_data(run, "mae")
    settings, seed = run.profile.mae, run.profile.seed
    ratio = settings.mask_ratio if mask_ratio is None else mask_ratio

    def make(folder: Path) -> None:
        torch.manual_seed(seed)
        mae = load_mae(run).train() if further_steps else new_mae(run)
        if settings.weights is not None and not further_steps:
            encoder, _ = import_encoder(settings.weights, heads=run.profile.vit.heads)
            load_matching(mae.encoder, encoder.state_dict(), settings.weights)
        stage = MaePretraining(mae, ratio, settings, seed + bool(further_steps))
        fit(
            stage,
            [pretraining_images(run, "train")],
            name,
            folder=folder,
            steps=further_steps or None,
            accumulate=settings.accumulate,
            precision=run.profile.precision,
        )
        save_encoder(mae.encoder, folder)
        decoder = {k: v for k, v in mae.state_dict().items() if not k.startswith("encoder.")}
        save_file(decoder, folder / "decoder.safetensors")

    vit, precision = run.profile.vit, run.profile.precision
    return run.build(name, make, settings, vit, precision, seed, ratio, further_steps)


def load_mae(run: Run, name: str = "mae") -> MaskedAutoencoder:
    """Encoder and decoder of an MAE artefact, in evaluation mode.

    Raises:
        PacxError: The artefact is missing, or of another shape.
    """
    folder = run.artefact(name)
    mae = new_mae(run)
    decoder = load_file(folder / "decoder.safetensors")
    encoder = load_encoder(folder).state_dict()
    state = {f"encoder.{k}": v for k, v in encoder.items()} | decoder
    return load_matching(mae, state, folder).eval()


def pretraining_images(run: Run, split: str) -> np.ndarray:
    """(N, H, W) uint8 X-rays of stage 1."""
    dataset = load_dataset(run.profile.pretraining, run.data_root)
    names = list(dataset.split(split)["image"])
    return load_images(dataset.root, names, run.profile.vit.image_size, run.cache)


def new_mae(run: Run) -> MaskedAutoencoder:
    """An untrained autoencoder of the profile's shape."""
    settings = run.profile.mae
    return MaskedAutoencoder(
        build_encoder(**run.profile.vit.model_dump()),
        settings.decoder_width,
        settings.decoder_depth,
        settings.decoder_heads,
        settings.norm_pix_loss,
    )
