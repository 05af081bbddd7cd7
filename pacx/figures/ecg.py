"""ECGs on standard paper (25 mm/s, 10 mm/mV), and single traces."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from pacx.errors import PacxError
from pacx.figures.style import COLOURS

MM_PER_SECOND, MM_PER_MILLIVOLT = 25, 10
_LAYOUT = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
_RHYTHM = "II"
_ROW_MM, _MARGIN_MM, _INCH_MM = 28, 12, 25.4


def ecg_paper(signal: np.ndarray, leads: Sequence[str], hz: float, title: str = "") -> Figure:
    """Draw a 12-lead ECG as a printer does: 3 x 4 leads of 2.5 s each, then a rhythm strip of II.

    A small square is 1 mm (0.04 s, 0.1 mV), a large one 5 mm (0.2 s, 0.5 mV); the pulse on the left
    is 1 mV high.

    Args:
        signal: (12, T) in mV; the first 10 s are drawn.
        leads: Names of the rows, in any order.
        hz: Sampling rate.
        title: Printed above.

    Raises:
        PacxError: A lead is missing.
    """
    missing = [lead for row in _LAYOUT for lead in row if lead not in leads]
    if missing:
        raise PacxError(f"An ECG on paper needs 12 leads; {', '.join(missing)} is missing.")
    row_of = {lead: signal[list(leads).index(lead)] for lead in leads}
    seconds = min(10.0, signal.shape[1] / hz)
    width = _MARGIN_MM + seconds * MM_PER_SECOND + 3
    height = _ROW_MM * (len(_LAYOUT) + 1) + 12
    figure = plt.figure(figsize=(width / _INCH_MM, height / _INCH_MM))
    figure.set_layout_engine("none")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set_visible(False)
    _grid(axis, width, height)
    for number, row in enumerate((*_LAYOUT, (_RHYTHM,))):
        base = height - 10 - _ROW_MM * (number + 0.5)
        _pulse(axis, base)
        for column, lead in enumerate(row):
            span = seconds / len(row)
            _trace(axis, row_of[lead], hz, column * span, span, base)
            left = _MARGIN_MM + column * span * MM_PER_SECOND
            if column:
                axis.vlines(left, base - 3, base + 3, color="black", linewidth=0.8)
            axis.text(left + 1.2, base + 11, lead, fontsize=9, weight="bold", va="center")
    axis.text(_MARGIN_MM, height - 7, title, fontsize=10)
    axis.text(width - 3, 2, "25 mm/s   10 mm/mV", fontsize=8, ha="right")
    return figure


def traces(
    rows: dict[str, np.ndarray], hz: float, seconds: float = 3.0, y_label: str = "mV"
) -> Figure:
    """Traces below each other on one time axis.

    Args:
        rows: Title -> (T,), or (K, T) to draw K traces over each other, the second one dashed.
        hz: Sampling rate.
        seconds: How much of the beginning is drawn.
        y_label: Unit of all rows.
    """
    figure, axes = plt.subplots(
        len(rows), 1, figsize=(8.0, 0.6 + 1.25 * len(rows)), sharex=True, squeeze=False
    )
    until = int(seconds * hz)
    for axis, (title, signal) in zip(axes[:, 0], rows.items(), strict=True):
        for k, trace in enumerate(np.atleast_2d(signal)):
            colour, style = (COLOURS["blue"], "-") if k == 0 else (COLOURS["orange"], "--")
            axis.plot(np.arange(until) / hz, trace[:until], style, color=colour, linewidth=1.2)
        axis.set_ylabel(y_label)
        axis.set_title(title, fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("time (s)")
    return figure


def _grid(axis: Axes, width: float, height: float) -> None:
    for every, colour, line in ((1, "#f8d9d9", 0.3), (5, "#eda9a9", 0.6)):
        vertical = [[(x, 0), (x, height)] for x in np.arange(0, width + 1, every)]
        level = [[(0, y), (width, y)] for y in np.arange(0, height + 1, every)]
        axis.add_collection(LineCollection(vertical + level, colors=colour, linewidths=line))


def _pulse(axis: Axes, base: float) -> None:
    x = np.array([2, 4, 4, 8, 8, 10])
    axis.plot(
        x, base + MM_PER_MILLIVOLT * np.array([0, 0, 1, 1, 0, 0]), color="black", linewidth=0.9
    )


def _trace(
    axis: Axes, signal: np.ndarray, hz: float, start: float, seconds: float, base: float
) -> None:
    samples = np.arange(int(start * hz), min(int((start + seconds) * hz), len(signal)))
    mm = base + MM_PER_MILLIVOLT * signal[samples]
    axis.plot(_MARGIN_MM + samples / hz * MM_PER_SECOND, mm, color="black", linewidth=0.8)
