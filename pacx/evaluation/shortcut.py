"""A shortcut on phantoms: sicker patients carry devices, so a probe can read the device instead."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from pacx.data.table import Dataset
from pacx.evaluation.baselines import POOLINGS
from pacx.evaluation.statistics import bootstrap_weights, macro_auroc, on_resamples, paired_table
from pacx.evaluation.transfer import probe_scores
from pacx.run import Run
from pacx.training.probe import fit_probes, labels_of

DEVICES = ("pacemaker", "tube")


def shortcut_scores(
    run: Run,
    dataset: Dataset,
    models: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    *,
    reference: str = "mae",
) -> pd.DataFrame:
    """AUROC of devices alone and of encoders, on all test patients and on those without a device.

    Devices alone (`devices` in the column `model`) are a converged probe on the labels of
    `DEVICES`, which sees no picture. The probes are those of all training patients in both cases:
    what falls among patients without a device is what the device told.

    Returns:
        One row a group (name -> tasks that are averaged over), pooling, kind of patients and model:
        dataset, task (the group's name), patients, probe, pooling, metric, then the columns of
        `pacx.evaluation.statistics.paired_table`.
    """
    splits = ("train", "val", "test")
    seen = {s: dataset.split(s)[list(DEVICES)].to_numpy(np.float32) for s in splits}
    train, val = ((seen[s], labels_of(dataset, s)) for s in ("train", "val"))
    alone = fit_probes(train, val).probabilities(seen["test"])[0]
    truth = labels_of(dataset, "test")
    patients = dataset.split("test")["patient"].to_numpy()
    drawn = bootstrap_weights(patients, run.profile.bootstrap, run.profile.seed)
    kinds = {"all patients": np.full(len(truth), True), "no device": ~seen["test"].any(1)}
    tables = []
    for pooling in POOLINGS:
        scores = {
            model: probe_scores(run, dataset, model, pooling=pooling)[0]
            for model in dict.fromkeys([*models, reference])
        } | {"devices": alone}
        for name, tasks in groups.items():
            chosen = [dataset.labels.index(task) for task in tasks]
            for kind, rows in kinds.items():
                labels, weights = truth[rows][:, chosen], drawn.T[rows].T
                measured = {
                    model: on_resamples(
                        partial(macro_auroc, labels, values[rows][:, chosen]), weights
                    )
                    for model, values in scores.items()
                }
                tables.append(
                    paired_table(
                        ["devices", *models], reference, measured.__getitem__,
                        dataset=dataset.name, task=name, patients=kind, probe="converged",
                        pooling=pooling, metric="AUROC",
                    )
                )  # fmt: skip
    return pd.concat(tables, ignore_index=True)
