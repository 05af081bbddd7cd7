"""Symile-MIMIC 1.0.0 (Saporta et al. 2024): X-ray, ECG and labs of one admission, as arrays."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm

from pacx.constants import LEADS_ECGFOUNDER, LEADS_MIMIC
from pacx.data.cache import cached_array
from pacx.data.ecg import preprocess, reorder
from pacx.data.images import IMAGENET_MEAN, IMAGENET_STD
from pacx.data.table import read_csv
from pacx.errors import PacxError

SECONDS = 10.0


class Pairs(NamedTuple):
    """One split of paired admissions; row `i` of every part is the same admission.

    Attributes:
        table: `patient` (subject_id) and `study` (hadm_id).
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
    mean; both traps end here.

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
    everyone = read_patients(data_root, split)
    rows = np.arange(len(everyone))
    if split == "test":
        rows = np.flatnonzero(read_csv(root / "test.csv", ["label"])["label"] == 1)

    def stored(name: str, *shape: int | None) -> np.ndarray:
        path = root / "data_npy" / split / f"{name}_{split}.npy"
        return _open_array(path, len(everyone), shape)

    percentiles = stored("labs_percentiles", 50)[rows].astype(np.float32)
    observed = stored("labs_missingness", 50)[rows].astype(np.float32)
    if not np.isin(observed, (0, 1)).all():
        raise PacxError(f"{root}: labs_missingness_{split}.npy holds values other than 0 and 1.")
    bad = (observed == 1) & ~((percentiles >= 0) & (percentiles <= 1))
    if bad.any():
        row, lab = np.argwhere(bad)[0]
        raise PacxError(
            f"{root}: labs_percentiles_{split}.npy, row {rows[row]}, lab {lab} is "
            f"{percentiles[row, lab]}; percentiles of observed labs are in [0, 1]."
        )
    cxr, ecg = stored("cxr", 3, None, None), stored("ecg", 1, None, 12)
    key = f"{root.resolve()} {split} {cxr.shape} {ecg.shape} {_stamp(root, split)}"
    return Pairs(
        everyone.iloc[rows].reset_index(drop=True),
        cached_array(
            cache, f"cxr {key} {size}", (len(rows), size, size), np.uint8,
            lambda grey: _to_grey(cxr, rows, size, grey),
        ),
        cached_array(
            cache, f"ecg {key}", (len(rows), 12, ecg.shape[2]), np.float32,
            lambda filtered: _prepare_ecgs(ecg, rows, filtered),
        ),
        np.where(observed == 1, percentiles, 0).astype(np.float32),
        observed,
    )


def read_patients(data_root: Path, split: str) -> pd.DataFrame:
    """Rows of a split's CSV file with `patient` and `study` as text.

    Raises:
        PacxError: The table is missing or malformed.
    """
    path = data_root / "symile-mimic" / f"{split}.csv"
    table = read_csv(path, ["subject_id", "hadm_id"])
    return table.assign(
        patient=table["subject_id"].astype(str), study=table["hadm_id"].astype(str)
    )


def _open_array(path: Path, rows: int, shape: tuple[int | None, ...]) -> np.ndarray:
    if not path.is_file():
        raise PacxError(f"{path} is missing; Symile-MIMIC ships it in data_npy.")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise PacxError(f"{path} is not a readable .npy array: {error}") from error
    fits = len(array.shape) == 1 + len(shape) and all(
        want in (None, got) for want, got in zip(shape, array.shape[1:], strict=True)
    )
    if array.shape[:1] != (rows,) or not fits:
        wanted = ", ".join("any" if s is None else str(s) for s in (rows, *shape))
        raise PacxError(f"{path} has shape {array.shape}; expected ({wanted}).")
    return array


def _stamp(root: Path, split: str) -> str:
    files = sorted((root / "data_npy" / split).glob("*.npy"))
    facts = "".join(f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files)
    return hashlib.sha256(facts.encode()).hexdigest()


def _to_grey(cxr: np.ndarray, rows: np.ndarray, size: int, grey: np.ndarray) -> None:
    """Undo Symile's ImageNet normalisation, so that no image is normalised twice."""
    for start in tqdm(range(0, len(rows), 256), "decode paired X-rays", leave=False):
        part = torch.from_numpy(np.array(cxr[rows[start : start + 256], 0]))[:, None]
        if not torch.isfinite(part).all():
            raise PacxError(f"cxr array: a value near row {rows[start]} is not finite.")
        part = F.interpolate(
            part * IMAGENET_STD[0] + IMAGENET_MEAN[0], (size, size), mode="bilinear", antialias=True
        )
        grey[start : start + 256] = part[:, 0].mul(255).round().clamp(0, 255).byte().numpy()


def _prepare_ecgs(ecg: np.ndarray, rows: np.ndarray, filtered: np.ndarray) -> None:
    hz = ecg.shape[2] / SECONDS
    for start in tqdm(range(0, len(rows), 256), "filter paired ECGs", leave=False):
        part = np.array(ecg[rows[start : start + 256], 0]).transpose(0, 2, 1)
        filtered[start : start + 256] = preprocess(
            reorder(part, LEADS_MIMIC, LEADS_ECGFOUNDER), hz
        )
