"""Frozen features: computed once for each encoder and data set."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pacx.data.images import load_images, normalise
from pacx.data.table import Dataset
from pacx.evaluation.attention import rollout_of
from pacx.files import cached_array
from pacx.models.encoder import encode
from pacx.processes import infer
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


def extract_features(run: Run, model: str, images: np.ndarray) -> Features:
    """Encode images (N, H, W) uint8 with a frozen encoder, see `encoder_of`, cached."""

    def features(encoder: nn.Module, batch: Tensor) -> Tensor:
        cls, patches = encode(encoder, batch)
        return torch.stack([cls, patches.mean(1)], 1)

    shape = 2, run.profile.vit.width
    out = _on_all(run, model, images, "features", features, shape, batch_size=256)
    return Features(out[:, 0], out[:, 1])


def extract_rollouts(run: Run, model: str, images: np.ndarray) -> np.ndarray:
    """Attention rollout (N, H', W') of a frozen encoder on images (N, H, W) uint8, cached."""
    side = run.profile.vit.image_size // run.profile.vit.patch_size
    return _on_all(run, model, images, "rollout", rollout_of, (side, side), batch_size=128)


def _on_all(
    run: Run,
    model: str,
    images: np.ndarray,
    kind: str,
    compute: Callable[[nn.Module, Tensor], Tensor],
    shape: tuple[int, ...],
    batch_size: int,
) -> np.ndarray:
    """(N, *shape) of `compute` on an encoder and normalised batches of images, cached."""

    def fill(out: np.ndarray) -> None:
        encoder = encoder_of(run, model)
        infer(encoder, lambda b: compute(encoder, normalise(b)), images, size=batch_size, out=out)

    key = kind, fingerprint_of(run, model), images
    return cached_array(run.cache, key, (len(images), *shape), np.float32, fill)


@lru_cache(maxsize=128)
def _load_once(
    root: Path, names: tuple[str, ...], size: int, cache: Path, masks: bool
) -> np.ndarray:
    return load_images(root, list(names), size, cache, masks=masks)
