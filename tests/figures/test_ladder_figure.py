"""The ladder and the probe's length: every row is drawn, in order, and every cohort."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from pacx.figures.ladder import ladder, probe_length
from pacx.figures.style import MODELS, name_of

ENCODERS = ("pacx", "pacx-other-ratio", "random", "mae")


def rows(model, poolings):
    return [
        {
            "group": group, "model": model, "pooling": pooling, "fraction": fraction,
            "probe": probe, "value": 0.6, "low": 0.55, "high": 0.65,
        }
        for group in ("physiology", "anatomy")
        for pooling in poolings
        for fraction in (0.1, 1.0)
        for probe in ("converged", "paper")
    ]  # fmt: skip


@pytest.fixture
def table():
    parts = [row for model in ENCODERS for row in rows(model, ("cls", "mean"))]
    parts += rows("states", ("true states",)) + rows("teachers", ("ECG", "labs", "both"))
    return pd.DataFrame(parts + rows("pixels", ("96 components",)))


def dots_of(axis):
    return [line for line in axis.lines if line.get_marker() in "osD"]


def test_rows_stand_from_chance_to_the_ceilings(table):
    axis = ladder(table).axes[0]
    order = ("random", "pixels", "mae", "pacx", "pacx-other-ratio", "teachers", "states")
    assert [label.get_text() for label in axis.get_yticklabels()] == [name_of(m) for m in order]
    # Two readings of each encoder and one of the others, with few and with all labels.
    assert len(dots_of(axis)) == 2 * (2 * len(ENCODERS) + 3)


def test_every_model_of_the_book_has_a_row():
    parts = [row for model in MODELS for row in rows(model, ("both",))]
    assert len(ladder(pd.DataFrame(parts)).axes[0].get_yticklabels()) == len(MODELS)


def test_cohorts_are_dots_without_intervals(table):
    table = table[table["probe"] == "converged"].drop(columns=["probe", "low", "high"])
    chosen = table["pooling"].replace({"96 components": "64 components"})
    parts = [table, table.assign(pooling=chosen, value=0.62), table.assign(value=0.64)]
    several = pd.concat([part.assign(cohort=c) for c, part in enumerate(parts)])
    axis = ladder(several).axes[0]
    assert {len(line.get_xdata()) for line in dots_of(axis)} == {3}
    assert not axis.collections
    ticks = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "|"]
    np.testing.assert_allclose(ticks, 0.62)


def test_the_converged_probe_is_a_line_in_both_panels():
    trained = [
        {"model": m, "probe": "paper", "features": f, "epochs": e, "value": 0.6}
        for m in ("mae", "pacx")
        for f in ("raw", "standardised")
        for e in (5, 40)
    ]
    converged = [
        {"model": m, "probe": "converged", "features": "standardised", "value": 0.7}
        for m in ("mae", "pacx")
    ]
    figure = probe_length(pd.DataFrame(trained + converged), 40)
    assert [axis.get_title() for axis in figure.axes] == ["raw features", "standardised features"]
    for axis in figure.axes:
        level = [line for line in axis.lines if set(line.get_ydata()) == {0.7}]
        assert len(level) == 2


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")
