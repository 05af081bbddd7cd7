"""X-rays: montages with outlines of masks, what a masked autoencoder sees and draws, positions."""

from collections.abc import Sequence
from itertools import product

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from pacx.data.images import IMAGENET_MEAN, IMAGENET_STD
from pacx.figures.style import COLOURS, as_aggregate, grid_of_axes, patch_edges

#: Mask -> colour of its outline, bright enough for dark lungs and bright bones.
OUTLINES = {
    "lungs": "#3fc7e8", "heart": "#ff5d5d", "bones": "#7ee08a", "devices": "#ffe14d",
    "body": "#9d8cff",
}  # fmt: skip

_REMOVED = "#c9d8ec"


def montage(
    images: np.ndarray,
    titles: Sequence[str] = (),
    columns: int = 6,
    masks: dict[str, np.ndarray] | None = None,
) -> Figure:
    """X-rays side by side, with the outlines of exact masks where given.

    Args:
        images: (N, H, W) uint8.
        titles: N short titles.
        columns: Images a row.
        masks: Name (a key of `OUTLINES`) -> (N, H, W) bool, 1 = inside.
    """
    rows = -(-len(images) // columns)
    figure, axes = grid_of_axes(
        rows, columns, width=1.45 * columns, ratio=1.15 if len(titles) else 1
    )
    for i, image in enumerate(images):
        axes[i].imshow(image, cmap="gray", vmin=0, vmax=255)
        for name, mask in (masks or {}).items():
            if mask[i].any():
                axes[i].contour(mask[i], levels=[0.5], colors=[OUTLINES[name]], linewidths=1.0)
        if len(titles):
            axes[i].set_title(titles[i], fontsize=8)
    if masks:
        handles = [plt.Line2D([], [], color=OUTLINES[name], label=name) for name in masks]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(masks))
    return figure


def reconstructions(
    columns: dict[str, np.ndarray | torch.Tensor], patches: int | None = None
) -> Figure:
    """One row an X-ray, one column a stage of masking and reconstruction.

    Args:
        columns: Title -> (N, H, W) uint8, or (N, 3, H, W) in the encoder's scale, where NaN
            (removed) is drawn in a flat colour; columns may differ in size.
        patches: A side; where given, their edges are drawn over every picture.
    """
    grey = {name: _grey(values) for name, values in columns.items()}
    n = len(next(iter(grey.values())))
    figure, axes = grid_of_axes(n, len(grey), width=1.75 * len(grey), ratio=1.04)
    blank = mpl.colormaps["gray"].with_extremes(bad=_REMOVED)
    for axis, (row, name) in zip(axes, product(range(n), grey), strict=True):
        side = patches or 1
        extent = (0, side, side, 0)
        axis.imshow(grey[name][row], cmap=blank, vmin=0, vmax=255, extent=extent)
        if patches:
            patch_edges(axis, patches)
        if row == 0:
            axis.set_title(name, fontsize=9)
    return figure


def strips(columns: dict[str, np.ndarray | torch.Tensor]) -> np.ndarray:
    """The rows of `reconstructions` as pictures without titles, for a slider.

    Args:
        columns: As `reconstructions` takes them.

    Returns:
        (N, H, W * columns and gaps, 3) uint8.
    """
    panels = []
    for values in columns.values():
        grey = _grey(values)
        colour = np.repeat(np.nan_to_num(grey)[..., None], 3, axis=-1).clip(0, 255)
        colour[np.isnan(grey)] = 255 * np.array(mpl.colors.to_rgb(_REMOVED))
        gap = np.full((*grey.shape[:2], max(1, grey.shape[2] // 32), 3), 128)
        panels += [colour, gap]
    return np.concatenate(panels[:-1], axis=2).astype(np.uint8)


def patch_grid(image: np.ndarray, picture: np.ndarray, patch_size: int, highlighted: int) -> Figure:
    """An X-ray cut into patches, and one patch as the row of numbers that the encoder reads.

    Args:
        image: (H, H) uint8, what the encoder reads.
        picture: The same X-ray at a size for the eye, under the grid.
        patch_size: Pixels a side.
        highlighted: Number of the patch, row by row.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.0, 3.6), gridspec_kw={"width_ratios": [1, 1.25]}
    )
    side = len(image) // patch_size
    row, column = divmod(highlighted, side)
    left.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=(0, side, side, 0))
    patch_edges(left, side)
    frame = {"fill": False, "edgecolor": "#ff5d5d", "linewidth": 2, "zorder": 3}
    left.add_patch(plt.Rectangle((column, row), 1, 1, **frame))
    left.set(xlabel="column of patches", ylabel="row of patches")
    patch = image[row * patch_size :, column * patch_size :][:patch_size, :patch_size]
    right.plot(patch.ravel(), drawstyle="steps-mid", color=COLOURS["vermilion"])
    for edge in range(0, patch_size**2 + 1, patch_size):
        right.axvline(edge - 0.5, color="0.88", linewidth=0.7, zorder=0)
    right.set(xlabel="pixel of the patch, row after row", ylabel="grey value (0 to 255)")
    return figure


def position_similarity(positions: np.ndarray, grid: int, shown: Sequence[int]) -> Figure:
    """Cosine similarity of a few patches' position embeddings to those of all patches.

    Args:
        positions: (L, D), patches row by row, without the CLS token.
        grid: Patches a side.
        shown: Numbers of the patches to compare with.
    """
    unit = positions / np.linalg.norm(positions, axis=1, keepdims=True)
    figure, axes = grid_of_axes(1, len(shown), width=2.0 * len(shown), ratio=1.1)
    lowest = (unit @ unit.T).min()
    for axis, number in zip(axes, shown, strict=True):
        heat = axis.imshow(
            (unit @ unit[number]).reshape(grid, grid), cmap="viridis", vmin=lowest, vmax=1
        )
        row, column = divmod(number, grid)
        axis.plot(column, row, "x", color="white", markersize=7, markeredgewidth=2)
        axis.set_title(f"patch in row {row + 1}, column {column + 1}", fontsize=9)
    figure.colorbar(heat, ax=axes, shrink=0.8, label="cosine similarity")
    return as_aggregate(figure)


def _grey(images: np.ndarray | torch.Tensor) -> np.ndarray:
    """Encoder's scale (N, 3, H, W) back to grey values in [0, 255]; NaN stays NaN."""
    if images.ndim == 3:
        return np.asarray(images)
    mean, std = (np.array(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return 255 * (images.detach().numpy() * std + mean).mean(axis=1)
