"""Symile-MIMIC 1.0.0 (Saporta et al. 2024): X-ray, ECG and labs of one admission, as arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm

from pacx.constants import IMAGENET_MEAN, IMAGENET_STD, LABS, LEADS_ECGFOUNDER, LEADS_MIMIC
from pacx.data.ecg import preprocess, reorder
from pacx.data.ecg_quality import lead_faults, too_few_leads
from pacx.data.table import as_ids, read_csv
from pacx.errors import PacxError
from pacx.files import cached_array, content_of

SECONDS = 10.0


class Pairs(NamedTuple):
    """One split of paired admissions; row `i` of every part is the same admission.

    Attributes:
        table: `patient` (subject_id) and `study` (hadm_id) as text, and the columns of the CSV
            file.
        cxr: (N, H, W) uint8.
        ecg: (N, 12, T) float32, preprocessed, leads in ECGFounder's order.
        percentiles: (N, 50) float32 in [0, 1]; 0 where not observed.
        observed: (N, 50) float32, 1 = measured.
    """

    table: pd.DataFrame
    cxr: np.ndarray
    ecg: np.ndarray
    percentiles: np.ndarray
    observed: np.ndarray


def load_pairs(data_root: Path, split: str, size: int, cache: Path) -> Pairs:
    """Read one split of `data_root/symile-mimic`.

    Of the ten candidates of a test query only the true pair is kept (`label` 1). The stored
    `labs_missingness` is 1 where a lab was measured, and missing percentiles hold the training
    mean; both traps end here. A pair is left out if six leads or more of its ECG are
    missing or flat; how many have other faults is printed, see `pacx.data.ecg_quality`.

    Args:
        data_root: Folder of all data sets.
        split: `train`, `val` or `test`.
        size: Pixels a side of the X-rays that are returned.
        cache: Folder of decoded arrays.

    Raises:
        PacxError: A file is missing, an array's shape or row count does not fit, or a value is
            not finite.
    """
    root = data_root / "symile-mimic"
    stored = open_split(root, split)
    cxr, ecg = stored.cxr, stored.ecg
    arrays = sorted((root / "data_npy" / split).glob("*.npy"))
    facts = [(file.name, content_of(file, cache)) for file in arrays]
    key = split, cxr.shape, ecg.shape, facts
    hz = ecg.shape[2] / SECONDS
    faults = cached_array(
        cache, ("ecg faults", *key, stored.rows), (len(stored.rows), 12), np.uint8,
        lambda out: _fill(
            out, ecg, stored.rows, "ecg", lambda x: lead_faults(x.transpose(0, 2, 1), hz)
        ),
    )  # fmt: skip
    stored = _without_dead_ecgs(stored, faults, split)
    rows = stored.rows
    key = *key, rows

    def filtered(signals: np.ndarray) -> np.ndarray:
        ordered = reorder(signals.transpose(0, 2, 1), LEADS_MIMIC, LEADS_ECGFOUNDER)
        return preprocess(ordered, hz)

    return Pairs(
        stored.table,
        cached_array(
            cache, ("cxr", *key, size), (len(rows), size, size), np.uint8,
            lambda out: _fill(out, cxr, rows, "cxr", lambda grey: to_grey(grey, size)),
        ),
        cached_array(
            cache, ("ecg", *key), (len(rows), 12, ecg.shape[2]), np.float32,
            lambda out: _fill(out, ecg, rows, "ecg", filtered),
        ),
        np.where(stored.observed == 1, stored.percentiles, 0).astype(np.float32),
        stored.observed,
    )  # fmt: skip


class StoredSplit(NamedTuple):
    """One split as it lies on disk; `rows` are the places of its M true pairs in the arrays.

    Attributes:
        table: (M) rows with `patient`, `study` and the columns of the CSV file.
        rows: (M,) of the N rows in the arrays.
        percentiles: (M, 50) float32; the training mean where not observed.
        observed: (M, 50) float32, 1 = measured.
        cxr: (N, 3, H, W) float32, ImageNet-normalised, memory map.
        ecg: (N, 1, T, 12) float32 in [-1, 1], memory map.
    """

    table: pd.DataFrame
    rows: np.ndarray
    percentiles: np.ndarray
    observed: np.ndarray
    cxr: np.ndarray
    ecg: np.ndarray


def open_split(root: Path, split: str) -> StoredSplit:
    """Open and check one split of the folder `root`; the large arrays stay on disk.

    Raises:
        PacxError: A file is missing, an array's shape, row count or row order does not fit, a
            percentile is outside [0, 1], or `labs_missingness` looks inverted.
    """
    everyone = _read_patients(root, split)
    rows = np.arange(len(everyone))
    if split == "test":
        rows = np.flatnonzero(read_csv(root / "test.csv", ["label"])["label"] == 1)
    if not len(rows):
        raise PacxError(f"{root / f'{split}.csv'} lists no pair.")

    def stored(name: str, *shape: int | None) -> np.ndarray:
        path = root / "data_npy" / split / f"{name}_{split}.npy"
        return _open_array(path, len(everyone), shape)

    if not np.array_equal(as_ids(pd.Series(stored("hadm_id"))), everyone["study"]):
        raise PacxError(f"{root}: hadm_id_{split}.npy and {split}.csv are not in the same order.")
    percentiles = stored("labs_percentiles", len(LABS))[rows].astype(np.float32)
    observed = stored("labs_missingness", len(LABS))[rows].astype(np.float32)
    if not np.isin(observed, (0, 1)).all():
        raise PacxError(f"{root}: labs_missingness_{split}.npy holds values other than 0 and 1.")
    bad = (observed == 1) & ~((percentiles >= 0) & (percentiles <= 1))
    if bad.any():
        row, lab = np.argwhere(bad)[0]
        raise PacxError(
            f"{root}: labs_percentiles_{split}.npy, row {rows[row]}, lab {lab} is "
            f"{percentiles[row, lab]}; percentiles of observed labs are in [0, 1]."
        )
    if looks_inverted(percentiles, observed):
        raise PacxError(
            f"{root}: labs_missingness_{split}.npy looks inverted: labs marked 1 hold one value, "
            "the training mean, and labs marked 0 differ. In Symile-MIMIC 1 means measured; store "
            "1 - labs_missingness."
        )
    cxr, ecg = stored("cxr", 3, None, None), stored("ecg", 1, None, 12)
    table = everyone.iloc[rows].reset_index(drop=True)
    return StoredSplit(table, rows, percentiles, observed, cxr, ecg)


def looks_inverted(percentiles: np.ndarray, observed: np.ndarray) -> bool:
    """Whether `observed` says 0 where it should say 1.

    A lab that was not measured holds the training mean, so a column's values at `observed` 0 are
    all equal, and those at 1 are not. Each lab with three values on both sides votes.

    Args:
        percentiles: (N, L).
        observed: (N, L), 0 or 1.
    """
    upright = inverted = 0
    for column, measured in zip(percentiles.T, observed.T == 1, strict=True):
        if min(measured.sum(), (~measured).sum()) < 3:
            continue
        at_1, at_0 = np.ptp(column[measured]) < 1e-6, np.ptp(column[~measured]) < 1e-6
        upright += at_0 and not at_1
        inverted += at_1 and not at_0
    return inverted > upright


def read_patients(data_root: Path, split: str) -> pd.DataFrame:
    """Rows of a split's CSV file with `patient` and `study` as text.

    Raises:
        PacxError: The table is missing or malformed.
    """
    return _read_patients(data_root / "symile-mimic", split)


def _read_patients(root: Path, split: str) -> pd.DataFrame:
    path = root / f"{split}.csv"
    ids = ["subject_id", "hadm_id"]
    table = read_csv(path, ids, ids)
    if table[ids].isna().any(axis=None):
        raise PacxError(f"{path}: a row has no subject_id or no hadm_id.")
    return table.assign(patient=as_ids(table["subject_id"]), study=as_ids(table["hadm_id"]))


def _open_array(path: Path, rows: int, shape: tuple[int | None, ...]) -> np.ndarray:
    if not path.is_file():
        raise PacxError(f"{path} is missing; Symile-MIMIC ships it in data_npy.")
    try:
        # Unlike np.load, it takes a .npy file only: neither a zip archive nor a pickle.
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, OverflowError) as error:
        raise PacxError(f"{path} is not a readable .npy array: {error}") from error
    fits = len(array.shape) == 1 + len(shape) and all(
        want in (None, got) for want, got in zip(shape, array.shape[1:], strict=True)
    )
    if array.shape[:1] != (rows,) or not fits:
        wanted = ", ".join("any" if s is None else str(s) for s in (rows, *shape))
        raise PacxError(f"{path} has shape {array.shape}; expected ({wanted}).")
    return array


def to_grey(cxr: np.ndarray, size: int) -> np.ndarray:
    """Undo Symile's ImageNet normalisation, so that no image is normalised twice.

    Args:
        cxr: (N, H, W) float32, the first of the three equal channels.
        size: Pixels a side of the result.

    Returns:
        (N, size, size) uint8.
    """
    grey = torch.from_numpy(cxr)[:, None] * IMAGENET_STD[0] + IMAGENET_MEAN[0]
    grey = F.interpolate(grey, (size, size), mode="bilinear", antialias=True)
    return grey[:, 0].mul(255).round().clamp(0, 255).byte().numpy()


def _without_dead_ecgs(stored: StoredSplit, faults: np.ndarray, split: str) -> StoredSplit:
    dead = too_few_leads(faults)
    spoilt = (faults > 0).any(axis=1) & ~dead
    if dead.any():
        print(f"symile-mimic, {split}: {dead.sum()} pairs are left out, their ECGs are flat.")
    if spoilt.any():
        print(
            f"symile-mimic, {split}: {spoilt.sum()} ECGs have a flat or clipped lead and are kept, "
            "as in the paper; `pacx data check` names them."
        )
    if dead.all():
        raise PacxError(f"symile-mimic, {split}: all ECGs are flat.")
    kept = {name: getattr(stored, name)[~dead] for name in ("rows", "percentiles", "observed")}
    return stored._replace(table=stored.table[~dead].reset_index(drop=True), **kept)


def _fill(
    out: np.ndarray,
    stored: np.ndarray,
    rows: np.ndarray,
    modality: str,
    prepare: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Fill (M, ...) block by block with the prepared first channel of the rows of (N, C, ...)."""
    for start in tqdm(range(0, len(rows), 256), f"prepare paired {modality}", leave=False):
        block = rows[start : start + 256]
        values = np.array(stored[block, 0])
        finite = np.isfinite(values).all(axis=(1, 2))
        if not finite.all():
            row = block[np.argmin(finite)]
            raise PacxError(f"{modality} array, row {row}: a value is not finite.")
        out[start : start + 256] = prepare(values)
