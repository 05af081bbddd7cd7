"""Frozen features: computed once for each encoder and data set."""

import hashlib
import mmap
from typing import NamedTuple

import numpy as np
import torch

from pacx.data.cache import cached_array
from pacx.data.images import load_images, normalise
from pacx.data.table import Dataset
from pacx.evaluation.attention import attention_maps, attention_rollout
from pacx.models.encoder import build_encoder, encode, load_encoder
from pacx.run import Run


class Features(NamedTuple):
    """Features of N images: `cls` (N, D), and `mean` (N, D) of the patch tokens."""

    cls: np.ndarray
    mean: np.ndarray


def encoder_of(run: Run, model: str) -> torch.nn.Module:
    """The frozen encoder of a model name.

    Args:
        run: The run.
        model: `random`, or the name of an artefact, such as `mae` or `pacx`.

    Raises:
        PacxError: The artefact is missing.
    """
    if model == "random":
        torch.manual_seed(run.profile.seed)
        return build_encoder(**run.profile.vit.model_dump()).eval()
    return load_encoder(run.artefact(model)).eval()


def images_of(run: Run, dataset: Dataset, split: str, column: str = "image") -> np.ndarray:
    """(N, H, W) uint8 X-rays of a split, or its masks with `column="mask"`."""
    names = list(dataset.split(split)[column])
    size = run.profile.vit.image_size
    return load_images(dataset.root, names, size, run.cache, masks=column == "mask")


def extract_features(run: Run, model: str, images: np.ndarray, batch_size: int = 256) -> Features:
    """Encode images with a frozen encoder.

    Args:
        run: The run.
        model: See `encoder_of`.
        images: (N, H, W) uint8, as `load_images` returns them.
        batch_size: Images at once.
    """
    encoder = encoder_of(run, model)

    def fill(out: np.ndarray) -> None:
        with torch.inference_mode():
            for start in range(0, len(out), batch_size):
                part = torch.from_numpy(np.array(images[start : start + batch_size]))
                cls, patches = encode(encoder, normalise(part))
                out[start : start + batch_size, 0] = cls.numpy()
                out[start : start + batch_size, 1] = patches.mean(1).numpy()

    shape = (len(images), 2, run.profile.vit.width)
    key = f"features {stamp_of(run, model)} {identity_of(images)}"
    out = cached_array(run.cache, key, shape, np.float32, fill)
    return Features(out[:, 0], out[:, 1])


def extract_rollouts(run: Run, model: str, images: np.ndarray, batch_size: int = 128) -> np.ndarray:
    """Attention rollout of a frozen encoder on images, cached.

    Args:
        run: The run.
        model: See `encoder_of`.
        images: (N, H, W) uint8.
        batch_size: Images at once; all layers' attention of a batch is in memory.

    Returns:
        (N, H', W') rollout on the patch grid, see `pacx.evaluation.attention`.
    """
    encoder = encoder_of(run, model)
    side = run.profile.vit.image_size // run.profile.vit.patch_size

    def fill(out: np.ndarray) -> None:
        for start in range(0, len(out), batch_size):
            part = normalise(torch.from_numpy(np.array(images[start : start + batch_size])))
            maps = attention_rollout(attention_maps(encoder, part))
            out[start : start + batch_size] = maps.numpy()

    key = f"rollout {stamp_of(run, model)} {identity_of(images)}"
    return cached_array(run.cache, key, (len(images), side, side), np.float32, fill)


def stamp_of(run: Run, model: str) -> str:
    """Text that changes whenever the model's weights do; part of every cache key.

    Raises:
        PacxError: The artefact is missing.
    """
    if model == "random":
        return f"random {run.profile.seed} {run.profile.vit}"
    return f"{model} {(run.artefact(model) / 'made.json').read_text()}"


def identity_of(images: np.ndarray) -> str:
    """Text for cache keys: the file of a whole memory map; of anything else, slices too, a hash."""
    if isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap):
        return str(images.filename)
    return f"{images.shape} {hashlib.sha256(np.ascontiguousarray(images)).hexdigest()}"
