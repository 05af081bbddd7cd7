"""Maps over X-rays and their differences, curves that test them, and maps of embeddings."""

from collections.abc import Sequence
from itertools import cycle, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pacx.figures.style import COLOURS, as_aggregate, grid_of_axes, name_of

#: How much of an X-ray a map over it hides.
_SHEER = 0.55

#: Colour and style of each method that `method_curves` compares: no model's, as models are panels.
_METHOD_LOOKS = (
    (COLOURS["green"], "o-"), (COLOURS["purple"], "s--"), (COLOURS["sky"], "^:"),
    (COLOURS["brown"], "d-."),
)  # fmt: skip


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
    two = len(maps) == 2
    columns = 1 + len(maps) + two
    figure, axes = grid_of_axes(len(images), columns, width=1.9 * columns, ratio=1.1)
    figure.set_figheight(figure.get_figheight() + 0.7 * (1 + two))  # the colour bars
    top = max(np.quantile(values, 0.995) for values in maps.values())
    names = list(maps)
    if two:
        difference = maps[names[1]] - maps[names[0]]
        limit = np.quantile(np.abs(difference), 0.995) or 1.0
    for row, image in enumerate(images):
        line = axes[row * columns : (row + 1) * columns]
        line[0].imshow(image, cmap="gray", vmin=0, vmax=255)
        if len(titles):
            line[0].set_title(titles[row], fontsize=9)
        for axis, name in zip(line[1 : 1 + len(names)], names, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            heat = axis.imshow(maps[name][row], cmap="inferno", vmin=0, vmax=top, alpha=_SHEER)
            if row == 0:
                axis.set_title(name)
        if two:
            line[-1].imshow(image, cmap="gray", vmin=0, vmax=255)
            change = line[-1].imshow(
                difference[row], cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.6
            )
            if row == 0:
                line[-1].set_title(f"{names[1]} minus {names[0]}")
    scales = {label: heat} | ({f"difference: {label}": change} if two else {})
    for name, scale in scales.items():
        ticks = MaxNLocator(4)
        figure.colorbar(
            scale, ax=axes, location="bottom", shrink=0.5, aspect=40, ticks=ticks, label=name
        )
    return figure


def fades(images: np.ndarray, first: np.ndarray, second: np.ndarray, steps: int) -> np.ndarray:
    """X-rays under maps that go from one to the other, in the colours of `overlays`.

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
        difference: (H, W), already averaged over cases.
        outlines: Name -> (H, W) share of cases whose organ covers the pixel; its 0.5 line is drawn.
        label: Of the colour bar.
    """
    figure, (axis,) = grid_of_axes(1, 1, width=4.4)
    limit = np.abs(difference).max() or 1.0
    heat = axis.imshow(difference, cmap="RdBu_r", vmin=-limit, vmax=limit)
    for (name, share), style in zip(outlines.items(), cycle(("-", "--", ":"))):
        axis.contour(share, levels=[0.5], colors="black", linestyles=style, linewidths=1.4)
        axis.plot([], [], style, color="black", label=name)
    axis.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=3)
    figure.colorbar(heat, ax=axis, shrink=0.7, label=label)
    return figure


def method_curves(table: pd.DataFrame, *, x: str, x_label: str, y_label: str) -> Figure:
    """One row a metric, one column a model, one line with its 95 % band a method.

    Args:
        table: Tidy, with `model`, `metric`, `method`, `value`, `low`, `high` and the column `x`.
        x: Column of the horizontal axis; text is taken as steps in the order of the table.
        x_label: What it is.
        y_label: What the values are.
    """
    metrics, models = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["model"]))
    figure, axes = plt.subplots(
        len(metrics), len(models), squeeze=False, sharex=True, sharey="row",
        figsize=(2.2 + 3.1 * len(models), 0.9 + 2.7 * len(metrics)),
    )  # fmt: skip
    methods = list(dict.fromkeys(table["method"]))
    look_of_method = dict(zip(methods, _METHOD_LOOKS[: len(methods)], strict=True))
    for axis, (metric, model) in zip(axes.flat, product(metrics, models), strict=True):
        panel = table[(table["metric"] == metric) & (table["model"] == model)]
        for method, line in panel.groupby("method", sort=False):
            colour, style = look_of_method[method]
            axis.plot(line[x], line["value"], style, markersize=3.5, color=colour, label=method)
            axis.fill_between(
                line[x], line["low"], line["high"], color=colour, alpha=0.18, linewidth=0
            )
        axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        axis.set_title(f"{metric}, {name_of(model)}")
        axis.tick_params(axis="x", rotation=0 if pd.api.types.is_numeric_dtype(line[x]) else 30)
    for axis in axes[:, 0]:
        axis.set_ylabel(y_label)
    figure.supxlabel(x_label, fontsize=10)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
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
