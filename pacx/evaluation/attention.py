"""Attention rollout: which patches does the CLS token look at?"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from pacx.data.images import load_images
from pacx.data.table import Dataset
from pacx.errors import PacxError
from pacx.evaluation.statistics import mean_on_resamples, paired_table
from pacx.run import Run


@torch.no_grad()
def attention_maps(
    encoder: VisionTransformer, images: Tensor, *, mean_of_heads: bool = False
) -> Tensor:
    """Attention probabilities of every block, before dropout.

    timm's fused attention never forms them, so it is off during this call; afterwards the encoder
    is as it was.

    Args:
        encoder: From `pacx.models.encoder`.
        images: (N, 3, H, W), normalised as in training.
        mean_of_heads: Keep the mean of each block's heads as its only one, to save memory.

    Returns:
        (N, depth, heads, 1 + L, 1 + L); each row sums to 1.
    """
    attentions = [block.attn for block in encoder.blocks]
    fused = [attention.fused_attn for attention in attentions]
    seen: list[Tensor] = []

    def keep(_, args: tuple[Tensor]) -> None:
        seen.append(args[0].mean(dim=1, keepdim=True) if mean_of_heads else args[0])

    taps = [attention.attn_drop.register_forward_pre_hook(keep) for attention in attentions]
    try:
        for attention in attentions:
            attention.fused_attn = False
        encoder.forward_features(images)
    finally:
        for attention, was_fused, tap in zip(attentions, fused, taps, strict=True):
            attention.fused_attn = was_fused
            tap.remove()
    return torch.stack(seen, dim=1)


def attention_rollout(attentions: Tensor) -> Tensor:
    """Follow the CLS token's attention through all layers (Abnar and Zuidema 2020).

    Per layer: average the heads, add the identity for the residual path, normalise the rows; then
    multiply the layers, the first one rightmost.

    Args:
        attentions: (N, depth, heads, 1 + L, 1 + L), from `attention_maps`.

    Returns:
        (N, H', W') CLS to patches on the square patch grid. With the CLS token's share of itself,
        a map sums to 1 (less 1e-6 a layer).

    Raises:
        PacxError: The patches form no square.

    Example:
        >>> maps = upsample(rollout_of(encoder, images), (224, 224))
    """
    n_patches = attentions.shape[-1] - 1
    side = round(n_patches**0.5)
    if side * side != n_patches:
        raise PacxError(f"{n_patches} patches do not form a square grid.")
    return _cls_row(attentions)[:, 1:].reshape(-1, side, side)


def rollout_of(encoder: VisionTransformer, images: Tensor) -> Tensor:
    """Attention rollout (N, H', W') of an encoder on normalised images (N, 3, H, W)."""
    return attention_rollout(attention_maps(encoder, images, mean_of_heads=True))


def upsample(rollout: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Bilinear maps (N, H, W) of a patch grid (N, H', W')."""
    return F.interpolate(rollout[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def mass_in_mask(rollout: Tensor, masks: Tensor) -> Tensor:
    """Share of the attention that falls inside a mask.

    Args:
        rollout: (N, H', W'), from `attention_rollout`; normalised here to sum 1.
        masks: (N, H, W), 1 = inside; averaged over each patch's area.

    Returns:
        (N,) in [0, 1]. Over masks that partition the image, the shares sum to 1.

    Raises:
        PacxError: Not one mask for every map.
    """
    if rollout.ndim != 3 or masks.ndim != 3 or len(rollout) != len(masks):
        raise PacxError(
            f"Expected maps (N, H', W') and masks (N, H, W), got {tuple(rollout.shape)} and "
            f"{tuple(masks.shape)}."
        )
    area = F.adaptive_avg_pool2d(masks.to(rollout.dtype)[:, None], rollout.shape[1:])[:, 0]
    return (rollout * area).sum(dim=(1, 2)) / rollout.sum(dim=(1, 2))


def cases_by_rule(before: np.ndarray, after: np.ndarray) -> pd.DataFrame:
    """The first three wins and losses in the order of the cases, never by looks.

    Args:
        before: (N,) bool, whether the first model is right.
        after: (N,) bool, whether the second is.

    Returns:
        Columns `kind` (win: only the second model is right; loss: only the first) and `case` (its
        row). Where the models never disagree, the first cases, of the kind "no difference".
    """
    wins, losses = (np.flatnonzero(b) for b in (after & ~before, before & ~after))
    kinds = {"win": wins, "loss": losses}
    if not len(wins) + len(losses):
        kinds = {"no difference": np.arange(len(before))}
    return pd.DataFrame(
        [{"kind": kind, "case": i} for kind, cases in kinds.items() for i in cases[:3]]
    )


def regions_of(run: Run, phantoms: Dataset, split: str) -> dict[str, np.ndarray]:
    """Exact masks (N, H, W) float32 of a split of `phantom-truth`, 1 = inside; regions overlap."""
    names = [Path(name).name for name in phantoms.split(split)["image"]]
    size = run.profile.vit.image_size
    masks = {
        region: load_images(
            phantoms.root, [f"masks/{region}/{n}" for n in names], size, run.cache, masks=True
        ).astype(np.float32)
        for region in ("heart", "lungs", "bones", "devices", "body")
    }
    masks["outside the body"] = 1 - masks.pop("body")
    return masks


def shares_by_region(
    maps: dict[str, np.ndarray],
    regions: dict[str, np.ndarray],
    weights: np.ndarray,
    **facts: object,
) -> pd.DataFrame:
    """Mean share of each model's maps in each region, compared with the MAE's on the same cases.

    Args:
        maps: Model -> (N, H', W') without negative values; `mae` is among them.
        regions: Name -> (N, H, W) masks, 1 = inside.
        weights: (R, N) of the bootstrap.
        **facts: Columns that are equal in all rows.

    Returns:
        One row a region and model: the facts, region, `area` (mean share of the image that the
        mask covers), and the columns of `pacx.evaluation.statistics.paired_table`.
    """
    tables = []
    for region, mask in regions.items():
        inside = torch.from_numpy(mask)
        shares = {m: mass_in_mask(torch.from_numpy(v), inside).numpy() for m, v in maps.items()}
        measured = {m: mean_on_resamples(s, weights) for m, s in shares.items()}
        names = {**facts, "metric": "share", "region": region, "area": mask.mean()}
        tables.append(paired_table(list(maps), "mae", measured.__getitem__, **names))
    return pd.concat(tables, ignore_index=True)


def _cls_row(attentions: Tensor) -> Tensor:
    """The CLS token's row (N, 1 + L) of the product over all layers."""
    layers = attentions.mean(dim=2)
    layers = layers + torch.eye(layers.shape[-1], dtype=layers.dtype, device=layers.device)
    layers = layers / (layers.sum(dim=-1, keepdim=True) + 1e-6)
    # Only the CLS row is wanted: carry one row down from the last layer, not a whole matrix.
    row = layers[:, -1, :1]
    for layer in layers[:, :-1].flip(1).unbind(1):
        row = row @ layer
    return row[:, 0]
