"""Training curves."""

from collections.abc import Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from pacx.figures.style import as_aggregate


def training_curves(
    histories: dict[str, pd.DataFrame],
    terms: Sequence[str] = ("loss",),
    y_labels: Sequence[str] = ("loss",),
    colours: Sequence[str] | None = None,
) -> Figure:
    """One panel a term of the loss, one line a training: each step faint, their running mean clear.

    Args:
        histories: Name of a training -> its history: `step` and one column a term.
        terms: Columns to draw.
        y_labels: What each term is, with its unit.
        colours: One a training; the style's own when not given.
    """
    figure, axes = plt.subplots(1, len(terms), figsize=(7.0, 3.2), squeeze=False)
    colours = colours or plt.rcParams["axes.prop_cycle"].by_key()["color"][1:]
    for axis, term, y_label in zip(axes[0], terms, y_labels, strict=True):
        for (name, history), colour, style in zip(
            histories.items(), cycle(colours), cycle(("-", "--", ":"))
        ):
            smooth = history[term].rolling(max(1, len(history) // 30), min_periods=1).mean()
            axis.plot(history["step"], history[term], color=colour, alpha=0.2, linewidth=0.8)
            axis.plot(history["step"], smooth, style, color=colour, linewidth=1.8, label=name)
        axis.set(xlabel="step (one batch each)", ylabel=y_label)
    if len(histories) > 1:
        axes[0, -1].legend()
    return as_aggregate(figure)
