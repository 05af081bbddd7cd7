"""The encoders that are compared, by their names."""

import shutil
from pathlib import Path

import torch

from pacx.errors import PacxError
from pacx.models.encoder import build_encoder, load_encoder
from pacx.models.imports import import_encoder, timm_weights
from pacx.profile import VitSettings
from pacx.run import Run

#: The public supervised ViT-B/16 that stands for the paper's column `imagenet`, and its shape.
IMAGENET = "vit_base_patch16_224.augreg2_in21k_ft_in1k"
IMAGENET_VIT = VitSettings(image_size=224, patch_size=16, width=768, depth=12, heads=12)


def encoder_of(run: Run, model: str) -> torch.nn.Module:
    """The frozen encoder `random`, `imagenet`, or of an artefact's name, such as `mae` or `pacx`.

    Raises:
        PacxError: The artefact is missing, or the ImageNet weights do not fit or are not there.
    """
    if model == "random":
        torch.manual_seed(run.profile.seed)
        return build_encoder(**run.profile.vit.model_dump()).eval()
    if model == "imagenet":
        _check_shape(run.profile.vit)
        return import_encoder(IMAGENET)[0]
    return load_encoder(run.artefact(model)).eval()


def fingerprint_of(run: Run, model: str) -> str:
    """Text that changes whenever the model's weights do; part of every cache key.

    Raises:
        PacxError: See `encoder_of`.
    """
    if model == "random":
        return f"random {run.profile.seed} {run.profile.vit}"
    if model == "imagenet":
        _check_shape(run.profile.vit)
        return f"imagenet {IMAGENET} {timm_weights(IMAGENET).resolve().name}"
    return f"{model} {(run.artefact(model) / 'made.json').read_text()}"


def borrow_encoder(run: Run, other: Run, model: str, name: str) -> Path:
    """Copy an artefact of another run, such as one on phantoms, to have it under a name in this.

    Raises:
        PacxError: The other run does not hold it.
    """
    source = other.artefact(model)

    def make(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)

    return run.build(name, make, (source / "made.json").read_text())


def _check_shape(vit: VitSettings) -> None:
    if vit != IMAGENET_VIT:
        raise PacxError(
            "the public ImageNet weights are of ViT-B/16 at 224 px; this profile's encoder is "
            f"{vit.width} wide, {vit.depth} deep, with patches of {vit.patch_size} at "
            f"{vit.image_size} px."
        )
