"""Maps over X-rays and their differences, curves that test them, and maps of embeddings."""

from collections.abc import Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import MaxNLocator

from pacx.figures.style import COLOURS, as_aggregate, grid_of_axes, name_of, patch_edges

#: How much of an X-ray a map over it hides.
_SHEER = 0.55

#: Colour and style of each method that `method_curves` compares, none of them a model's.
_METHOD_LOOKS = (
    (COLOURS["green"], "o-"), (COLOURS["purple"], "s--"), (COLOURS["sky"], "^:"),
)  # fmt: skip


def overlays(
    pictures: np.ndarray,
    maps: dict[str, np.ndarray],
    titles: Sequence[str] = (),
    label: str = "share of attention per patch",
) -> Figure:
    """One row a case: the X-ray, then each map over it; the last column is the difference.

    A map is one opaque square a patch, in one colour scale for all maps of the figure, so that
    stronger looks stronger. With exactly two maps a column "second minus first" follows:
    triangles that point up where it is more and down where it is less, their area the difference.

    Args:
        pictures: (N, H, W) uint8, of any size.
        maps: Name -> (N, H', W') on the patch grid.
        titles: N names of the cases.
        label: What a map's values are.
    """
    names, two = list(maps), len(maps) == 2
    columns = 1 + len(maps) + two
    figure, axes = grid_of_axes(len(pictures), columns, width=2.3 * columns, ratio=1.1)
    figure.set_figheight(figure.get_figheight() + 0.8)  # the colour bar
    low, high = np.quantile(list(maps.values()), [0.005, 0.995])
    side = maps[names[0]].shape[-1]
    if two:
        difference = maps[names[1]] - maps[names[0]]
        limit = np.quantile(np.abs(difference), 0.995) or 1.0
    for row, picture in enumerate(pictures):
        line = axes[row * columns : (row + 1) * columns]
        for axis in line:
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=(0, side, side, 0))
        patch_edges(line[0], side)
        if len(titles):
            line[0].set_title(titles[row], fontsize=9)
        for axis, name in zip(line[1 : 1 + len(names)], names, strict=True):
            scale = _squares(axis, maps[name][row], low, high)
        if two:
            _triangles(line[-1], difference[row], limit)
    for axis, name in zip(axes[1 : 1 + len(names)], names, strict=True):
        axis.set_title(name)
    if two:
        largest = f"largest triangle: {limit:.2g}"
        axes[columns - 1].set_title(f"{names[1]} minus {names[0]}\n{largest}", fontsize=9)
    bar = {"location": "bottom", "shrink": 0.5, "aspect": 40, "ticks": MaxNLocator(4)}
    figure.colorbar(scale, ax=axes, label=label, **bar)
    return figure


def _squares(axis: Axes, values: np.ndarray, low: float, high: float) -> PatchCollection:
    """An opaque square in each patch; the X-ray stays in sight between them."""
    squares = [
        Rectangle((column + 0.22, row + 0.22), 0.56, 0.56)
        for row, column in np.ndindex(values.shape)
    ]
    look = {"cmap": "viridis", "edgecolor": "black", "linewidth": 0.3}
    drawn = PatchCollection(squares, **look)
    drawn.set(array=values.ravel(), clim=(low, high))
    return axis.add_collection(drawn)


def _triangles(axis: Axes, difference: np.ndarray, limit: float) -> None:
    """Area = difference of a patch, up to a limit; white edges show on dark lungs."""
    for place, change in np.ndenumerate(difference):
        half = 0.46 * min(1, np.abs(change) / limit) ** 0.5
        tip = -half if change > 0 else half  # the vertical axis points down
        x, y = place[1] + 0.5, place[0] + 0.5
        corners = [(x - half, y - tip), (x + half, y - tip), (x, y + tip)]
        colour = COLOURS["orange"] if change > 0 else COLOURS["blue"]
        axis.add_patch(Polygon(corners, facecolor=colour, edgecolor="white", linewidth=0.5))


def fades(images: np.ndarray, first: np.ndarray, second: np.ndarray, steps: int) -> np.ndarray:
    """X-rays under maps that go from one to the other, in colour.

    Args:
        images: (N, H, W) uint8.
        first: (N, H, W), where the way starts.
        second: (N, H, W), where it ends.
        steps: Pictures on the way, two ends counted.

    Returns:
        (steps, rows * H, columns * W, 3) uint8.
    """
    top = max(np.quantile(values, 0.995) for values in (first, second))
    columns = min(3, len(images))
    rows = -(-len(images) // columns)
    n, height, width = images.shape
    pictures = np.full((steps, rows * columns, height, width, 3), 255, np.uint8)
    for picture, share in zip(pictures, np.linspace(0, 1, steps), strict=True):
        heat = plt.colormaps["inferno"](((1 - share) * first + share * second) / top)[..., :3]
        picture[:n] = 255 * _SHEER * heat + (1 - _SHEER) * images[..., None]
    grid = pictures.reshape(steps, rows, columns, height, width, 3).swapaxes(2, 3)
    return grid.reshape(steps, rows * height, columns * width, 3)


def mean_difference(
    difference: np.ndarray, outlines: dict[str, np.ndarray], label: str = "difference"
) -> Figure:
    """The mean of many difference maps with the mean position of organs.

    Args:
        difference: (H', W') on the patch grid, already averaged over cases.
        outlines: Name -> (H, W) share of cases whose organ covers the pixel; its 0.5 line is drawn.
        label: Of the colour bar.
    """
    figure, (axis,) = grid_of_axes(1, 1, width=4.4)
    limit = np.abs(difference).max() or 1.0
    height, width = next(iter(outlines.values())).shape
    look = {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
    heat = axis.imshow(difference, extent=(-0.5, width - 0.5, height - 0.5, -0.5), **look)
    for (row, column), value in np.ndenumerate(difference):  # a sign is readable in grey, too
        x, y = (column + 0.5) * width / len(difference), (row + 0.5) * height / len(difference)
        sign = "+" if value > 0 else "\N{MINUS SIGN}"
        colour = "white" if abs(value) > limit / 2 else "black"
        axis.text(x - 0.5, y - 0.5, sign, color=colour, ha="center", va="center", fontsize=8)
    for (name, share), style in zip(outlines.items(), cycle(("-", "--", ":"))):
        axis.contour(share, levels=[0.5], colors="black", linestyles=style, linewidths=1.4)
        axis.plot([], [], style, color="black", label=name)
    axis.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=3)
    figure.colorbar(heat, ax=axis, shrink=0.7, label=label)
    return figure


def method_curves(table: pd.DataFrame, *, x: str, x_label: str, y_label: str) -> Figure:
    """One line with its 95 % band a method.

    Args:
        table: Tidy, of one model and metric, with `method`, `value`, `low`, `high` and the column
            `x`.
        x: Column of the horizontal axis; text is taken as steps in the order of the table.
        x_label: What it is.
        y_label: What the values are.
    """
    figure, axis = plt.subplots(figsize=(5.3, 3.6))
    methods = table.groupby("method", sort=False)
    for (method, line), (colour, style) in zip(methods, _METHOD_LOOKS, strict=True):
        axis.plot(line[x], line["value"], style, markersize=3.5, color=colour, label=method)
        band = line[x], line["low"], line["high"]
        axis.fill_between(*band, color=colour, alpha=0.18, linewidth=0)
    axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axis.tick_params(axis="x", rotation=0 if pd.api.types.is_numeric_dtype(table[x]) else 30)
    axis.set(xlabel=x_label, ylabel=y_label)
    figure.legend(loc="outside upper center", ncols=len(_METHOD_LOOKS))
    return as_aggregate(figure)


def embedding_maps(points: dict[str, np.ndarray], values: np.ndarray, label: str) -> Figure:
    """Two-dimensional maps of embeddings side by side, coloured by the same quantity.

    The dots of a model have the gid `dots-<model>`.

    Args:
        points: Model -> (N, 2).
        values: (N,), such as a patient's state; the colours span its central 96 %.
        label: Of the colour bar, with the unit.
    """
    figure, axes = grid_of_axes(1, len(points), width=4.2 * len(points))
    low, high = np.quantile(values, [0.02, 0.98])
    for axis, (model, places) in zip(axes, points.items(), strict=True):
        dots = axis.scatter(
            *places.T, c=values, s=9, cmap="viridis", vmin=low, vmax=high, linewidths=0,
            gid=f"dots-{model}",
        )  # fmt: skip
        axis.set_title(name_of(model))
        axis.set_aspect("equal", "datalim")
    figure.colorbar(dots, ax=axes, location="bottom", shrink=0.5, aspect=40, label=label)
    return figure
