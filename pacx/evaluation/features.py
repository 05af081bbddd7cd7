"""Frozen features: computed once for each encoder and data set."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pacx.data.images import load_images, normalise
from pacx.data.table import Dataset
from pacx.evaluation.attention import attention_maps, attention_rollout
from pacx.files import cached_array
from pacx.models.encoder import encode
from pacx.processes import device
from pacx.run import Run
from pacx.training.encoders import encoder_of, fingerprint_of


class Features(NamedTuple):
    """Features of N images: `cls` (N, D), and `mean` (N, D) of the patch tokens."""

    cls: np.ndarray
    mean: np.ndarray


def images_of(run: Run, dataset: Dataset, split: str, column: str = "image") -> np.ndarray:
    """(N, H, W) uint8 X-rays of a split, or its masks with `column="mask"`.

    Within one process the files are taken not to change: they are hashed once.
    """
    names = tuple(dataset.split(split)[column])
    return _load_once(dataset.root, names, run.profile.vit.image_size, run.cache, column == "mask")


def extract_features(run: Run, model: str, images: np.ndarray, batch_size: int = 256) -> Features:
    """Encode images with a frozen encoder.

    Args:
        run: The run.
        model: See `encoder_of`.
        images: (N, H, W) uint8, as `load_images` returns them.
        batch_size: Images at once.
    """

    def fill(out: np.ndarray) -> None:
        encoder = encoder_of(run, model).to(device())
        with torch.inference_mode():
            for start in range(0, len(out), batch_size):
                part = torch.from_numpy(np.array(images[start : start + batch_size]))
                cls, patches = encode(encoder, normalise(part.to(device())))
                out[start : start + batch_size, 0] = cls.cpu().numpy()
                out[start : start + batch_size, 1] = patches.mean(1).cpu().numpy()

    shape = (len(images), 2, run.profile.vit.width)
    key = "features", fingerprint_of(run, model), images
    out = cached_array(run.cache, key, shape, np.float32, fill)
    return Features(out[:, 0], out[:, 1])


def extract_rollouts(run: Run, model: str, images: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """Attention rollout of a frozen encoder on images, cached.

    Args:
        run: The run.
        model: See `encoder_of`.
        images: (N, H, W) uint8.
        batch_size: Images at once.

    Returns:
        (N, H', W') rollout on the patch grid, see `pacx.evaluation.attention`.
    """
    side = run.profile.vit.image_size // run.profile.vit.patch_size

    def fill(out: np.ndarray) -> None:
        encoder = encoder_of(run, model).to(device())
        for start in range(0, len(out), batch_size):
            part = torch.from_numpy(np.array(images[start : start + batch_size]))
            part = normalise(part.to(device()))
            rollout = attention_rollout(attention_maps(encoder, part, mean_of_heads=True))
            out[start : start + batch_size] = rollout.cpu().numpy()

    key = "rollout", fingerprint_of(run, model), images
    return cached_array(run.cache, key, (len(images), side, side), np.float32, fill)


@lru_cache(maxsize=128)
def _load_once(
    root: Path, names: tuple[str, ...], size: int, cache: Path, masks: bool
) -> np.ndarray:
    return load_images(root, list(names), size, cache, masks=masks)
