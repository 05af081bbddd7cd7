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
    own,
    phantom_truth,
    qata_cov19,
    symile_mimic,
    tb,
    vindr_cxr,
)
from pacx.data.datasets.ecg_archive import archive_rate
from pacx.data.datasets.symile_mimic import Pairs
from pacx.data.splits import SplitPolicy
from pacx.data.table import HOSPITALS, SPLITS, TERMS, Dataset, Terms
from pacx.errors import NoDataError, PacxError
from pacx.profile import Modality
from pacx.run import Run

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
        name: Of a public data set, or of one of the reader's own; see `pacx.data.datasets.own`.
        data_root: Folder of all data sets.
        split: `patient` keeps a patient's images together; `paper` splits by image where the
            paper does, and `Dataset.patients_in_two_splits` says what that leaks.

    Raises:
        PacxError: The name is unknown, the folder is missing, or its content is not as documented.

    Example:
        >>> train = load_dataset("nih-14", run.data_root).split("train")
    """
    root = data_root / name
    if name not in _READERS and not own.is_own(root):
        raise PacxError(
            f"There is no data set '{name}'. Choose one of {', '.join(_READERS)}, or describe your "
            f"own in {root / own.ABOUT}."
        )
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
    read = _READERS.get(name, own.read)
    return read(root, split) if name in SPLIT_BY_IMAGE_IN_PAPER else read(root)


def terms_of(name: str, data_root: Path) -> Terms:
    """Under which terms a data set is given out."""
    return TERMS[name] if name in TERMS else own.read_about(data_root / name).terms


def hospital_of(name: str, data_root: Path) -> str:
    """Whose patients a data set has: within one hospital equal numbers mean the same person."""
    if name in TERMS:
        return HOSPITALS.get(name, name)
    return own.read_about(data_root / name).hospital


def load_pairs(run: Run, split: str) -> Pairs:
    """Read one split of the pairs that the profile names; see the two readers.

    Raises:
        PacxError: A file is missing, or its content is not as documented.
    """
    root, size = run.data_root / run.profile.pairs, run.profile.vit.image_size
    if run.profile.pairs in TERMS:
        return symile_mimic.load_pairs(run.data_root, split, size, run.cache)
    hz = ecg_rate(run) if "ecg" in teachers_of(run) else None
    return own.load_pairs(root, split, size, run.cache, hz)


def paired_patients(run: Run, split: str) -> pd.DataFrame:
    """`patient` and `study` of the pairs' split; empty where there are no pairs to distil.

    Raises:
        PacxError: A table is missing or malformed.
    """
    name, root = run.profile.pairs, run.data_root / run.profile.pairs
    if not _is_there(run, name, own.PAIRS) and not any(run.artefacts.glob("pacx*")):
        return pd.DataFrame({"patient": [], "study": []}, dtype=str)
    if name in TERMS:
        return symile_mimic.read_patients(run.data_root, split)
    table = own.read_pairs(root)
    return table[table["split"] == split]


def ecg_rate(run: Run) -> float | None:
    """What the ECG teacher reads, Hz; None where there is neither a teacher nor its archive."""
    return archive_rate(run.data_root) if run.profile.ecg.weights is None else 500.0


def teachers_of(run: Run) -> tuple[Modality, ...]:
    """The teachers of stage 2: those of the profile that the data allow."""
    return tuple(teacher for teacher in ("ecg", "labs") if teacher not in lacking(run))


def lacking(run: Run) -> dict[str, str]:
    """Stages (`mae`, `ecg`, `labs`, `pacx`) that the run cannot train, and what each lacks.

    Raises:
        PacxError: The pairs are malformed.
    """
    profile, root, lacks = run.profile, run.data_root, {}
    if not _is_there(run, profile.pretraining, own.TABLE):
        lacks["mae"] = f"X-rays in {root / profile.pretraining}"
    folder, paired = root / profile.pairs, ()
    if _is_there(run, profile.pairs, own.PAIRS):
        paired = ("ecg", "labs") if profile.pairs in TERMS else own.modalities_of(folder)
    for teacher in ("ecg", "labs"):
        if teacher not in profile.teachers:
            lacks[teacher] = "a place among the profile's `teachers`"
        elif teacher not in paired:
            lacks[teacher] = f"{'ECGs' if teacher == 'ecg' else 'blood tests'} paired in {folder}"
        elif teacher == "ecg" and not run.is_phantom and ecg_rate(run) is None:
            archive = root / "ecg-archive"
            lacks[teacher] = f"ECGs to learn from: give {archive}, or name `ecg: weights`"
    if "mae" in lacks or {"ecg", "labs"} <= set(lacks):
        lacks["pacx"] = "an encoder to start from" if "mae" in lacks else "a teacher"
    return lacks


def require_data(run: Run, stage: str) -> None:
    """Raise `NoDataError` where `lacking` says that the run cannot train a stage."""
    if lack := lacking(run).get(stage):
        raise NoDataError(f"This run cannot train '{stage}' for want of {lack}.")


def _is_there(run: Run, name: str, file: str) -> bool:
    """Whether a data set is there, one in the layout of own data with this file."""
    root = run.data_root / name
    if name in TERMS:
        return root.is_dir() or run.is_phantom
    return own.is_own(root) and (root / file).is_file()


def load_populations(run: Run) -> dict[str, pd.DataFrame]:
    """Who is in the data sets of the pairs' hospital, those that are there, the pairs first.

    Returns:
        Data set -> table for `pacx.data.splits.audit_overlaps`.

    Raises:
        PacxError: A table is missing or malformed.
    """
    root, pairs = run.data_root, run.profile.pairs
    parts = [paired_patients(run, split).assign(split=split) for split in SPLITS]
    populations = {pairs: pd.concat(parts, ignore_index=True)}
    for name in dict.fromkeys([*HOSPITALS, *run.profile.benchmarks]):
        there = name not in ("symile-mimic", pairs) and (root / name).is_dir()
        if there and hospital_of(name, root) == hospital_of(pairs, root):
            populations[name] = load_dataset(name, root).table
    return populations
