"""One look for every figure, in colours that colour-blind readers can tell apart.

A model has the same colour and marker everywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

#: In the metadata of an output: no single patient can be seen in it.
AGGREGATE = "pacx_aggregate"

#: Told apart by readers who see no red, no green or no blue; tested by simulation.
COLOURS = {
    "grey": "#404040", "orange": "#c97e0a", "sky": "#289bec", "green": "#007d4c",
    "blue": "#1b47b9", "vermilion": "#a82a08", "purple": "#964391", "brown": "#382000",
}  # fmt: skip

#: Model -> (name in a figure, colour, marker); the same everywhere. Variants share looks.
MODELS = {
    name: (words, COLOURS[colour], marker)
    for name, words, colour, marker in (
        ("random", "random weights", "grey", "X"),
        ("imagenet", "ImageNet", "brown", "P"),
        ("mae", "MAE", "blue", "o"),
        ("pacx", "PaCX-MAE", "vermilion", "D"),
        ("pacx-ecg", "ECG only", "orange", "<"),
        ("pacx-labs", "labs only", "sky", ">"),
        ("pacx-contrastive", "contrastive only", "orange", "p"),
        ("pacx-regression", "regression only", "sky", "h"),
        ("pacx-raw", "raw targets", "brown", "d"),
        ("pacx-other-ratio", "PaCX-MAE from the other mask ratio", "orange", "d"),
        ("pacx-shuffled", "shuffled pairs", "brown", "v"),
        ("pacx-untrained", "untrained teachers", "purple", "^"),
        ("pacx-untrained-raw", "untrained teachers, raw targets", "purple", "d"),
        ("pacx-finalnorm", "final LayerNorm only", "purple", "s"),
        ("pacx-rank2", "rank 2", "green", "^"),
        ("pacx-lowrate", "lower learning rate", "sky", "v"),
        ("pacx-maeterm", "MAE term", "brown", "s"),
        ("pacx-replay", "MAE term, replay", "orange", "X"),
        ("pacx-teachers-17", "teachers, 17 % trained", "purple", "<"),
        ("pacx-teachers-50", "teachers, 50 % trained", "purple", ">"),
        ("pacx-states", "towards the true states", "brown", "^"),
        ("pacx-state-part", "towards the states' part", "green", "d"),
        ("pacx-untrained-state-part", "the states' part, untrained teachers", "purple", "o"),
        ("pacx-state-removed", "towards all but the states", "sky", "X"),
        ("pacx-whitened", "whitened teachers", "green", "D"),
        ("pacx-raw-labs", "towards raw labs", "orange", "s"),
        ("pacx-missingness", "towards which labs were taken", "orange", "D"),
        ("pacx-projected-ecg", "towards a random projection of the ECG", "sky", "P"),
        ("mae-other-ratio", "MAE, other mask ratio", "sky", "o"),
        ("mae-continued", "MAE continued", "green", "s"),
        ("mae-phantoms", "MAE of phantoms", "orange", "v"),
        ("pacx-phantoms", "PaCX-MAE of phantoms", "vermilion", "^"),
        ("teacher", "trained teacher", "green", "o"),
        ("teacher-untrained", "untrained teacher", "purple", "v"),
        ("pixels", "pixels (PCA)", "sky", "s"),
        ("pixels-teachers", "pixels, ridge to the teachers", "sky", "d"),
        ("mae-teachers", "MAE, ridge to the teachers", "blue", "d"),
        ("mae-cca", "MAE, CCA with the teachers", "blue", "s"),
        ("devices", "pacemaker and tube alone", "grey", "s"),
        ("known", "known without the image", "brown", "h"),
        ("average", "average X-ray", "grey", "d"),
        ("supervised", "trained on the labels", "green", "P"),
        ("teachers", "the teachers: ECG and labs", "green", "h"),
        ("states", "the true states", "brown", "o"),
    )
}


def use_style() -> None:
    """Set the book's figure style; SVG in notebooks, with a light ground in both page themes."""
    sns.set_theme(context="notebook", style="ticks", palette=list(COLOURS.values()))
    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "legend.frameon": False,
            "image.cmap": "gray",
            "svg.fonttype": "path",
            "svg.hashsalt": "pacx",
            "figure.constrained_layout.use": True,
        }
    )
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg")


def as_aggregate(thing: Any) -> Any:
    """Mark what shows no single patient: of real data, a page keeps nothing else.

    What draws or words results calls this itself; a chapter calls `pacx.book.privacy.declare`. The
    output of a figure, a text or a styled table will carry the mark, or a table itself.
    """
    if isinstance(thing, pd.DataFrame):
        thing.attrs[AGGREGATE] = True
    else:  # metadata without data: Jupyter adds the data, as it would without this
        thing._repr_mimebundle_ = lambda **_: ({}, {AGGREGATE: True})
    return thing


def name_of(model: str) -> str:
    """How a figure calls a model."""
    return MODELS[model][0]


def label_of(name: str) -> str:
    """How a figure calls a state or task: `copd` reads "COPD", `atrial_load` "atrial load"."""
    return name.upper() if name in ("bmi", "copd") else name.replace("_", " ")


def colour_of(model: str) -> str:
    """A model's colour."""
    return MODELS[model][1]


def marker_of(model: str) -> str:
    """A model's marker."""
    return MODELS[model][2]


def draw_estimates(
    axis: Axes,
    rows: pd.DataFrame | Mapping,
    heights: Sequence[float] | float,
    colour: str,
    marker: str,
    *,
    prefix: str = "",
    hollow: bool = False,
) -> None:
    """Values with their 95 % intervals, lying in the rows of a figure.

    They are `value`, `low` and `high`, with a prefix such as `difference_`: columns of a table, or
    of one estimate.
    """
    value, low, high = (rows[f"{prefix}{name}"] for name in ("value", "low", "high"))
    axis.hlines(heights, low, high, color=colour, linewidth=1.8)
    # Above all intervals: another dot's may cross it.
    face = "white" if hollow else colour
    axis.plot(value, heights, marker, color=colour, markersize=5, markerfacecolor=face, zorder=3)


def key(label: str, marker: str = "o", colour: str = "0.3", *, hollow: bool = False) -> Line2D:
    """An entry of a legend: a dot without a line."""
    face = "white" if hollow else colour
    return Line2D(
        [], [], marker=marker, linestyle="", color=colour, markerfacecolor=face, label=label
    )


def patch_edges(axis: Axes, side: int) -> None:
    """The edges of a model's patches over a picture whose axes count in patches, `side` of them."""
    for edge in range(side + 1):
        axis.plot([edge, edge], [0, side], [0, side], [edge, edge], color="#3fc7e8", linewidth=0.6)


def grid_of_axes(
    rows: int, columns: int, width: float = 8.0, ratio: float = 1.0
) -> tuple[Figure, list]:
    """A figure of equal panels without ticks, for images, and its axes, row by row.

    It is `width` inches wide; `ratio` is a panel's height over its width.
    """
    height = width / columns * rows * ratio
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, list(axes.flat)
