"""Blood tests: one patient's report with what is missing, and who gets which test."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest

from pacx.constants import LABS, Lab
from pacx.figures.style import COLOURS, key

_INSIDE, _OUTSIDE, _ABSENT = COLOURS["blue"], COLOURS["vermilion"], "0.55"
_LIMIT = 1.0  # how many widths of the range beyond it are drawn


def lab_panel(values: np.ndarray) -> Figure:
    """Draw one patient's labs (K,), all `LABS` in their units, NaN = no result.

    A band is the reference range.
    """
    figure, axes = plt.subplots(1, 2, figsize=(9.2, 0.8 + 0.23 * -(-len(LABS) // 2)))
    for axis, places in zip(axes, np.array_split(np.arange(len(LABS)), 2), strict=True):
        axis.axvspan(0, 1, color="#dcebf5", linewidth=0, zorder=0)
        for row, k in enumerate(places):
            _row(axis, row, LABS[k], values[k])
        names = [f"{LABS[k].name} ({LABS[k].unit})" for k in places]
        axis.set_yticks(range(len(places)), names, fontsize=8)
        axis.set(
            ylim=(len(places) - 0.4, -0.6), xlim=(-_LIMIT - 0.1, 1 + _LIMIT + 0.95),
            xlabel="reference range of each test",
        )  # fmt: skip
        axis.set_xticks([0, 1], ["low", "high"])
        axis.tick_params(axis="y", length=0)
    handles = [
        key("within the range", "o", _INSIDE), key("outside the range", "o", _OUTSIDE),
        key("no result", "x", _ABSENT),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def ordering_curves(panels: dict[str, tuple[np.ndarray, np.ndarray]], x_label: str) -> Figure:
    """Share of patients with a test, with Wilson's 95 % interval, against how sick they are.

    Args:
        panels: Name -> how sick each patient is (N,), and whether the test was ordered (N,) bool.
        x_label: What "how sick" is, with its unit.
    """
    figure, axis = plt.subplots(figsize=(7.0, 3.8))
    for name, (state, ordered) in panels.items():
        groups = np.array_split(np.argsort(state), 8)
        share = np.array([ordered[g].mean() for g in groups])
        tests = [binomtest(int(ordered[g].sum()), len(g)) for g in groups]
        low, high = np.array([t.proportion_ci(method="wilson") for t in tests]).T
        axis.errorbar(
            [state[g].mean() for g in groups], share, [share - low, high - share], fmt="o-",
            markersize=4, linewidth=1.4, label=name,
        )  # fmt: skip
    axis.set(xlabel=x_label, ylabel="share of patients with the test", ylim=(0, 1.02))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _row(axis, row: int, lab: Lab, value: float) -> None:
    if np.isnan(value):
        axis.plot(0.5, row, "x", color=_ABSENT, markersize=5)
        axis.text(1 + _LIMIT + 0.25, row, "–", fontsize=8, va="center", color=_ABSENT)
        return
    place = (value - lab.low) / (lab.high - lab.low)
    outside = not 0 <= place <= 1
    colour = _OUTSIDE if outside else _INSIDE
    shown = np.clip(place, -_LIMIT, 1 + _LIMIT)
    marker = "o" if shown == place else ("<" if place < 0 else ">")
    axis.plot(shown, row, marker, color=colour, markersize=5)
    axis.text(
        1 + _LIMIT + 0.25, row, f"{value:.3g}", fontsize=8, va="center", color=colour,
        weight="bold" if outside else "normal",
    )  # fmt: skip
