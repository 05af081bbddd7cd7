"""Figures of controls and forgetting: dose-responses, what teachers know, the price of keeping."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from pacx.figures.style import as_aggregate, colour_of, draw_estimates, key, marker_of, name_of


def dose_response(table: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """The gain against a dose with 95 % intervals; solid = CLS token, dotted = mean of patches.

    Args:
        table: From `pacx.evaluation.evidence.dose_responses`.
        labels: `what` -> label of its panel's horizontal axis.
    """
    figure, axes = plt.subplots(1, len(labels), figsize=(8.0, 3.6), sharey=True)
    fractions = sorted(table["fraction"].unique())
    for axis, (what, label) in zip(axes, labels.items(), strict=True):
        axis.axhline(0, color="0.6", linewidth=1)
        for (fraction, pooling), doses in table[table["what"] == what].groupby(
            ["fraction", "pooling"]
        ):
            axis.errorbar(
                doses["dose"], doses["value"],
                [doses["value"] - doses["low"], doses["high"] - doses["value"]],
                marker="os"[fractions.index(fraction)], linestyle="-" if pooling == "cls" else ":",
                color=colour_of("pacx"), capsize=3,
                markerfacecolor=None if fraction == fractions[-1] else "white",
                label=f"{fraction:.0%} of labels, {'CLS' if pooling == 'cls' else 'patches'}",
            )  # fmt: skip
        axis.set_xlabel(label)
    axes[0].set_ylabel("gain in AUROC, PaCX-MAE minus MAE")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2)
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
