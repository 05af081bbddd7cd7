"""Segmentation decoder on frozen patch tokens, with its loss (stage 3 of the paper)."""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pacx.errors import PacxError

EPS = 1e-6


class SegmentationLoss(NamedTuple):
    """Scalars: `total` = `bce` + `dice` (1 - soft Dice)."""

    total: Tensor
    bce: Tensor
    dice: Tensor


class Segmenter(nn.Module):
    """Grows a patch grid to full resolution: one doubling for every factor 2 in the patch size.

    For patch 16 the channels are 256, 128, 64, 32, 1 (the paper); for patch 8 one inner stage is
    dropped: 256, 128, 64, 1.

    Args:
        width: Channels D of a patch token.
        patch_size: Pixels a side of a patch; a power of two, at least 2.

    Raises:
        PacxError: The patch size is not a power of two.
    """

    def __init__(self, width: int, patch_size: int):
        super().__init__()
        if patch_size < 2 or patch_size & (patch_size - 1):
            raise PacxError(f"patch_size {patch_size} is not a power of two (2, 4, 8, 16, 32).")
        steps = patch_size.bit_length() - 1
        channels = [256 >> step for step in range(steps)] + [1]
        layers: list[nn.Module] = [nn.Conv2d(width, channels[0], 3, padding=1)]
        for before, after in pairwise(channels):
            layers += [nn.ReLU(), nn.ConvTranspose2d(before, after, kernel_size=2, stride=2)]
        self.decoder = nn.Sequential(*layers)

    def forward(self, patches: Tensor) -> Tensor:
        """Logits (N, 1, H, W) of patch tokens (N, L, D) in row-major order.

        Raises:
            PacxError: The patches do not form a square.
        """
        n_images, n_patches, width = patches.shape
        side = round(n_patches**0.5)
        if side * side != n_patches:
            raise PacxError(f"{n_patches} patches do not form a square; leave out the CLS token.")
        return self.decoder(patches.transpose(1, 2).reshape(n_images, width, side, side))


def segmentation_loss(logits: Tensor, masks: Tensor) -> SegmentationLoss:
    """Binary cross-entropy plus 1 - soft Dice, the latter over the whole batch at once.

    Args:
        logits: (N, 1, H, W).
        masks: (N, 1, H, W), 1 = inside.
    """
    # 16 bit cannot hold the sums, nor EPS beside them.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    masks = masks.to(logits.dtype)
    bce = F.binary_cross_entropy_with_logits(logits, masks)
    inside = logits.sigmoid()
    overlap = (inside * masks).sum()
    dice = 1 - (2 * overlap + EPS) / (inside.sum() + masks.sum() + EPS)
    return SegmentationLoss(bce + dice, bce, dice)
