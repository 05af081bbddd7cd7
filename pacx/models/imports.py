"""Encoders that others have trained: public MAE weights, timm's, Lightning checkpoints with LoRA.

Every tensor of the encoder is found, with the right shape, or nothing is loaded; and a table says
what became of every tensor of the file.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from pacx.data.images import IMAGENET_MEAN, IMAGENET_STD
from pacx.errors import PacxError
from pacx.models.checkpoints import load_matching, read_weights
from pacx.models.encoder import add_lora, build_encoder, encode, merge_lora

#: What checkpoints hold beside the encoder, under the encoder's own prefix: decoder and classifier.
_NOT_OF_THE_ENCODER = ("mask_token", "decoder_", "head.")
_PEFT = "base_model.model."


def import_encoder(
    source: str | Path, *, heads: int | None = None, lora_alpha: int = 16
) -> tuple[VisionTransformer, pd.DataFrame]:
    """Read an encoder that was trained elsewhere.

    Args:
        source: A file (`.pth`, `.pt`, `.ckpt` or `.safetensors`): public MAE weights such as
            `mae_pretrain_vit_base.pth`, or a Lightning checkpoint, whose encoder may have LoRA
            adapters (merged here) and any prefix. Or a timm model name, such as
            `vit_base_patch16_224.mae`, whose weights are in the local Hugging Face cache.
        heads: Attention heads, which no file states. By the rule of ViT: 64 channels each, and 16
            heads for a width of 1,280.
        lora_alpha: Of the adapters, which no file states either; the paper's is 16 for rank 8.

    Returns:
        The encoder in evaluation mode, LayerNorms with our epsilon, and one row a tensor of the
        file: `in the file`, `shape`, `here`, `what`.

    Raises:
        PacxError: There is no such file or model; the file is damaged or holds more than weights;
            or a tensor of the encoder is missing, unexpected, of another shape or not finite.

    Example:
        >>> encoder, tensors = import_encoder("mae_pretrain_vit_base.pth")
    """
    path = Path(source)
    if path.is_file():
        return _from_state(read_weights(path), path, heads, lora_alpha)
    name = str(source).removeprefix("hf-hub:").removeprefix("hf_hub:").removeprefix("timm/")
    if timm.is_model(name):
        return _from_timm(name)
    raise PacxError(
        f"{source} is neither a file nor a model that timm knows. Give the path of the weights, or "
        "a name such as vit_base_patch16_224.mae."
    )


def _from_state(
    state: Mapping[str, Tensor], source: str | Path, heads: int | None, lora_alpha: int
) -> tuple[VisionTransformer, pd.DataFrame]:
    cls_tokens = [name for name in state if name.split(".")[-1] == "cls_token"]
    if len(cls_tokens) != 1:
        raise PacxError(
            f"{source} holds {len(cls_tokens)} vision transformers (tensors named cls_token); "
            "one is needed."
        )
    prefix = cls_tokens[0].removesuffix("cls_token")
    inside = {
        name: name.removeprefix(prefix)
        for name in state
        if name.startswith(prefix) and not name.removeprefix(prefix).startswith(_NOT_OF_THE_ENCODER)
    }
    weights = {here: state[name].float() for name, here in inside.items()}
    broken = [name for name, here in inside.items() if not weights[here].isfinite().all()]
    if broken:
        raise PacxError(f"{source} holds values that are not finite, first in {broken[0]}.")
    encoder = build_encoder(**_shape(weights, source, heads))
    ranks = [tensor.shape[0] for here, tensor in weights.items() if ".lora_A." in here]
    if ranks:
        adapted = add_lora(encoder, ranks[0], lora_alpha)
        load_matching(adapted, {_PEFT + here: t for here, t in weights.items()}, source)
        encoder = merge_lora(adapted)
    else:
        load_matching(encoder, weights, source)
    return encoder.eval(), _table(state, inside)


def _shape(weights: Mapping[str, Tensor], source: str | Path, heads: int | None) -> dict:
    """The arguments of `build_encoder`, read off the tensors."""
    names = ("pos_embed", "patch_embed.proj.weight", "norm.weight")
    missing = [name for name in names if name not in weights]
    hidden = [t for name, t in weights.items() if name.startswith("blocks.0.mlp.fc1.")]
    if missing or not hidden:
        raise PacxError(
            f"{source} lacks {', '.join(missing) or 'blocks.0.mlp.fc1'}: no vision transformer "
            "with a CLS token and a final LayerNorm, as the public MAE weights have."
        )
    positions, kernel = weights["pos_embed"], weights["patch_embed.proj.weight"]
    if positions.ndim != 3 or kernel.ndim != 4:
        raise PacxError(
            f"{source}: pos_embed has the shape {tuple(positions.shape)} and the patch kernel "
            f"{tuple(kernel.shape)}; expected (1, 1 + L, D) and (D, 3, P, P)."
        )
    width, patch_size = kernel.shape[0], kernel.shape[-1]
    grid = math.isqrt(positions.shape[1] - 1)
    if heads is None and width % 64:
        raise PacxError(
            f"{source} has {width} channels, and no file states the number of attention heads: "
            "give `heads`."
        )
    if heads is None:
        heads = 16 if width == 1280 else width // 64
    blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    return {
        "image_size": grid * patch_size,
        "patch_size": patch_size,
        "width": width,
        "depth": len(blocks),
        "heads": heads,
        # The bias or the adapter tells as well, whatever the layer is called.
        "mlp_ratio": max(max(t.shape) for t in hidden) / width,
    }


def _table(state: Mapping[str, Tensor], inside: Mapping[str, str]) -> pd.DataFrame:
    rows = []
    for name, tensor in state.items():
        here, what = "", "left out: not of the encoder"
        if name in inside:
            here, what = inside[name].replace(".base_layer", ""), "loaded"
        if ".lora_" in here:
            here, what = f"{here.split('.lora_')[0]}.weight", "adapter, merged"
        rows.append((name, str(tuple(tensor.shape)), here, what))
    return pd.DataFrame(rows, columns=["in the file", "shape", "here", "what"])


def timm_weights(name: str) -> Path:
    """File of a timm model's weights in the local Hugging Face cache; nothing is downloaded.

    Raises:
        PacxError: They are not there.
    """
    file = try_to_load_from_cache(f"timm/{name}", "model.safetensors")
    if not isinstance(file, str):
        raise PacxError(
            f"The weights of {name} are not on this machine, and nothing is downloaded. "
            f"To have them: hf download timm/{name} model.safetensors"
        )
    return Path(file)


def _from_timm(name: str) -> tuple[VisionTransformer, pd.DataFrame]:
    """A timm model from the local cache, made to take the same normalised images as ours."""
    overlay = {"file": str(timm_weights(name)), "custom_load": False}
    theirs = timm.create_model(
        name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
    ).eval()
    if not isinstance(theirs, VisionTransformer):
        raise PacxError(f"{name} is a {type(theirs).__name__}; a VisionTransformer is needed.")
    ours, table = _from_state(theirs.state_dict(), name, theirs.blocks[0].attn.num_heads, 16)
    # Names and shapes do not tell an activation or an epsilon: the two must answer alike.
    image = torch.linspace(-2, 2, 3 * ours.patch_embed.img_size[0] ** 2)
    image = image.reshape(1, 3, *ours.patch_embed.img_size)
    with torch.inference_mode():
        difference = (encode(theirs, image)[0] - encode(ours, image)[0]).abs().max()
    if not difference < 1e-3:
        raise PacxError(
            f"{name} has the tensors of a plain vision transformer but computes something else "
            "(another activation, or another LayerNorm epsilon). Choose another model."
        )
    # It was trained with its own mean and standard deviation: the first layer absorbs them.
    mean, std = (torch.tensor(theirs.pretrained_cfg[key]) for key in ("mean", "std"))
    ratio = (torch.tensor(IMAGENET_STD) / std)[:, None, None]
    shift = ((torch.tensor(IMAGENET_MEAN) - mean) / std)[:, None, None]
    first = ours.patch_embed.proj
    with torch.no_grad():
        first.bias += (first.weight * shift).sum((1, 2, 3))
        first.weight *= ratio
    return ours, table
