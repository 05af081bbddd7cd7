"""Figures of controls and forgetting: repeated claims, what teachers know, the price of keeping."""

from collections.abc import Mapping
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pacx.evaluation.evidence import KEYS, load_evidence, pool
from pacx.figures.style import as_aggregate, colour_of, draw_estimates, key, marker_of, name_of
from pacx.figures.tables import POOLING_NAMES

_WIDTH = 5.0  # inches: letters of 10 points are still 9 pixels high on a phone of 360
_LINES = ("-", "--", ":", "-.")  # for those who see no colours


def cohorts_beside(ours: pd.DataFrame, name: str) -> Figure | None:
    """This run's paired differences, those of each fresh cohort, and the cohorts' mean.

    Args:
        ours: Result table of this run with paired differences.
        name: The evidence's table of the same shape.

    Returns:
        None where no evidence has been gathered, or none of these rows.
    """
    if (evidence := load_evidence(name)) is None:
        return None
    ours = ours[ours["model"] != ours["reference"]].dropna(subset=["difference_value"])
    keys = [key for key in KEYS if key in ours]
    varying = [key for key in keys if key != "reference" and ours[key].nunique() > 1]

    def with_name(table: pd.DataFrame) -> pd.DataFrame:
        needless = {"macro": "", "segmentation": ""}
        words = table[varying].replace({"pooling": POOLING_NAMES, "task": needless})
        if "model" in words:
            words["model"] = words["model"].map(name_of)
        if "fraction" in words:
            words["fraction"] = words["fraction"].map("{:.0%} of labels".format, na_action="ignore")
        names = words.astype(object).where(words.notna(), "").astype(str).agg(list, axis=1)
        return table.assign(row=[", ".join(filter(None, parts)) for parts in names])

    evidence = ours[keys].merge(evidence, on=keys)
    if evidence.empty:
        return None
    return repeated(
        with_name(evidence), with_name(pool(evidence)), "difference_value", with_name(ours)
    )


def repeated(
    table: pd.DataFrame, pooled: pd.DataFrame, value: str, ours: pd.DataFrame | None = None
) -> Figure:
    """Differences in each cohort, and their mean with its interval, below the name of each row.

    Args:
        table: The evidence's, with `row` and one row a cohort.
        pooled: `row`, `value`, `low`, `high`; of claims also `kind`, `margin` and `holds`, and the
            mean of a claim that does not hold is hollow.
        value: Column of `table` to show.
        ours: This run's, with `row`, to stand beside them.
    """
    pooled = pooled.assign(row=[fill(text, 60) for text in pooled["row"]], name=pooled["row"])
    lines = pooled["row"].str.count("\n") + 1
    heights = 0.48 + 0.17 * lines  # inches
    figure, axis = plt.subplots(figsize=(_WIDTH, 0.6 + heights.sum()))
    for row, bottom, height in zip(pooled.itertuples(), heights.cumsum(), heights, strict=True):
        cohorts, mean, ends = bottom - 0.30, bottom - 0.15, (bottom - 0.39, bottom - 0.06)
        axis.vlines(0, *ends, color="0.6", linewidth=1)
        if getattr(row, "kind", "") == "within":
            axis.fill_betweenx(ends, -row.margin, row.margin, color="0.9", zorder=0)
        elif hasattr(row, "kind"):
            axis.vlines(row.margin, *ends, color="0.3", linestyle=":")
        axis.text(0, bottom - height + 0.06, row.row, transform=axis.get_yaxis_transform(),
                  va="top")  # fmt: skip
        values = table.loc[table["row"] == row.name, value]
        axis.plot(values, np.full(len(values), cohorts), ".", color="0.45", markersize=6)
        if ours is not None:
            this = ours.loc[ours["row"] == row.name, value]
            axis.plot(this, np.full(len(this), cohorts), "v", color="black", markerfacecolor="none")
        holds = getattr(row, "holds", True)
        draw_estimates(
            axis, row._asdict(), mean, colour_of("pacx" if holds else "random"), "D",
            hollow=not holds,
        )  # fmt: skip
    axis.set(ylim=(heights.sum(), 0), yticks=[], xlabel="difference")
    axis.spines["left"].set_visible(False)
    if ours is not None:
        handles = [
            key("a cohort", ".", "0.45"), key("this run", "v", "black", hollow=True),
            key("mean of the cohorts", "D", colour_of("pacx")),
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return as_aggregate(figure)


def knowledge(table: pd.DataFrame) -> Figure:
    """R2 of each state with 95 % intervals, one panel a modality, one colour a teacher.

    Args:
        table: From `pacx.evaluation.teachers.compare_teachers`.
    """
    targets, states, models = (list(dict.fromkeys(table[c])) for c in ("target", "state", "model"))
    figure, axes = plt.subplots(
        1, len(targets), figsize=(_WIDTH, 1.2 + 0.32 * len(states)), sharex=True, sharey=True
    )
    for axis, target in zip(axes, targets, strict=True):
        axis.axvline(0, color="0.6", linewidth=1)
        for k, model in enumerate(models):
            of_model = table[(table["target"] == target) & (table["model"] == model)]
            places = of_model["state"].map(states.index) + 0.32 * k - 0.16
            draw_estimates(axis, of_model, places, colour_of(model), marker_of(model))
        axis.set(title={"ecg": "ECG", "labs": "labs"}[target], xlabel="R²")
        axis.set_yticks(range(len(states)), [state.replace("_", " ") for state in states])
        axis.set_ylim(len(states) - 0.5, -0.5)
    handles = [key(name_of(model), marker_of(model), colour_of(model)) for model in models]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(models))
    return as_aggregate(figure)


def trade_off(
    table: pd.DataFrame, labels: Mapping[str, str], falling: tuple[str, ...] = ()
) -> Figure:
    """One outcome against others, a cross of 95 % intervals a model; top right is best everywhere.

    Args:
        table: Tidy table with `model`, `outcome`, `read` and the columns `difference_*`.
        labels: Outcome -> label of its axis. The first is the horizontal axis, each of the others
            a row of panels; the columns are the values of `read`.
        falling: Outcomes of which less is better: their axis is turned over.
    """
    reads, models = list(dict.fromkeys(table["read"])), list(dict.fromkeys(table["model"]))
    price, *kept = labels
    figure, axes = plt.subplots(
        len(kept), len(reads), figsize=(_WIDTH, 1.4 + 2.2 * len(kept)), sharex=True, sharey="row",
        squeeze=False,
    )  # fmt: skip
    cells = table.set_index(["model", "outcome", "read"])
    for line, outcome in zip(axes, kept, strict=True):
        for axis, read in zip(line, reads, strict=True):
            axis.axhline(0, color="0.8", linewidth=1)
            axis.axvline(0, color="0.8", linewidth=1)
            axis.locator_params(nbins=4)
            for k, model in enumerate(models):
                x, y = cells.loc[model, price, read], cells.loc[model, outcome, read]
                at, colour = (x["difference_value"], y["difference_value"]), colour_of(model)
                look = {"color": colour, "linestyle": _LINES[k % len(_LINES)], "linewidth": 1.3}
                axis.hlines(at[1], x["difference_low"], x["difference_high"], **look)
                axis.vlines(at[0], y["difference_low"], y["difference_high"], **look)
                face = "white" if k % 2 else colour
                axis.plot(*at, marker=marker_of(model), markersize=7, markerfacecolor=face,
                          label=name_of(model), zorder=3, **look)  # fmt: skip
        line[0].set_ylabel(fill(labels[outcome], 18))
        if outcome in falling:
            line[0].invert_yaxis()
    for axis, read in zip(axes[0], reads, strict=True):
        axis.set_title(read)
    figure.supxlabel(labels[price], fontsize=10)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, handlelength=3)
    return as_aggregate(figure)
