"""Attention and attribution maps over X-rays, and their differences."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pacx.figures.style import grid_of_axes


def overlays(
    images: np.ndarray,
    maps: dict[str, np.ndarray],
    titles: Sequence[str] = (),
    label: str = "share of attention per patch",
) -> Figure:
    """One row a case: the X-ray, then each map over it; the last column is the difference.

    All maps of one figure share one colour scale, so that stronger looks stronger. With exactly
    two maps a column "second minus first" follows, red = more, blue = less.

    Args:
        images: (N, H, W) uint8.
        maps: Name -> (N, H, W), each on the images' pixels, such as `attention.upsample` of a
            rollout.
        titles: N names of the cases.
        label: What a map's values are.
    """
    both = len(maps) == 2
    columns = 1 + len(maps) + both
    figure, axes = grid_of_axes(len(images), columns, width=1.9 * columns, ratio=1.1)
    figure.set_figheight(figure.get_figheight() + 0.7 * (1 + both))  # the colour bars
    top = max(np.quantile(values, 0.995) for values in maps.values())
    names = list(maps)
    for row, image in enumerate(images):
        line = axes[row * columns : (row + 1) * columns]
        line[0].imshow(image, cmap="gray", vmin=0, vmax=255)
        if len(titles):
            line[0].set_title(titles[row], fontsize=9)
        for axis, name in zip(line[1:], names, strict=False):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            heat = axis.imshow(maps[name][row], cmap="inferno", vmin=0, vmax=top, alpha=0.55)
            if row == 0:
                axis.set_title(name)
        if both:
            change = _difference(line[-1], image, maps[names[1]][row] - maps[names[0]][row], maps)
            if row == 0:
                line[-1].set_title(f"{names[1]} − {names[0]}")
    scales = {label: heat} | ({f"difference: {label}": change} if both else {})
    for name, scale in scales.items():
        ticks = MaxNLocator(4)
        figure.colorbar(
            scale, ax=axes, location="bottom", shrink=0.5, aspect=40, ticks=ticks, label=name
        )
    return figure


def mean_difference(
    difference: np.ndarray, outlines: dict[str, np.ndarray], label: str = "difference"
) -> Figure:
    """The mean of many difference maps with the mean position of organs.

    Args:
        difference: (H, W), already averaged over cases.
        outlines: Name -> (H, W) share of cases whose organ covers the pixel; its 0.5 line is drawn.
        label: Of the colour bar.
    """
    figure, (axis,) = grid_of_axes(1, 1, width=4.4)
    limit = np.abs(difference).max() or 1.0
    heat = axis.imshow(difference, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for (name, share), colour in zip(
        outlines.items(), ("black", "#007f5f", "#7a5c1e"), strict=False
    ):
        axis.contour(share, levels=[0.5], colors=[colour], linewidths=1.4)
        axis.plot([], [], color=colour, label=name)
    axis.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=3)
    figure.colorbar(heat, ax=axis, shrink=0.7, label=label)
    return figure


def _difference(axis, image: np.ndarray, change: np.ndarray, maps: dict[str, np.ndarray]):
    first, second = maps.values()
    limit = np.quantile(np.abs(second - first), 0.995) or 1.0
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    return axis.imshow(change, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.6)
