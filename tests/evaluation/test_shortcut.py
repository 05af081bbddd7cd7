"""Devices alone: what they tell of all patients, they cannot tell of those without one."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pacx.constants import ANATOMY_TASKS, PHYSIOLOGY_TASKS
from pacx.data.table import make_dataset
from pacx.evaluation.shortcut import shortcut_scores
from pacx.evaluation.transfer import compare_probes
from pacx.profile import load_profile
from pacx.run import open_run


@pytest.fixture
def run(tmp_path):
    small = load_profile("smoke").model_copy(update={"data_root": tmp_path / "data"})
    return open_run(small, tmp_path / "runs")


@pytest.fixture
def dataset(run):
    n, rng = 240, np.random.default_rng(0)
    root = run.data_root / "phantom-truth"
    root.mkdir(parents=True)
    labels = [*PHYSIOLOGY_TASKS, *ANATOMY_TASKS]
    table = pd.DataFrame(rng.integers(0, 2, (n, len(labels))).astype(float), columns=labels)
    # Congestion is the tube, but for one patient in ten; nothing else is told by a device.
    table["congestion"] = np.abs(table["tube"] - (rng.random(n) < 0.1))
    for i, tube in enumerate(table["tube"]):
        grey = rng.integers(0, 100, (64, 64)) + 150 * tube
        Image.fromarray(grey.astype(np.uint8)).save(root / f"{i}.png")
    table["image"] = [f"{i}.png" for i in range(n)]
    table["patient"] = table["study"] = table["image"]
    table["split"] = ["train"] * 120 + ["val"] * 40 + ["test"] * 80
    return make_dataset("phantom-truth", "multilabel", labels, table, root)


def test_devices_tell_nothing_where_nobody_has_one(run, dataset):
    groups = {"congestion": ["congestion"], "mean of physiology": PHYSIOLOGY_TASKS}
    table = shortcut_scores(run, dataset, ["random"], groups, reference="random")
    value = table.set_index(["task", "patients", "pooling", "model"])["value"]
    assert value["congestion", "all patients", "cls", "devices"] > 0.8
    assert value["congestion", "all patients", "cls", "random"] > 0.8  # it sees the tube
    assert (value.xs(("no device", "devices"), level=("patients", "model")) == 0.5).all()
    for pooling in ("cls", "mean"):
        usual = {"tasks": PHYSIOLOGY_TASKS, "pooling": pooling, "reference": "random"}
        whole = compare_probes(run, dataset, ["random"], **usual)["value"].item()
        found = value["mean of physiology", "all patients", pooling, "random"]
        assert found == pytest.approx(whole)
