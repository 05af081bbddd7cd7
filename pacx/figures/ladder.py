"""Figures of chapter 06: who gets how far, and what a probe reads after how many epochs."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from pacx.evaluation.baselines import POOLINGS
from pacx.figures.results import _panels, _rows_axis, _words
from pacx.figures.style import as_aggregate, colour_of, draw_estimates, key, marker_of, name_of

#: From the bottom of the ladder to its top; other models stand between the two.
_LOWER = (
    "random", "imagenet", "pixels", "mae", "mae-other-ratio", "mae-continued", "pixels-teachers",
    "mae-teachers", "mae-cca", "pacx-shuffled", "pacx-untrained", "pacx-untrained-raw", "pacx-raw",
    "pacx",
)  # fmt: skip
_CEILINGS = ("supervised", "teachers", "states")
#: Marker and height within the row; what is read in one way only stands in the middle.
_READINGS = {"cls": ("o", -0.17), "mean": ("s", 0.17), "one": ("D", 0.0)}


def ladder(table: pd.DataFrame) -> Figure:
    """Scores from chance to the true states: one row a model, one panel a group of tasks.

    Filled = all labels, hollow = few. An encoder has a dot for its CLS token and one for the mean
    of its patches, a baseline one for its best reading. Only the converged probe is drawn, and of
    the teachers both together.

    Args:
        table: From `pacx.evaluation.ladder.ladder`: `group`, `model`, `pooling`, `fraction`,
            `value`, `low`, `high` and, where several probes were fitted, `probe`. Rows of more
            models may follow. With a column `cohort` every cohort is a dot, without an interval,
            and a tick is their mean.
    """
    if "probe" in table:
        table = table[table["probe"] != "paper"]
    table = table[(table["model"] != "teachers") | (table["pooling"] == "both")]
    # What validation labels chose may differ between cohorts: one reading all the same.
    table = table.assign(reading=table["pooling"].where(table["pooling"].isin(POOLINGS), "one"))
    models, groups = _in_order(table["model"]), list(dict.fromkeys(table["group"]))
    few = table["fraction"].min()
    figure, axes = _panels(len(groups), 0.5 + 0.4 * len(models), 0.9, sharey=True)
    for axis, group in zip(axes, groups, strict=True):
        axis.axvline(0.5, color="0.6", linewidth=1, linestyle="--")
        of_group = table[table["group"] == group]
        for (model, reading, fraction), rows in of_group.groupby(["model", "reading", "fraction"]):
            marker, shift = _READINGS[reading]
            place, hollow = models.index(model) + shift, fraction < 1
            if "cohort" in table:
                _cohorts(axis, place, rows["value"], colour_of(model), marker, hollow)
            else:
                draw_estimates(axis, rows.iloc[0], place, colour_of(model), marker, hollow=hollow)
        _rows_axis(axis, [name_of(model) for model in models])
        axis.set(title=_words(group), xlabel="AUROC")
    handles = [
        key("CLS token", "o"), key("mean of patches", "s"), key("one reading", "D"),
        key("filled: all labels"), key(f"hollow: {few:.0%} of labels", hollow=True),
        Line2D([], [], color="0.6", linewidth=1, linestyle="--", label="chance"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def probe_length(table: pd.DataFrame, paper_epochs: int) -> Figure:
    """AUROC against the epochs of the paper's probe, beside where the probe has converged.

    Args:
        table: `model`, `features` (of the panels, such as raw and standardised), `probe`, `epochs`
            and `value`. Rows with the probe `converged` have no epochs: they are the horizontal
            lines of every panel.
        paper_epochs: The paper's setting, a vertical line.
    """
    trained = table[table["probe"] == "paper"]
    converged = table[table["probe"] == "converged"].set_index("model")["value"]
    figure, axes = plt.subplots(
        1, trained["features"].nunique(), figsize=(7.0, 3.6), sharey=True, squeeze=False
    )
    for axis, (features, panel) in zip(
        axes[0], trained.groupby("features", sort=False), strict=True
    ):
        for model, value in converged.items():
            of_model = panel[panel["model"] == model]
            look = {"color": colour_of(model), "marker": marker_of(model), "markersize": 5}
            axis.plot(of_model["epochs"], of_model["value"], label=name_of(model), **look)
            axis.axhline(value, color=colour_of(model), linewidth=1, linestyle="--")
        axis.axvline(paper_epochs, color="0.4", linewidth=1, linestyle=":")
        axis.set(title=f"{features} features", xlabel="epochs of AdamW", xscale="log")
        axis.xaxis.set_major_locator(FixedLocator(sorted(trained["epochs"].unique())))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(ScalarFormatter())
    axes[0, 0].set_ylabel("AUROC, CLS token")
    handles = [
        *axes[0, 0].get_legend_handles_labels()[0],
        Line2D([], [], color="0.3", linewidth=1, linestyle="--", label="converged"),
        Line2D([], [], color="0.4", linewidth=1, linestyle=":", label="the paper's epochs"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return as_aggregate(figure)


def _in_order(models: pd.Series) -> list[str]:
    present = list(dict.fromkeys(models))
    others = [model for model in present if model not in (*_LOWER, *_CEILINGS)]
    return [model for model in (*_LOWER, *others, *_CEILINGS) if model in present]


def _cohorts(
    axis: Axes, place: float, values: pd.Series, colour: str, marker: str, hollow: bool
) -> None:
    """One small dot a cohort, and a tick at their mean."""
    face = "white" if hollow else colour
    axis.plot(
        values, [place] * len(values), marker, markersize=4, markeredgecolor=colour,
        markerfacecolor=face, alpha=0.8,
    )  # fmt: skip
    axis.plot(values.mean(), place, "|", color=colour, markersize=10, markeredgewidth=1.5)
