"""Stage 3, segmentation: a small decoder on frozen patch tokens."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model

from pacx.data.augment import SEGMENTATION, augment
from pacx.data.images import normalise
from pacx.evaluation.features import encoder_of
from pacx.models.encoder import encode
from pacx.models.segmenter import Segmenter, segmentation_loss
from pacx.run import Run
from pacx.training.fit import Stage, fit


class Segmentation(Stage):
    """Paper, section 'Segmentation': BCE and soft Dice, encoder frozen."""

    def __init__(self, encoder: torch.nn.Module, decoder: Segmenter, settings, seed: int):
        super().__init__(settings, seed)
        self.decoder = decoder
        # In a list, the frozen encoder stays out of parameters() and of train().
        self.frozen = [encoder]

    def training_step(self, batch, _):
        """One step on images and masks, (B, H, W) each."""
        images, masks = augment(batch[0], SEGMENTATION, self.draws, masks=batch[1])
        with torch.no_grad():
            _, patches = encode(self.frozen[0].to(images.device), normalise(images))
        loss = segmentation_loss(self.decoder(patches), masks[:, None])
        self.note(**loss._asdict())
        return loss.total


def segment(
    run: Run,
    model: str,
    train: tuple[np.ndarray, np.ndarray],
    test_images: np.ndarray,
) -> np.ndarray:
    """Train a decoder on one frozen encoder, or load it, and segment the test images.

    Args:
        run: The run.
        model: See `encoder_of`.
        train: Images and masks, (N, H, W) each.
        test_images: (M, H, W).

    Returns:
        (M, H, W) bool.
    """
    settings, seed, vit = run.profile.segmentation, run.profile.seed, run.profile.vit
    encoder = encoder_of(run, model)
    decoder = Segmenter(vit.width, vit.patch_size)

    def make(folder: Path) -> None:
        torch.manual_seed(seed)
        stage = Segmentation(encoder, Segmenter(vit.width, vit.patch_size), settings, seed)
        fit(stage, list(train), f"segment {model}").to_csv(folder / "history.csv", index=False)
        save_model(stage.decoder, str(folder / "model.safetensors"))

    stamp = "" if model == "random" else (run.artefact(model) / "made.json").read_text()
    folder = run.build(f"segmenter-{model}", make, settings, vit, seed, stamp, len(train[0]))
    load_model(decoder, str(folder / "model.safetensors"))
    masks = []
    with torch.inference_mode():
        for part in torch.from_numpy(np.array(test_images)).split(256):
            _, patches = encode(encoder, normalise(part))
            masks.append(decoder(patches)[:, 0] > 0)
    return torch.cat(masks).numpy()


def scores_per_image(predicted: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """`dice` and `iou` of each image, (M,) each; the paper's code sums over a batch instead."""
    overlap = (predicted & (truth > 0)).sum((1, 2))
    area = predicted.sum((1, 2)) + (truth > 0).sum((1, 2))
    return {"dice": 2 * overlap / area, "iou": overlap / (area - overlap)}
