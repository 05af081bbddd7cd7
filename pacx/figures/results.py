"""Figures of results: differences with intervals, scores with intervals, label efficiency.

All take a tidy table as `pacx.evaluation.transfer.compare_probes` returns it: one row a number,
columns `model`, `value`, `low`, `high`, and `difference_value`, `difference_low`,
`difference_high` where a difference was measured.
"""

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from pacx.figures.style import (
    as_aggregate,
    colour_of,
    draw_estimates,
    key,
    label_of,
    marker_of,
    name_of,
)

_ROW = 0.34  # inches of a row of dots
_WIDTH, _PANELS = 7.0, 2  # inches and panels beside each other: more cannot be read on a phone


def forest(
    table: pd.DataFrame,
    *,
    rows: str = "task",
    x_label: str = "difference in AUROC, PaCX-MAE minus MAE",
) -> Figure:
    """Forest plot: paired differences with 95 % intervals around a line at zero.

    Args:
        table: Tidy table with `difference_value`, `difference_low`, `difference_high` and `model`.
        rows: Column that names the rows; each row shows every model of the table.
        x_label: What the difference is, with its direction.
    """
    table = table.dropna(subset=["difference_value"])
    return _dots(table, {x_label: table}, rows, 2, (0, "-"), prefix="difference_")


def forest_panels(
    table: pd.DataFrame,
    *,
    panels: str,
    filled: str,
    rows: str = "model",
    x_label: str = "difference in AUROC, model minus MAE",
) -> Figure:
    """Forest plots side by side, one panel an outcome; each row has a filled and a hollow dot.

    Args:
        table: Tidy table with `model` and the columns `difference_*`.
        panels: Column that names the panels.
        filled: Column with two values, the first drawn filled, the second hollow below it.
        rows: Column that names the rows.
        x_label: What the difference is, with its direction.
    """
    names, outcomes = list(dict.fromkeys(table[rows])), list(dict.fromkeys(table[panels]))
    kinds = list(dict.fromkeys(table[filled]))
    height = 0.5 + _ROW * len(names)
    beside = 3 if len(outcomes) == 3 else _PANELS  # short titles: three fit, and two leave a hole
    figure, axes = _panels(len(outcomes), height, 1.2, beside, sharex=True, sharey=True)
    for axis, outcome in zip(axes, outcomes, strict=True):
        axis.axvline(0, color="0.6", linewidth=1)
        for row in table[table[panels] == outcome].to_dict("records"):
            second = kinds.index(row[filled])
            draw_estimates(
                axis, row, names.index(row[rows]) + 0.36 * second - 0.18, colour_of(row["model"]),
                "o", prefix="difference_", hollow=bool(second),
            )  # fmt: skip
        _rows_axis(axis, [name_of(name) for name in names] if rows == "model" else names)
        axis.set_title(_words(outcome))
        axis.tick_params(labelbottom=True)
    figure.supxlabel(x_label, fontsize=10)
    handles = [key(kind, hollow=bool(k)) for k, kind in enumerate(kinds)]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(kinds))
    return figure


def dots(
    table: pd.DataFrame,
    *,
    rows: str = "task",
    panels: str | None = None,
    x_label: str = "AUROC",
    chance: float | None = None,
    one_scale: bool = False,
    colours: dict[str, str] | None = None,
) -> Figure:
    """Scores with 95 % intervals: one line of dots a task or data set, one colour a model.

    Args:
        table: Tidy table with `value`, `low`, `high` and `model`.
        rows: Column that names the rows.
        panels: Column that names panels side by side, such as the metric; one panel when None.
        x_label: What the score is; with `panels` their names say it.
        chance: Where guessing lies; a dashed line.
        one_scale: Whether all panels show the same range, where they hold the same score.
        colours: Name -> colour, where the column `model` holds no models but something else.
    """
    by_panel = dict(list(table.groupby(panels, sort=False))) if panels else {x_label: table}
    line = None if chance is None else (chance, "--")
    return _dots(table, by_panel, rows, 2.5, line, one_scale=one_scale, colours=colours)


def label_efficiency(
    table: pd.DataFrame,
    *,
    panels: str,
    published: pd.DataFrame | None = None,
) -> Figure:
    """AUROC against the share of training labels, with 95 % bands, one panel a data set.

    Args:
        table: Tidy table with `fraction`, `value`, `low`, `high` and `model`.
        panels: Column that names the panels.
        published: The paper's values (columns `panels`, `fraction`, `model`, `value`), drawn as
            hollow diamonds in the panel of the same name.
    """
    names, models = list(dict.fromkeys(table[panels])), list(dict.fromkeys(table["model"]))
    figure, axes = _panels(len(names), 2.6, 0.8)
    for axis, name in zip(axes, names, strict=True):
        for model in models:
            of_model = table[(table[panels] == name) & (table["model"] == model)]
            fractions, values, low, high = (
                of_model.sort_values("fraction")[column]
                for column in ("fraction", "value", "low", "high")
            )
            colour = colour_of(model)
            axis.plot(fractions, values, color=colour, marker=marker_of(model), markersize=4)
            axis.fill_between(fractions, low, high, color=colour, alpha=0.18, linewidth=0)
            if published is not None:
                paper = published[(published[panels] == name) & (published["model"] == model)]
                axis.plot(
                    paper["fraction"], paper["value"], "D", markerfacecolor="none",
                    markeredgecolor=colour,
                )  # fmt: skip
        axis.set(title=_words(name), xlabel="share of training labels", ylabel="AUROC")
        axis.set_xscale("log")
        shares = sorted({*table["fraction"], *([] if published is None else published["fraction"])})
        axis.xaxis.set_major_locator(FixedLocator(shares))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _legend(axes[-1], models, paper=published is not None)
    return figure


def _panels(
    n: int, height: float, around: float, beside: int = _PANELS, **shared: bool
) -> tuple[Figure, list[Axes]]:
    """A figure of n panels, each `height` inches, at most `beside` in a row."""
    columns = min(beside, n)
    lines = -(-n // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(_WIDTH, around + lines * height), squeeze=False, **shared
    )
    for axis in axes.flat[n:]:
        axis.set_visible(False)
    return as_aggregate(figure), list(axes.flat[:n])


def _dots(
    table: pd.DataFrame,
    panels: dict[str, pd.DataFrame],
    rows: str,
    models_a_row: float,
    line: tuple[float, str] | None,
    *,
    prefix: str = "",
    one_scale: bool = False,
    colours: dict[str, str] | None = None,
) -> Figure:
    """One panel a part of the table, one line of dots a value of `rows`, one colour a model.

    A row is as high as `models_a_row` models need; `line` is a vertical line's place and style.
    """
    names, models = list(dict.fromkeys(table[rows])), list(dict.fromkeys(table["model"]))
    height = 0.5 + _ROW * len(names) * max(1, len(models) / models_a_row)
    figure, axes = _panels(len(panels), height, 0.6, sharex=one_scale, sharey=True)
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        if line is not None:
            axis.axvline(line[0], color="0.6", linewidth=1, linestyle=line[1])
        for k, model in enumerate(models):
            estimates = panel[panel["model"] == model]
            heights = estimates[rows].map(names.index) + 0.7 * ((k + 0.5) / len(models) - 0.5)
            draw_estimates(axis, estimates, heights, *_look(model, colours), prefix=prefix)
        axis.set_xlabel(title)
        axis.tick_params(labelbottom=True)
        _rows_axis(axis, names)
    _legend(axes[0], models, colours)
    return figure


def _rows_axis(axis: Axes, names: list) -> None:
    axis.set_yticks(range(len(names)), [_words(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    for edge in range(1, len(names)):
        axis.axhline(edge - 0.5, color="0.92", linewidth=0.8, zorder=0)


def _legend(
    axis: Axes, models: list[str], colours: dict[str, str] | None = None, *, paper: bool = False
) -> None:
    """A legend below the figure, in the order of the table; `paper` explains hollow diamonds."""
    if len(models) > 1:
        handles = []
        for model in models:
            colour, marker = _look(model, colours)
            handles.append(key(model if colours else name_of(model), marker, colour))
        if paper:
            handles.append(key("the paper's, on real patients", "D", hollow=True))
        axis.figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))


def _look(model: str, colours: dict[str, str] | None) -> tuple[str, str]:
    """Colour and marker of a model, or of what `colours` names."""
    if colours is None:
        return colour_of(model), marker_of(model)
    return colours[model], "oDs^vX"[list(colours).index(model)]


def _words(name: object) -> str:
    """`kidney_disease` reads "kidney disease"; long names wrap."""
    return textwrap.fill(label_of(str(name)), 34)
