"""Stage 3, segmentation: a small decoder on frozen patch tokens."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_model

from pacx.data.augment import SEGMENTATION, augment
from pacx.data.images import normalise
from pacx.models.checkpoints import load_matching
from pacx.models.encoder import encode
from pacx.models.segmenter import Segmenter, segmentation_loss
from pacx.processes import infer
from pacx.run import Run
from pacx.training.encoders import encoder_of, fingerprint_of
from pacx.training.fit import Stage, fit


class Segmentation(Stage):
    """Paper, section 'Segmentation': BCE and soft Dice, encoder frozen."""

    def __init__(self, encoder: torch.nn.Module, decoder: Segmenter, settings, seed: int):
        super().__init__(settings, seed)
        self.decoder = decoder
        # In a list, the frozen encoder stays out of parameters() and of train().
        self.frozen = [encoder]

    def forward(self, images, masks, generator):
        """Loss of images and masks, (B, H, W) each."""
        images, masks = augment(images, SEGMENTATION, generator, masks=masks)
        with torch.no_grad():
            _, patches = encode(self.frozen[0].to(images.device), normalise(images))
        loss = segmentation_loss(self.decoder(patches), masks[:, None])
        return loss.total, loss._asdict()


def segment(
    run: Run,
    target: str,
    model: str,
    train: tuple[np.ndarray, np.ndarray],
    test_images: np.ndarray,
) -> np.ndarray:
    """Train a decoder on one frozen encoder, or load it, and segment the test images.

    The decoder is that of the last epoch; the paper keeps the one with the best validation Dice.

    Args:
        run: The run.
        target: What is segmented, such as a data set's name; part of the artefact's name.
        model: See `encoder_of`.
        train: Images and masks, (N, H, W) each.
        test_images: (M, H, W).

    Returns:
        (M, H, W) bool.

    Raises:
        PacxError: The decoder on disk is of another shape.
    """
    settings, seed, vit = run.profile.segmentation, run.profile.seed, run.profile.vit
    encoder = encoder_of(run, model)
    decoder = Segmenter(vit.width, vit.patch_size)

    def make(folder: Path) -> None:
        torch.manual_seed(seed)
        stage = Segmentation(encoder, Segmenter(vit.width, vit.patch_size), settings, seed)
        fit(stage, list(train), f"segment {target}, {model}", folder=folder)
        save_model(stage.decoder, str(folder / "model.safetensors"))

    depends = settings, vit, seed, fingerprint_of(run, model), *train
    folder = run.build(f"segmenter-{target}-{model}", make, *depends)
    load_matching(decoder, load_file(folder / "model.safetensors"), folder)

    def masks(images: torch.Tensor) -> torch.Tensor:
        return decoder(encode(encoder, normalise(images))[1])[:, 0] > 0

    return infer(torch.nn.ModuleList([encoder, decoder]), masks, test_images)


def scores_per_image(predicted: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of each image (M, H, W), where `truth` above 0 is inside.

    The paper's code sums over a batch instead.

    Returns:
        `Dice` and `IoU`, (M,) each; 1 where nothing is there and nothing was found.
    """
    overlap = (predicted & (truth > 0)).sum((1, 2))
    area = predicted.sum((1, 2)) + (truth > 0).sum((1, 2))
    empty = area == 0
    return {
        "Dice": (2 * overlap + empty) / (area + empty),
        "IoU": (overlap + empty) / (area - overlap + empty),
    }
