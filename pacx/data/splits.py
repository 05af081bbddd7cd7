"""Splits by patient, and the audit that no patient is where they must not be."""

import numpy as np
import pandas as pd

from pacx.data.table import Dataset
from pacx.errors import PacxError


def split_by_patient(patients: pd.Series, shares: dict[str, float], seed: int = 42) -> pd.Series:
    """Give every patient, with all images, to one split.

    Args:
        patients: (N,) patient of each row.
        shares: Share of the patients for each split; sums to 1.
        seed: Of the shuffle.

    Returns:
        (N,) split of each row.
    """
    unique = np.sort(patients.astype(str).unique())
    order = np.random.default_rng(seed).permutation(len(unique))
    edges = np.round(np.cumsum(list(shares.values())) * len(unique)).astype(int)[:-1]
    split_of = np.empty(len(unique), dtype=object)
    for name, members in zip(shares, np.split(order, edges), strict=True):
        split_of[members] = name
    return patients.astype(str).map(dict(zip(unique, split_of, strict=True)))


def patients_in_two_splits(dataset: Dataset) -> list[str]:
    """Patients of a data set who are in more than one split, sorted."""
    splits = dataset.table.groupby("patient")["split"].nunique()
    return sorted(splits.index[splits > 1])


def refuse_leaks(distilled: pd.DataFrame, evaluated: Dataset) -> None:
    """Refuse a probe on patients whose physiology was distilled, or who are in two splits.

    Args:
        distilled: Table of the pairs used in stage 2, with a column `patient`.
        evaluated: The benchmark.

    Raises:
        PacxError: A patient is where they must not be.
    """
    twice = patients_in_two_splits(evaluated)
    if twice:
        raise PacxError(
            f"{evaluated.name}: {len(twice)} patients are in more than one split. "
            "Split by patient, see pacx.data.splits.split_by_patient."
        )
    shared = set(distilled["patient"]) & set(evaluated.table["patient"])
    if shared and evaluated.name in SAME_PATIENTS_AS_SYMILE:
        raise PacxError(
            f"{evaluated.name}: {len(shared)} patients were in the distillation of this run. "
            "Remove them: their physiology is already in the encoder."
        )


#: Data sets of the hospital of Symile-MIMIC, where equal numbers mean the same person.
SAME_PATIENTS_AS_SYMILE = ("medmod", "cxl-seg")
