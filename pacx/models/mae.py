"""Masked autoencoder (He et al. 2022): the CXR encoder's pretraining, stage 1 of the paper."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from pacx.models.encoder import LAYER_NORM_EPS, init_weights, sincos_positions


class MaeOutput(NamedTuple):
    """What one forward pass gives.

    Attributes:
        loss: Mean squared error over the removed patches, a scalar.
        prediction: (N, L, P * P * 3) pixels of every patch, in the order (row, column, channel).
        mask: (N, L), 1 = removed, 0 = kept.
        latent: (N, 1 + K, D) encoder output: CLS, then the K kept patches in shuffled order.
        ids_restore: (N, L) place of every patch in the shuffled order; below K = kept.
    """

    loss: Tensor
    prediction: Tensor
    mask: Tensor
    latent: Tensor
    ids_restore: Tensor


class MaskedAutoencoder(nn.Module):
    """The encoder sees the kept patches only; a small decoder paints the removed ones.

    Args:
        encoder: From `pacx.models.encoder.build_encoder`; trained together with the decoder.
        decoder_width: Channels of a decoder token (the paper: 512).
        decoder_depth: Number of decoder blocks (8).
        decoder_heads: Attention heads of the decoder (16).
        norm_pix_loss: Standardise every target patch by its own mean and variance (the paper: off).

    Example:
        >>> mae = MaskedAutoencoder(build_encoder(224, 16, 768, 12, 12), 512, 8, 16)
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        decoder_width: int,
        decoder_depth: int,
        decoder_heads: int,
        norm_pix_loss: bool = False,
    ):
        super().__init__()
        self.encoder = encoder
        self.norm_pix_loss = norm_pix_loss
        self.patch_size = encoder.patch_embed.patch_size[0]
        norm = partial(nn.LayerNorm, eps=LAYER_NORM_EPS)

        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_embed = nn.Linear(encoder.embed_dim, decoder_width)
        self.decoder_pos_embed = sincos_positions(decoder_width, encoder.patch_embed.grid_size[0])
        self.decoder_blocks = nn.Sequential(
            *[
                Block(decoder_width, decoder_heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=norm)
                for _ in range(decoder_depth)
            ]
        )
        self.decoder_norm = norm(decoder_width)
        self.decoder_pred = nn.Linear(decoder_width, self.patch_size**2 * 3)

        for module in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            module.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, images: Tensor, mask_ratio: float, noise: Tensor | None = None) -> MaeOutput:
        """Mask, encode, decode, and compare with the removed pixels.

        Args:
            images: (N, 3, H, W), normalised.
            mask_ratio: Share of patches to remove; int(L * (1 - mask_ratio)) are kept.
            noise: (N, L); the patches with the lowest values are kept. Uniform when not given.
        """
        target = self.patchify(images)
        keep = int(target.shape[1] * (1 - mask_ratio))
        if noise is None:
            noise = torch.rand(target.shape[:2], device=images.device)
        ids_keep, ids_restore = _keep_lowest(noise, keep)
        mask = (ids_restore >= keep).to(target.dtype)
        latent = self._encode(target, ids_keep)
        prediction = self._decode(latent, ids_restore)
        loss = self._loss(prediction, target, mask)
        return MaeOutput(loss, prediction, mask, latent, ids_restore)

    def patchify(self, images: Tensor) -> Tensor:
        """Cut images (N, 3, H, W) into patches (N, L, P * P * 3), pixels as (row, col, channel)."""
        rows, columns = self.encoder.patch_embed.grid_size
        size = self.patch_size
        cut = images.reshape(len(images), 3, rows, size, columns, size)
        return cut.permute(0, 2, 4, 3, 5, 1).reshape(-1, rows * columns, size * size * 3)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Put patches (N, L, P * P * 3) together again: images (N, 3, H, W)."""
        rows, columns = self.encoder.patch_embed.grid_size
        size = self.patch_size
        grid = patches.reshape(-1, rows, columns, size, size, 3)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, 3, rows * size, columns * size)

    def reconstruct(self, images: Tensor, output: MaeOutput) -> tuple[Tensor, Tensor]:
        """Images for a figure, each (N, 3, H, W) in the scale of `images`.

        Returns:
            What the encoder saw (removed patches are NaN, which plots as blank), and the kept
            patches with the predicted ones pasted between them.
        """
        pixels = self.patchify(images)
        prediction = output.prediction.detach()
        if self.norm_pix_loss:
            # The prediction is standardised: undo it with the true patch's mean and spread.
            mean, std = _patch_statistics(pixels)
            prediction = prediction * std + mean
        removed = output.mask[..., None].bool()
        seen = pixels.masked_fill(removed, float("nan"))
        pasted = torch.where(removed, prediction.to(pixels.dtype), pixels)
        return self.unpatchify(seen), self.unpatchify(pasted)

    def _encode(self, patches: Tensor, ids_keep: Tensor) -> Tensor:
        """Embed and encode the kept patches only: cost falls with the mask ratio."""
        encoder = self.encoder
        visible = _gather(patches, ids_keep)
        kernel = encoder.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1)
        tokens = F.linear(visible, kernel, encoder.patch_embed.proj.bias)
        tokens = tokens + _gather(encoder.pos_embed[:, 1:].expand(len(patches), -1, -1), ids_keep)
        cls = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(patches), -1, -1)
        return encoder.norm(encoder.blocks(torch.cat([cls, tokens], dim=1)))

    def _decode(self, latent: Tensor, ids_restore: Tensor) -> Tensor:
        tokens = self.decoder_embed(latent)
        n_removed = ids_restore.shape[1] + 1 - tokens.shape[1]
        blanks = self.mask_token.to(tokens.dtype).expand(len(tokens), n_removed, -1)
        patches = _gather(torch.cat([tokens[:, 1:], blanks], dim=1), ids_restore)
        tokens = torch.cat([tokens[:, :1], patches], dim=1) + self.decoder_pos_embed
        return self.decoder_pred(self.decoder_norm(self.decoder_blocks(tokens)))[:, 1:]

    def _loss(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Squared error of a pixel, averaged over the removed patches."""
        if self.norm_pix_loss:
            mean, std = _patch_statistics(target)
            target = (target - mean) / std
        error = (prediction - target).square().mean(dim=2)
        return (error * mask).sum() / mask.sum()


def _keep_lowest(noise: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Indices (N, K) of the patches with the lowest noise, and each patch's rank by it (N, L)."""
    ids_shuffle = noise.argsort(dim=1)
    return ids_shuffle[:, :keep], ids_shuffle.argsort(dim=1)


def _gather(tokens: Tensor, ids: Tensor) -> Tensor:
    """Pick tokens (N, L, D) by index (N, K): (N, K, D)."""
    return tokens.gather(1, ids[..., None].expand(-1, -1, tokens.shape[2]))


def _patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every patch, (N, L, 1) each."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return mean, (variance + 1e-6).sqrt()
