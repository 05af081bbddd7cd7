"""Splits by patient, the paper's by image, and the audit that no patient is in two places."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from pacx.data.table import SPLITS, Dataset, as_ids
from pacx.errors import PacxError

#: How rows are dealt out where a data set ships without a split: `patient` keeps a patient's
#: images together, `paper` repeats the paper's split by image.
SplitPolicy = Literal["patient", "paper"]
SEED = 42  # of every split; the paper's


def make_splits(
    patients: pd.Series,
    shares: dict[str, float],
    policy: SplitPolicy = "patient",
    strata: pd.Series | None = None,
) -> pd.Series:
    """Deal rows out to splits, by patient or as the paper does: by image, whosever it is.

    Shares, seed and stratification are the paper's; which image falls where also depends on the
    order of the table and on scikit-learn, so single images may differ from the authors' split.

    Args:
        patients: (N,) patient of each row.
        shares: Share of each split, the rest's name first; sums to 1.
        policy: `patient` or `paper`.
        strata: (N,) labels whose prevalence the paper keeps equal between splits; by patient they
            are not looked at.

    Returns:
        (N,) split of each row.

    Raises:
        PacxError: A stratum has too few rows to be shared out.
    """
    if policy == "patient":
        return split_by_patient(patients, shares)
    first, *others = shares
    split = np.full(len(patients), first, dtype=object)
    rest, left = np.arange(len(patients)), 1.0
    for name in reversed(others):
        groups = None if strata is None else strata.to_numpy()[rest]
        try:
            rest, members = train_test_split(
                rest, test_size=shares[name] / left, random_state=SEED, stratify=groups
            )
        except ValueError as error:
            raise PacxError(
                f"{len(rest)} images cannot be split by image for '{name}': {error} "
                "Use split='patient'."
            ) from error
        split[members] = name
        left -= shares[name]
    return pd.Series(split, index=patients.index)


def split_by_patient(patients: pd.Series, shares: dict[str, float], seed: int = SEED) -> pd.Series:
    """Give every patient, with all images, to one split.

    Args:
        patients: (N,) patient of each row.
        shares: Share of the patients for each split; sums to 1.
        seed: Of the shuffle.

    Returns:
        (N,) split of each row; NaN where no patient is named.

    Example:
        >>> split = split_by_patient(table["patient"], {"train": 0.8, "test": 0.2})
    """
    ids = as_ids(patients)
    unique = np.sort(ids.dropna().unique())
    order = np.random.default_rng(seed).permutation(len(unique))
    edges = np.round(np.cumsum(list(shares.values())) * len(unique)).astype(int)[:-1]
    split_of = np.empty(len(unique), dtype=object)
    for name, members in zip(shares, np.split(order, edges), strict=True):
        split_of[members] = name
    return ids.map(dict(zip(unique, split_of, strict=True)))


def refuse_leaks(
    distilled: pd.DataFrame, evaluated: Dataset, hospital: str = "mimic", *, allow: bool = False
) -> None:
    """Refuse a probe on patients whose physiology was distilled, or who are in two splits.

    Args:
        distilled: Table of the pairs used in stage 2, with a column `patient`.
        evaluated: The benchmark.
        hospital: Of the distilled; patients of another one are other people.
        allow: Waiver: print what leaks and go on, to measure what a leak is worth.

    Raises:
        PacxError: A patient is where they must not be, and there is no waiver.
    """
    name, leaks = evaluated.name, []
    if twice := evaluated.patients_in_two_splits:
        leaks.append(
            f"{name}: {len(twice)} patients are in more than one split. "
            "Set `benchmark_split: patient` in the profile; a split that is shipped so must be "
            "corrected in the data set's table."
        )
    shared = set(as_ids(distilled["patient"])) & set(evaluated.table["patient"])
    if shared and evaluated.hospital == hospital:
        leaks.append(
            f"{name}: {len(shared)} patients were in the distillation of this run: their "
            "physiology is already in the encoder. Set `leaks: remove` in the profile. (Are they "
            "other people with equal numbers, in data of your own? Name another `hospital`.)"
        )
    if leaks and not allow:
        raise PacxError(" ".join(leaks))
    for leak in leaks:
        print(f"WAIVED, the numbers below are not to be trusted: {leak}")


def drop_patients(dataset: Dataset, patients: pd.Series) -> Dataset:
    """The data set without some patients, such as those of another data set; prints how many.

    Raises:
        PacxError: No patient is left.
    """
    gone = set(as_ids(patients))
    table = dataset.table[~dataset.table["patient"].isin(gone)].reset_index(drop=True)
    if table.empty:
        raise PacxError(f"{dataset.name}: no patient is left without {len(gone)} patients.")
    left_out = dataset.table["patient"].nunique() - table["patient"].nunique()
    print(f"{dataset.name}: {left_out} patients who were distilled are left out.")
    return replace(dataset, table=table)


def audit_overlaps(populations: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Count who is in two data sets of one hospital.

    Args:
        populations: Data set -> table with `split`, `patient` and, where it is known, `hadm_id`,
            see `pacx.data.datasets.load_populations`.

    Returns:
        One row a pair of data sets, split of the first, and key: `first`, `split`, `second`, `by`
        (subject or admission), `in_first`, `in_second`, `shared` (numbers of different keys).
        A pair whose tables do not both name admissions has no such rows.
    """
    rows = []
    for (first, left), (second, right) in combinations(populations.items(), 2):
        for by, column in (("subject", "patient"), ("admission", "hadm_id")):
            if column not in left or column not in right:
                continue
            there = set(as_ids(right[column]).dropna())
            for split in [s for s in SPLITS if s in set(left["split"])]:
                here = set(as_ids(left.loc[left["split"] == split, column]).dropna())
                rows.append((first, split, second, by, len(here), len(there), len(here & there)))
    columns = ["first", "split", "second", "by", "in_first", "in_second", "shared"]
    return pd.DataFrame(rows, columns=columns)
