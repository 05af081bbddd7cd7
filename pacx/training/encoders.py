"""The encoders that are compared, by their names."""

from pathlib import Path

import timm
import torch
from huggingface_hub import try_to_load_from_cache

from pacx.data.images import IMAGENET_MEAN, IMAGENET_STD
from pacx.errors import PacxError
from pacx.models.encoder import build_encoder, load_encoder
from pacx.profile import VitSettings
from pacx.run import Run

#: The public supervised ViT-B/16 that stands for the paper's column `imagenet`, and its shape.
IMAGENET = "vit_base_patch16_224.augreg2_in21k_ft_in1k"
IMAGENET_VIT = VitSettings(image_size=224, patch_size=16, width=768, depth=12, heads=12)


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
