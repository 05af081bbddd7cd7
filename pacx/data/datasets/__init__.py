"""One short reader a data set; all return the same validated table.

Each module's `read` takes the data set's folder and, where the paper splits by image, the policy.
It raises `PacxError` where a file, a column or a mask is missing, or a value is not as documented.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from pacx.data.datasets import (
    actualmed,
    chestx6,
    chexchonet,
    chexpert,
    covid_qu_ex,
    cxl_seg,
    medmod,
    nih_14,
    phantom_truth,
    qata_cov19,
    tb,
    vindr_cxr,
)
from pacx.data.datasets.symile_mimic import read_patients
from pacx.data.splits import SAME_PATIENTS_AS_SYMILE, SplitPolicy
from pacx.data.table import SPLITS, Dataset
from pacx.errors import PacxError

_READERS: dict[str, Callable[..., Dataset]] = {
    "chexpert": chexpert.read,
    "tb": tb.read,
    "chexchonet": chexchonet.read,
    "chestx6": chestx6.read,
    "vindr-cxr": vindr_cxr.read,
    "nih-14": nih_14.read,
    "medmod": medmod.read,
    "covid-qu-ex": covid_qu_ex.read,
    "qata-cov19": qata_cov19.read,
    "cxl-seg": cxl_seg.read,
    "actualmed": actualmed.read,
    "phantom-truth": phantom_truth.read,
}

#: All data sets with X-rays; Symile-MIMIC is arrays, read by `symile_mimic.load_pairs`.
DATASETS = ("symile-mimic", *_READERS)

#: Data sets that ship without a split (or without a validation split) and that the paper deals
#: out by image. All others have one split, whatever the policy.
SPLIT_BY_IMAGE_IN_PAPER = ("tb", "chexchonet", "nih-14", "medmod", "qata-cov19")


def load_dataset(name: str, data_root: Path, split: SplitPolicy = "patient") -> Dataset:
    """Read a data set from `data_root/<name>`.

    Args:
        name: Of the data set.
        data_root: Folder of all data sets.
        split: `patient` keeps a patient's images together; `paper` splits by image where the
            paper does, and `Dataset.patients_in_two_splits` says what that leaks.

    Raises:
        PacxError: The name is unknown, the folder is missing, or its content is not as documented.

    Example:
        >>> train = load_dataset("nih-14", run.data_root).split("train")
    """
    if name not in _READERS:
        raise PacxError(f"There is no data set '{name}'. Choose one of {', '.join(_READERS)}.")
    root = data_root / name
    if not root.is_dir():
        raise PacxError(
            f"{root} is missing. Put the data set there, or make phantoms: "
            f"pacx phantom --out {data_root}"
        )
    return read_folder(name, root, split)


def read_folder(name: str, root: Path, split: SplitPolicy = "patient") -> Dataset:
    """Read a data set from its own folder, whatever that is called; see `load_dataset`."""
    if split not in ("patient", "paper"):
        raise PacxError(f"There is no split '{split}'. Choose 'patient' or 'paper'.")
    read = _READERS[name]
    return read(root, split) if name in SPLIT_BY_IMAGE_IN_PAPER else read(root)


def load_mimic_populations(data_root: Path) -> dict[str, pd.DataFrame]:
    """Who is in the data sets of Symile-MIMIC's hospital, those that are there.

    Returns:
        Data set -> table for `pacx.data.splits.audit_overlaps`.

    Raises:
        PacxError: A table is missing or malformed.
    """
    populations = {}
    if (data_root / "symile-mimic").is_dir():
        parts = [read_patients(data_root, split).assign(split=split) for split in SPLITS]
        populations["symile-mimic"] = pd.concat(parts, ignore_index=True)
    for name in SAME_PATIENTS_AS_SYMILE:
        if (data_root / name).is_dir():
            populations[name] = load_dataset(name, data_root).table
    return populations
