"""One look for every figure, in colours that colour-blind readers can tell apart.

A model has the same colour everywhere. Variants share colours; a legend or a row names them.
"""

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

_OKABE_ITO = {
    "grey": "#6b6b6b", "orange": "#d17c00", "sky": "#3f9bd1", "green": "#007f5f",
    "blue": "#0062a3", "vermilion": "#c44601", "purple": "#b0568c", "brown": "#7a5c1e",
}  # fmt: skip

#: Model -> (name in a figure, colour); the same everywhere.
MODELS = {
    "random": ("random weights", _OKABE_ITO["grey"]),
    "imagenet": ("ImageNet", _OKABE_ITO["brown"]),
    "mae": ("MAE", _OKABE_ITO["blue"]),
    "pacx": ("PaCX-MAE", _OKABE_ITO["vermilion"]),
    "pacx-ecg": ("ECG only", _OKABE_ITO["orange"]),
    "pacx-labs": ("labs only", _OKABE_ITO["sky"]),
    "pacx-contrastive": ("contrastive only", _OKABE_ITO["orange"]),
    "pacx-regression": ("regression only", _OKABE_ITO["sky"]),
    "pacx-raw": ("raw targets", _OKABE_ITO["brown"]),
    "pacx-compared": ("PaCX-MAE from the other mask ratio", _OKABE_ITO["orange"]),
    "pacx-shuffled": ("shuffled pairs", _OKABE_ITO["brown"]),
    "pacx-untrained": ("untrained teachers", _OKABE_ITO["purple"]),
    "pacx-untrained-raw": ("untrained teachers, raw targets", _OKABE_ITO["purple"]),
    "pacx-finalnorm": ("final LayerNorm only", _OKABE_ITO["purple"]),
    "pacx-rank2": ("rank 2", _OKABE_ITO["green"]),
    "pacx-lowrate": ("lower learning rate", _OKABE_ITO["blue"]),
    "pacx-maeterm": ("MAE term", _OKABE_ITO["brown"]),
    "pacx-replay": ("MAE term, replay", _OKABE_ITO["grey"]),
    "mae-compared": ("MAE, other mask ratio", _OKABE_ITO["sky"]),
    "mae-continued": ("MAE continued", _OKABE_ITO["green"]),
    "teacher": ("trained teacher", _OKABE_ITO["vermilion"]),
    "teacher-untrained": ("untrained teacher", _OKABE_ITO["purple"]),
}

#: Status colours of the method's figure: what is trained, adapted, and frozen.
STATUS = {"trainable": "#c0392b", "adapted": "#d17c00", "frozen": "#2f6db5"}


def use_style() -> None:
    """Set the book's figure style; SVG in notebooks, with a light ground in both page themes."""
    sns.set_theme(context="notebook", style="ticks", palette=list(_OKABE_ITO.values()))
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


def name_of(model: str) -> str:
    """How a figure calls a model."""
    return MODELS[model][0]


def colour_of(model: str) -> str:
    """A model's colour."""
    return MODELS[model][1]


def grid_of_axes(
    rows: int, columns: int, width: float = 8.0, ratio: float = 1.0
) -> tuple[Figure, list]:
    """A figure of equal panels without ticks, for images.

    Args:
        rows: Rows of panels.
        columns: Columns of panels.
        width: Of the figure, inches.
        ratio: Height of a panel over its width.

    Returns:
        The figure and its axes, row by row.
    """
    height = width / columns * rows * ratio
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, list(axes.flat)
