"""Forgetting: how well does the MAE's own decoder still reconstruct from a changed encoder?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pacx.data.datasets import load_dataset
from pacx.data.images import normalise
from pacx.evaluation.statistics import bootstrap_weights, mean_on_resamples, paired_table
from pacx.files import cached_array
from pacx.models.mae import MaskedAutoencoder
from pacx.processes import infer
from pacx.run import Run
from pacx.training.encoders import encoder_of, fingerprint_of
from pacx.training.mae import load_mae, pretraining_images

#: Masks an image; their errors are averaged.
MASKS = 4


def compare_reconstruction(
    run: Run, models: Sequence[str], *, reference: str = "mae"
) -> pd.DataFrame:
    """Reconstruction error on the validation split of stage 1's X-rays, with paired differences.

    The run holds the artefact `mae`, from which the models started.

    Returns:
        One row a model: dataset, task, metric (`MSE`), then the columns of
        `pacx.evaluation.statistics.paired_table`; intervals over patients.
    """
    images = pretraining_images(run, "val")
    dataset = load_dataset(run.profile.pretraining, run.data_root)
    patients = dataset.split("val")["patient"].to_numpy()
    weights = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)

    def measure(model: str) -> tuple[float, np.ndarray]:
        return mean_on_resamples(reconstruction_errors(run, model, images), weights)

    facts = {"dataset": dataset.name, "task": "reconstruction", "metric": "MSE"}
    return paired_table(models, reference, measure, **facts)


def reconstruction_errors(run: Run, model: str, images: np.ndarray) -> np.ndarray:
    """Error of each image's removed patches; the decoder and the masks are the same for all models.

    Returns:
        (N,) mean squared error over the removed pixels of images (N, H, W) uint8 and `MASKS` masks,
        in the scale of normalised images.
    """
    mae, ratio, seed = load_mae(run), run.profile.mae.mask_ratio, run.profile.seed
    mae.encoder = encoder_of(run, model)
    shape = MASKS, len(images), mae.encoder.patch_embed.num_patches
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed))

    def errors(images: Tensor, noise: Tensor) -> Tensor:
        images = normalise(images)
        each = [image_errors(mae, images, mask, ratio) for mask in noise.unbind(1)]
        return torch.stack(each).mean(0)

    def fill(out: np.ndarray) -> None:
        infer(mae, errors, images, noise.transpose(0, 1), out=out)

    models = (fingerprint_of(run, name) for name in ("mae", model))
    key = "reconstruction", *models, images, seed, ratio
    return np.asarray(cached_array(run.cache, key, (len(images),), np.float32, fill))


def image_errors(
    mae: MaskedAutoencoder, images: Tensor, noise: Tensor, mask_ratio: float
) -> Tensor:
    """Mean squared error over each image's removed pixels.

    Args:
        mae: In evaluation mode.
        images: (N, 3, H, W), normalised.
        noise: (N, L) that chooses the patches to remove.
        mask_ratio: Share of them.

    Returns:
        (N,) in the scale of `images`, with `norm_pix_loss` too.
    """
    output = mae(images, mask_ratio, noise)
    _, restored = mae.reconstruct(images, output)
    # Kept patches are pasted in as they are: they add nothing to the sum.
    return (restored - images).square().mean((1, 2, 3)) / output.mask.mean(1)
