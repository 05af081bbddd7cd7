"""Symile-MIMIC 1.0.0: X-ray, ECG and labs of one admission, as tables and arrays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pacx.constants import CANDIDATES, IMAGENET_MEAN, IMAGENET_STD, LABS
from pacx.data.table import percentiles_of
from pacx.files import create_array
from pacx.phantom import state
from pacx.phantom.cohort import Cohort, mimic_cxr_path, seed_of, truth_table
from pacx.phantom.ecg import render_ecgs
from pacx.phantom.labs import draw_labs


def write_symile_mimic(root: Path, cohort: Cohort) -> None:
    """Symile-MIMIC 1.0.0: tables, and arrays in `data_npy/<split>/`, one row an admission.

    As in the original, `labs_missingness` is 1 where a lab WAS measured, missing percentiles hold
    the training mean, and `test.csv` lists each query's ten candidates: the true pairs first
    (label 1), then nine others a query (label 0). `truth.csv` beside the arrays is ours.
    """
    patients = cohort.patients()
    n = len(patients)
    rng = np.random.default_rng([cohort.seed, 43])
    days = rng.exponential(cohort.lag_days, n) if cohort.lag_days else np.zeros(n)
    later = state.move_on(patients, days, cohort.drift, rng)
    labs = draw_labs(later, cohort.seed)
    in_train = (patients["split"] == "train").to_numpy()
    percentiles = percentiles_of(labs, labs[in_train])
    tasks = state.task_labels(patients, cohort.seed)
    itemids = [str(lab.itemid) for lab in LABS]
    ids = 10_000_001 + 3 * np.arange(n)
    table = pd.DataFrame({"subject_id": ids, "hadm_id": ids + 10_000_000})
    table["cxr_path"] = [mimic_cxr_path(i, i + 40_000_000) for i in ids]
    table["ecg_path"] = [f"files/p{i // 10**4}/p{i}/s{i + 3 * 10**7}/{i + 3 * 10**7}" for i in ids]
    table = pd.concat(
        [
            table,
            pd.DataFrame(labs.round(3), columns=itemids),
            pd.DataFrame(percentiles, columns=[f"{i}_percentile" for i in itemids]),
        ],
        axis=1,
    )
    average = np.nanmean(percentiles[in_train], axis=0)
    rng = np.random.default_rng([cohort.seed, 42])
    for split, source in {
        "train": "train", "val": "val", "val_retrieval": "val", "test": "test"
    }.items():  # fmt: skip
        members = np.flatnonzero(patients["split"] == source)
        picked = np.arange(len(members))
        admitted = table.iloc[members]
        if split in ("val_retrieval", "test"):
            picked, query = _candidates(len(members), rng)
            admitted = admitted.iloc[picked].assign(
                label_hadm_id=table["hadm_id"].to_numpy()[members][query],
                label=(picked == query).astype(int),
            )
        admitted.to_csv(root / f"{split}.csv", index=False)
        folder = root / "data_npy" / split
        folder.mkdir(parents=True)
        rows = members[picked]
        arrays = {
            "labs_percentiles": np.where(np.isnan(percentiles), average, percentiles)[rows].astype(
                np.float32
            ),
            "labs_missingness": (~np.isnan(labs))[rows].astype(np.int64),
            "hadm_id": admitted["hadm_id"].to_numpy(),
        }
        arrays |= {c: admitted[c].to_numpy() for c in ("label_hadm_id", "label") if c in admitted}
        for name, array in arrays.items():
            np.save(folder / f"{name}_{split}.npy", array)
        truth = truth_table(patients.iloc[rows]).assign(lag_days=days[rows])
        truth.insert(0, "hadm_id", admitted["hadm_id"].to_numpy())
        truth = truth.join(tasks.iloc[rows].reset_index(drop=True))
        truth.to_csv(folder / "truth.csv", index=False)
        # A seed of its own: the rows of each split start at 0, and so would their noise.
        own = replace(cohort, seed=seed_of(cohort.seed, source))
        pictured, recorded = patients.iloc[members], later.iloc[members]
        _write_pair_arrays(folder, split, pictured, recorded, picked, own)


def _candidates(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a retrieval table as (candidate, query): n true pairs, then nine others a query."""
    others = [rng.choice(n - 1, CANDIDATES - 1, replace=False) for _ in range(n)]
    others = np.stack([o + (o >= query) for query, o in enumerate(others)]).ravel()
    queries = np.arange(n)
    return np.concatenate([queries, others]), np.concatenate(
        [queries, np.repeat(queries, CANDIDATES - 1)]
    )


def _write_pair_arrays(
    folder: Path, split: str, patients: pd.DataFrame, later: pd.DataFrame, picked: np.ndarray,
    cohort: Cohort,
) -> None:  # fmt: skip
    """X-rays of `patients[picked]` and ECGs of the same `later`; each patient is rendered once."""
    size, samples = cohort.image_size * 10 // 7, cohort.ecg_hz * 10
    shape = {"cxr": (3, size, size), "ecg": (1, samples, 12)}
    cxr, ecg = (
        create_array(folder / f"{name}_{split}.npy", np.float32, (len(picked), *shape[name]))
        for name in ("cxr", "ecg")
    )
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    for rows, images, _ in cohort.xrays(patients, size):
        signals = render_ecgs(later.iloc[rows], cohort.ecg_hz, cohort.seed + int(rows[0]))
        signals = signals.transpose(0, 2, 1)
        low = signals.min(axis=(1, 2), keepdims=True)
        high = signals.max(axis=(1, 2), keepdims=True)
        signals = 2 * (signals - low) / (high - low) - 1
        for target in np.flatnonzero((picked >= rows[0]) & (picked <= rows[-1])):
            row = picked[target] - rows[0]
            grey = images[row].astype(np.float32)[None] / 255
            cxr[target] = (grey - mean) / std
            ecg[target, 0] = signals[row]
            cohort.bar.update()
    cxr.flush()
    ecg.flush()
