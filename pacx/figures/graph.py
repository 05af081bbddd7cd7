"""The phantom patients' causal graph, and the pairing rule as a timeline."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from pacx.figures.style import COLOURS, as_aggregate, key, label_of
from pacx.phantom.state import Equation

_RAISES, _LOWERS = COLOURS["blue"], COLOURS["vermilion"]


def causal_graph(equations: dict[str, Equation]) -> Figure:
    """Draw structural equations, causes before effects, as a graph: width = size of the weight."""
    places = _places(equations)
    figure, axis = plt.subplots(figsize=(9.5, 5.4))
    boxes = {
        name: axis.text(
            x, y, label_of(name), ha="center", va="center", fontsize=10,
            bbox={"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "0.3"},
        ).get_bbox_patch()
        for name, (x, y) in places.items()
    }  # fmt: skip
    for name, equation in equations.items():
        for parent, weight in equation.parents.items():
            axis.annotate(
                "", xy=places[name], xytext=places[parent],
                # Drawn after the boxes, whose outlines are known only once they are drawn.
                zorder=4,
                arrowprops={
                    "arrowstyle": "-|>", "patchA": boxes[parent], "patchB": boxes[name],
                    "shrinkA": 0, "shrinkB": 1, "alpha": 0.75, "linewidth": 0.6 + 4 * abs(weight),
                    "connectionstyle": "arc3,rad=0.06",
                    "color": _RAISES if weight > 0 else _LOWERS,
                },
            )  # fmt: skip
    xs, ys = zip(*places.values(), strict=True)
    axis.set(xlim=(min(xs) - 0.5, max(xs) + 0.5), ylim=(min(ys) - 0.5, max(ys) + 0.5))
    axis.set_axis_off()
    handles = [
        plt.Line2D([], [], color=_RAISES, linewidth=3, label="raises"),
        plt.Line2D([], [], color=_LOWERS, linewidth=3, label="lowers"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return as_aggregate(figure)


def equations_as_latex(equations: dict[str, Equation]) -> str:
    """The structural equations as one aligned block of LaTeX, for `IPython.display.Math`."""
    lines = []
    for name, equation in equations.items():
        terms = [f"{w:+g}\\,\\text{{{label_of(p)}}}" for p, w in equation.parents.items()]
        terms.append(f"{equation.noise:+g}\\,\\varepsilon_{{{len(lines) + 1}}}")
        lines.append(f"\\text{{{label_of(name)}}} &= {' '.join(terms).removeprefix('+')}")
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def pairing_timeline() -> Figure:
    """Symile-MIMIC's rule: which X-ray, ECG and blood tests of an admission belong together."""
    figure, axis = plt.subplots(figsize=(8.0, 2.5))
    windows = {
        "X-ray": (24, 72, _LOWERS),
        "ECG": (-24, 24, _RAISES),
        "labs": (-24, 24, COLOURS["green"]),
    }
    for row, (start, end, colour) in enumerate(windows.values()):
        axis.barh(row, end - start, left=start, height=0.5, color=colour, alpha=0.3)
        examples = np.array([0.2, 0.55, 0.8]) * (end - start) + start
        axis.plot(examples[0], row, "o", color=colour, markersize=8)
        axis.plot(examples[1:], [row, row], "o", color=colour, markersize=8, markerfacecolor="none")
    axis.plot([0, 0], [-0.5, 2.5], color="black", linewidth=1)
    axis.text(0, -0.55, "admission", ha="center", va="bottom")
    axis.set_yticks(range(3), windows)
    axis.set(xlabel="hours since admission", xlim=(-30, 78), ylim=(2.5, -1.1))
    axis.set_xticks(range(-24, 73, 24))
    handles = [key("earliest: taken"), key("later: left out", hollow=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return as_aggregate(figure)


def _places(equations: dict[str, Equation]) -> dict[str, tuple[float, float]]:
    """Column = longest chain of causes; within a column, near the mean height of the causes."""
    depth: dict[str, int] = {}
    for name, equation in equations.items():
        depth[name] = 1 + max((depth[p] for p in equation.parents), default=-1)
    height: dict[str, float] = {}
    for level in range(max(depth.values()) + 1):
        members = [name for name in equations if depth[name] == level]
        wanted = {
            name: np.mean([height[p] for p in equations[name].parents] or [i])
            for i, name in enumerate(members)
        }
        members.sort(key=wanted.__getitem__)
        for i, name in enumerate(members):
            height[name] = 1.3 * (i - (len(members) - 1) / 2)
            if not any(name in equation.parents for equation in equations.values()):
                height[name] += 0.6 if height[name] >= 0 else -0.6  # out of the way of arrows
    return {name: (1.25 * depth[name], -height[name]) for name in equations}
