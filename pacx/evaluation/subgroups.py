"""Scores by group: sex, age band, view, and whether a device shows."""

from functools import partial

import numpy as np
import pandas as pd

from pacx.data.table import Dataset
from pacx.evaluation.statistics import bootstrap_weights, interval, macro_auroc, on_resamples
from pacx.evaluation.transfer import probe_scores
from pacx.run import Run
from pacx.training.probe import labels_of

#: Smaller groups are left out of the card: their intervals say nothing, and they are few patients.
SMALLEST_GROUP = 30
#: What data sets call the columns that groups are made by.
_SEX = ("sex", "Sex", "Patient Gender", "Patient Sex")
_AGE = ("age_years", "Age", "Patient Age", "age.1", "age")  # age.1: CheXchoNet has years second
_VIEW = ("view", "View Position", "AP/PA")
_DEVICE = ("Support Devices", "pacemaker_or_icd", "pacemaker")
_BANDS = {
    "bins": [0, 40, 60, 80, 200],
    "labels": ["below 40", "40 to 59", "60 to 79", "80 and older"],
}


def subgroups(run: Run, dataset: Dataset, model: str) -> pd.DataFrame:
    """Macro AUROC on the test images of groups: sex, age band, view, and whether a device shows.

    Of the converged probe on the CLS token, trained on all labels of all patients. Groups that the
    table does not tell are left out, as are those of fewer than `SMALLEST_GROUP` patients.

    Returns:
        Columns dataset, group, patients, value, low, high; the first row is all of them.
    """
    table, truth = dataset.split("test"), labels_of(dataset, "test")
    scores = np.asarray(probe_scores(run, dataset, model)[0])
    groups = {"all": pd.Series("", index=table.index)}
    for title, names in {"sex": _SEX, "age": _AGE, "view": _VIEW, "device": _DEVICE}.items():
        column = next((name for name in names if name in table), None)
        if column is None:
            continue
        values = table[column]
        if title == "age":
            values = pd.cut(pd.to_numeric(values, errors="coerce"), right=False, **_BANDS)
        elif title == "device":
            values = values.map({0: "none", 1: "present"})
        groups[title] = values
    rows = []
    for title, values in groups.items():
        for value in sorted(values.dropna().unique(), key=str):
            chosen = np.flatnonzero(values == value)
            patients = table["patient"].to_numpy()[chosen]
            if len(set(patients)) < SMALLEST_GROUP:
                continue
            drawn = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
            point, spread = on_resamples(partial(macro_auroc, truth[chosen], scores[chosen]), drawn)
            if np.isnan(point):
                continue
            name = f"{title}: {value}" if value else title
            count = {"dataset": dataset.name, "group": name, "patients": len(set(patients))}
            rows.append(count | interval(point, spread)._asdict())
    return pd.DataFrame(rows)
