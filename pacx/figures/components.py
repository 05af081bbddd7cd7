"""Figures of controls and forgetting: repeated claims, what teachers know, the price of keeping."""

from collections.abc import Mapping
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pacx.figures.style import as_aggregate, colour_of, draw_estimates, key, marker_of, name_of


def repeated(table: pd.DataFrame, pooled: pd.DataFrame, value: str) -> Figure:
    """Differences in each cohort, and their mean with its interval, one row each.

    Args:
        table: The evidence's, with `row` and one row a cohort.
        pooled: `row`, `value`, `low`, `high`; of claims also `kind`, `margin` and `holds`.
        value: Column of `table` to show.
    """
    pooled = pooled.reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(8.0, 0.6 + 0.45 * len(pooled)))
    axis.axvline(0, color="0.6", linewidth=1)
    for row in pooled.itertuples():
        if getattr(row, "kind", "") == "within":
            axis.barh(row.Index, 2 * row.margin, 0.8, -row.margin, color="0.9", zorder=0)
        elif hasattr(row, "kind"):
            axis.vlines(row.margin, row.Index - 0.4, row.Index + 0.4, color="0.5", linestyle=":")
        cohorts = table.loc[table["row"] == row.row, value]
        axis.plot(cohorts, np.full(len(cohorts), row.Index + 0.2), ".", color="0.45", markersize=6)
        reach = [[row.value - row.low], [row.high - row.value]]
        colour = colour_of("pacx" if getattr(row, "holds", True) else "random")
        axis.errorbar(row.value, row.Index - 0.1, xerr=reach, fmt="D", color=colour, capsize=3)
    axis.set_yticks(range(len(pooled)), [fill(text, 46) for text in pooled["row"]], fontsize=9)
    axis.set(ylim=(len(pooled) - 0.4, -0.6), xlabel="difference in AUROC")
    return as_aggregate(figure)


def knowledge(table: pd.DataFrame) -> Figure:
    """R2 of each state with 95 % intervals, one panel a modality, one colour a teacher.

    Args:
        table: From `pacx.evaluation.teachers.compare_teachers`.
    """
    targets, states, models = (list(dict.fromkeys(table[c])) for c in ("target", "state", "model"))
    figure, axes = plt.subplots(
        1, len(targets), figsize=(8.0, 1.2 + 0.32 * len(states)), sharex=True, sharey=True
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
        len(kept), len(reads), figsize=(8.0, 1.2 + 2.7 * len(kept)), sharex=True, sharey="row",
        squeeze=False,
    )  # fmt: skip
    cells = table.set_index(["model", "outcome", "read"])
    for line, outcome in zip(axes, kept, strict=True):
        for axis, read in zip(line, reads, strict=True):
            axis.axhline(0, color="0.8", linewidth=1)
            axis.axvline(0, color="0.8", linewidth=1)
            for model in models:
                x, y = cells.loc[model, price, read], cells.loc[model, outcome, read]
                axis.hlines(y["difference_value"], x["difference_low"], x["difference_high"],
                            color=colour_of(model), linewidth=1.3)  # fmt: skip
                axis.vlines(x["difference_value"], y["difference_low"], y["difference_high"],
                            color=colour_of(model), linewidth=1.3)  # fmt: skip
                axis.plot(x["difference_value"], y["difference_value"], marker_of(model),
                          markersize=7, color=colour_of(model), label=name_of(model))  # fmt: skip
        line[0].set_ylabel(labels[outcome])
        if outcome in falling:
            line[0].invert_yaxis()
    for axis, read in zip(axes[0], reads, strict=True):
        axis.set_title(read)
    figure.supxlabel(labels[price], fontsize=10)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(models)))
    return as_aggregate(figure)
