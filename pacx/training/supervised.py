"""A ceiling for probes: the MAE's encoder trained on, end to end, on the labels of phantoms."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from pacx.data.augment import DISTILLATION, augment
from pacx.data.datasets import load_dataset
from pacx.data.images import load_images, normalise
from pacx.models.encoder import encode, load_encoder, save_encoder
from pacx.run import Run
from pacx.training.fit import Stage, fit


class Supervised(Stage):
    """Binary cross-entropy of a linear head on the CLS token beside the mean of the patches."""

    decay_matrices_only = True

    def __init__(self, encoder: nn.Module, head: nn.Linear, settings, seed: int):
        super().__init__(settings, seed)
        self.encoder, self.head = encoder, head

    def forward(self, images, labels, generator):
        """Loss of (B, H, W) uint8 images and (B, C) labels."""
        images, _ = augment(images, DISTILLATION, generator)
        cls, patches = encode(self.encoder, normalise(images))
        logits = self.head(torch.cat([cls, patches.mean(1)], 1))
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        return loss, {"loss": loss}


def train_supervised(run: Run) -> Path:
    """Train the ceiling on all training labels of `phantom-truth`, from the run's `mae`.

    Returns:
        Folder with `model.safetensors` and `config.json` (the encoder), `head.safetensors` and
        `history.csv`.
    """
    settings, seed, precision = run.profile.supervised, run.profile.seed, run.profile.precision

    def make(folder: Path) -> None:
        torch.manual_seed(seed)
        dataset = load_dataset("phantom-truth", run.data_root)
        table = dataset.split("train")
        images = load_images(
            dataset.root, list(table["image"]), run.profile.vit.image_size, run.cache
        )
        labels = table[list(dataset.labels)].to_numpy(np.float32)
        encoder = load_encoder(run.artefact("mae"))
        head = nn.Linear(2 * run.profile.vit.width, labels.shape[1])
        stage = Supervised(encoder, head, settings, seed)
        fit(stage, [images, labels], "supervised", folder=folder, clip=1.0, precision=precision)
        save_encoder(encoder, folder)
        save_file(head.state_dict(), folder / "head.safetensors")

    start = (run.artefact("mae") / "made.json").read_text(encoding="utf-8")
    return run.build("supervised", make, settings, precision, seed, start)
