"""Frozen features: computed once for each encoder and data set."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from huggingface_hub import try_to_load_from_cache

from pacx.data.images import IMAGENET_MEAN, IMAGENET_STD, load_images, normalise
from pacx.data.table import Dataset
from pacx.errors import PacxError
from pacx.evaluation.attention import attention_maps, attention_rollout
from pacx.files import cached_array
from pacx.models.encoder import build_encoder, encode, load_encoder
from pacx.processes import device
from pacx.profile import VitSettings
from pacx.run import Run

#: The public supervised ViT-B/16 that stands for the paper's column `imagenet`, and its shape.
IMAGENET = "vit_base_patch16_224.augreg2_in21k_ft_in1k"
IMAGENET_VIT = VitSettings(image_size=224, patch_size=16, width=768, depth=12, heads=12)


class Features(NamedTuple):
    """Features of N images: `cls` (N, D), and `mean` (N, D) of the patch tokens."""

    cls: np.ndarray
    mean: np.ndarray


def encoder_of(run: Run, model: str) -> torch.nn.Module:
    """The frozen encoder of a model name.

    Args:
        run: The run.
        model: `random`, `imagenet`, or the name of an artefact, such as `mae` or `pacx`.

    Raises:
        PacxError: The artefact is missing, or the ImageNet weights do not fit or are not there.
    """
    if model == "random":
        torch.manual_seed(run.profile.seed)
        return build_encoder(**run.profile.vit.model_dump()).eval()
    if model == "imagenet":
        return _imagenet_encoder(_imagenet_weights(run))
    return load_encoder(run.artefact(model)).eval()


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


def fingerprint_of(run: Run, model: str) -> str:
    """Text that changes whenever the model's weights do; part of every cache key.

    Raises:
        PacxError: See `encoder_of`.
    """
    if model == "random":
        return f"random {run.profile.seed} {run.profile.vit}"
    if model == "imagenet":
        return f"imagenet {IMAGENET} {_imagenet_weights(run).resolve().name}"
    return f"{model} {(run.artefact(model) / 'made.json').read_text()}"


@lru_cache(maxsize=128)
def _load_once(
    root: Path, names: tuple[str, ...], size: int, cache: Path, masks: bool
) -> np.ndarray:
    return load_images(root, list(names), size, cache, masks=masks)


def _imagenet_weights(run: Run) -> Path:
    """File of the public weights in the local Hugging Face cache; nothing is downloaded."""
    if run.profile.vit != IMAGENET_VIT:
        vit = run.profile.vit
        raise PacxError(
            "the public ImageNet weights are of ViT-B/16 at 224 px; this profile's encoder is "
            f"{vit.width} wide, {vit.depth} deep, with patches of {vit.patch_size} at "
            f"{vit.image_size} px."
        )
    file = try_to_load_from_cache(f"timm/{IMAGENET}", "model.safetensors")
    if not isinstance(file, str):
        raise PacxError(
            "the public ImageNet weights are not on this machine, and nothing is downloaded. "
            f"To have them: hf download timm/{IMAGENET} model.safetensors"
        )
    return Path(file)


def _imagenet_encoder(weights: Path) -> torch.nn.Module:
    """The public encoder, made to take the same normalised images as ours."""
    overlay = {"file": str(weights), "custom_load": False}
    encoder = timm.create_model(
        IMAGENET, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
    )
    # It was trained with another mean and standard deviation: the first layer absorbs that.
    ours, theirs = (
        (torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None])
        for mean, std in (
            (IMAGENET_MEAN, IMAGENET_STD),
            (encoder.pretrained_cfg["mean"], encoder.pretrained_cfg["std"]),
        )
    )
    first = encoder.patch_embed.proj
    with torch.no_grad():
        shift = (ours[0] - theirs[0]) / theirs[1]
        first.bias += (first.weight * shift).sum((1, 2, 3))
        first.weight *= ours[1] / theirs[1]
    return encoder.eval()
