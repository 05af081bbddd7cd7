"""Figures and tables: colours that every eye tells apart, and rows beside the paper's."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from pacx.evaluation.statistics import Estimate
from pacx.figures.attention import method_curves
from pacx.figures.style import COLOURS, MODELS
from pacx.figures.tables import beside_the_paper

# Machado, Oliveira and Fernandes 2009, severity 1: on linear RGB.
SEEN = {
    "all colours": np.eye(3),
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
XYZ = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])


def linear(colour):
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    xyz = XYZ @ np.clip(rgb, 0, 1) / XYZ.sum(axis=1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eye", SEEN)
def test_colours_differ_for_every_eye(eye):
    """By 20 in CIE76, where 2.3 can just be noticed side by side; lines are thin and far apart."""
    seen = {name: lab(SEEN[eye] @ linear(colour)) for name, colour in COLOURS.items()}
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 20, (one, other)


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_stand_out_from_paper(colour):
    """WCAG asks a contrast of 3 of graphics."""
    luminance = XYZ[1] @ linear(COLOURS[colour])
    assert 1.05 / (luminance + 0.05) >= 3


def test_no_two_models_look_alike():
    looks = [look for _, *look in MODELS.values()]
    main = ("random", "mae", "pacx", "pacx-shuffled", "pacx-untrained", "mae-continued")
    assert len({MODELS[model][1] for model in main}) == len(main)
    assert len(set(map(tuple, looks))) == len(looks)


def test_methods_that_are_compared_look_different():
    methods = "rollout", "integrated gradients", "occlusion"
    row = {"model": "mae", "metric": "deletion", "value": 0.5, "low": 0.4, "high": 0.6}
    table = pd.DataFrame([row | {"method": m, "share": s} for m in methods for s in (0, 1)])
    lines = method_curves(table, x="share", x_label="share", y_label="logit").axes[0].lines
    looks = {
        (line.get_color(), line.get_linestyle()) for line in lines if line.get_marker() != "None"
    }
    assert len(looks) == len(methods)


def test_each_published_row_stands_above_this_runs():
    row = {"dataset": "tb", "metric": "AUROC", "low": 0.5, "high": 0.7, "reference": "mae"}
    ours = pd.DataFrame(
        [row | {"model": "mae", "value": 0.6}, row | {"model": "pacx", "value": 0.65}]
    )
    change = {"difference_value": 0.05, "difference_low": -0.01, "difference_high": 0.11}
    table = beside_the_paper(ours.assign(**change), "transfer")
    first, second, *others = table.to_dict("records")
    assert first["dataset"] == second["dataset"] == "TB (Shenzhen)"
    assert (first["source"], second["source"]) == ("paper", "this run")
    assert (first["MAE"], first["PaCX-MAE"]) == ("0.899", "0.910")
    assert first["PaCX-MAE minus MAE"] == "+0.011"
    assert second["MAE"].startswith("0.600 [0.500,")
    assert second["PaCX-MAE minus MAE"] == str(Estimate(0.05, -0.01, 0.11))
    assert {row["MAE"] for row in others if row["source"] == "this run"} == {"–"}
