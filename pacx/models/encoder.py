"""The CXR encoder: a timm vision transformer with the key names of the public MAE weights."""

import copy
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pacx.errors import PacxError
from pacx.models.checkpoints import load_matching, read_checkpoint, save_checkpoint

#: One value for every stage: the public code drifts from 1e-6 to 1e-5 between stages.
LAYER_NORM_EPS = 1e-6
LORA_LAYERS = ("qkv", "fc1", "fc2")


def build_encoder(
    image_size: int, patch_size: int, width: int, depth: int, heads: int, mlp_ratio: float = 4.0
) -> VisionTransformer:
    """Build an untrained encoder with fixed 2-D sin-cos positions and the MAE's initial weights.

    The paper's is ViT-B/16: `build_encoder(224, 16, 768, 12, 12)`.

    Args:
        image_size: Pixels a side; a multiple of `patch_size`.
        patch_size: Pixels a side.
        width: Channels of a token; a multiple of `heads` and of 4.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of a block's MLP over `width`; rounded to whole channels.

    Raises:
        PacxError: A size is not positive, or the sizes do not divide.
    """
    if min(image_size, patch_size, width, depth, heads) < 1:
        raise PacxError(
            f"image_size {image_size}, patch_size {patch_size}, width {width}, depth {depth} and "
            f"heads {heads} must be at least 1."
        )
    if image_size % patch_size:
        raise PacxError(f"image_size {image_size} is not a multiple of patch_size {patch_size}.")
    if width % heads or width % 4:
        raise PacxError(f"width {width} must be a multiple of heads ({heads}) and of 4.")
    encoder = VisionTransformer(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        # timm cuts the product down: without the half, rounding may cost a channel.
        mlp_ratio=(round(width * mlp_ratio) + 0.5) / width,
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=LAYER_NORM_EPS),
        weight_init="skip",
    )
    encoder.pos_embed = sincos_positions(width, image_size // patch_size)
    encoder.apply(init_weights)
    patch_kernel = encoder.patch_embed.proj.weight
    nn.init.xavier_uniform_(patch_kernel.data.flatten(1))  # as if it were a linear layer
    nn.init.normal_(encoder.cls_token, std=0.02)
    return encoder


def encode(encoder: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Encode whole images, without masking.

    Args:
        encoder: From `build_encoder` or `add_lora`.
        images: (N, 3, H, W), normalised with the ImageNet mean and standard deviation.

    Returns:
        The CLS token (N, D) and the patch tokens (N, L, D) in row-major order, both after the
        final LayerNorm.
    """
    tokens = encoder.forward_features(images)
    return tokens[:, 0], tokens[:, 1:]


def save_encoder(encoder: VisionTransformer, folder: str | Path) -> None:
    """Write `model.safetensors` and `config.json` into `folder`.

    Raises:
        PacxError: LoRA adapters are not merged yet.
    """
    save_checkpoint(encoder, encoder_config(encoder), folder)


def load_encoder(folder: str | Path) -> VisionTransformer:
    """Read what `save_encoder` wrote: every tensor, or an error.

    Raises:
        PacxError: Files are missing or damaged, the sizes are impossible, or a tensor is missing,
            unexpected or of another shape.
    """
    config, state = read_checkpoint(folder)
    try:
        encoder = build_encoder(**config)
    except (TypeError, PacxError) as error:
        raise PacxError(f"{folder}/config.json does not describe a CXR encoder: {error}") from error
    return load_matching(encoder, state, folder)


def encoder_config(encoder: VisionTransformer) -> dict[str, int | float]:
    """The arguments of `build_encoder` that make an encoder of this shape."""
    if isinstance(encoder, PeftModel):
        raise PacxError("The encoder still has LoRA adapters: call merge_lora first.")
    return {
        "image_size": encoder.patch_embed.img_size[0],
        "patch_size": encoder.patch_embed.patch_size[0],
        "width": encoder.embed_dim,
        "depth": len(encoder.blocks),
        "heads": encoder.blocks[0].attn.num_heads,
        "mlp_ratio": encoder.blocks[0].mlp.fc1.out_features / encoder.embed_dim,
    }


def add_lora(
    encoder: VisionTransformer,
    rank: int = 8,
    alpha: int = 16,
    dropout: float = 0.1,
    norms: Literal["all", "final"] = "all",
) -> PeftModel:
    """Freeze the encoder, add LoRA adapters to qkv, fc1 and fc2, and free the LayerNorms.

    Args:
        encoder: Changed in place; the returned model wraps it.
        rank: Rank r of the adapters.
        alpha: The adapters' output is scaled by alpha / r.
        dropout: On the adapters' input.
        norms: "all" LayerNorms are trained (the paper's text) or only the "final" one (what the
            public code does).
    """
    model = get_peft_model(
        encoder,
        LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=list(LORA_LAYERS),
            bias="none",
        ),
    )
    base = model.get_base_model()
    free = base.norm if norms == "final" else base
    for module in free.modules():
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)
    return model


def merge_lora(model: PeftModel) -> VisionTransformer:
    """Fold the adapters into a plain encoder; the model itself stays as it is.

    Raises:
        PacxError: The merged weights are not those of a plain encoder.
    """
    merged = copy.deepcopy(model).merge_and_unload(safe_merge=True)
    plain = build_encoder(**encoder_config(merged))
    plain.to(merged.cls_token)
    return load_matching(plain, merged.state_dict(), "the merged model").train(merged.training)


def trainable_parameters(module: nn.Module) -> int:
    """Number of parameters that training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def sincos_positions(width: int, grid: int) -> nn.Parameter:
    """Fixed 2-D sin-cos position table (1, 1 + grid * grid, width).

    The first half of the channels encodes the column, the second half the row; within each half,
    sines come before cosines. The CLS row is zero. (He et al. 2022, appendix A.1.)
    """
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * frequency
    wave = torch.cat([angle.sin(), angle.cos()], dim=1)  # (grid, width / 2)
    column = wave[None].expand(grid, grid, -1)
    row = wave[:, None].expand(grid, grid, -1)
    table = torch.cat([column, row], dim=2).reshape(grid * grid, width)
    table = torch.cat([table.new_zeros(1, width), table])
    return nn.Parameter(table.to(torch.get_default_dtype())[None], requires_grad=False)


def init_weights(module: nn.Module) -> None:
    """Initial weights of the MAE paper: Xavier for linear layers, ones and zeros for norms."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
