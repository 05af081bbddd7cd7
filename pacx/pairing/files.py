"""Paired admissions as the very files of Symile-MIMIC 1.0.0: tables, percentiles and arrays."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import ecdf
from torchvision.transforms.v2 import functional as vision
from tqdm import tqdm

from pacx.constants import CANDIDATES, LEADS_MIMIC
from pacx.data.ecg import read_ecg
from pacx.data.images import normalise, read_image
from pacx.errors import PacxError
from pacx.files import create_array, new_folder
from pacx.pairing.admissions import FINDINGS, ITEMS, inside, pair_admissions

#: Admissions of Symile-MIMIC's splits; other numbers of pairs are divided in this proportion.
SIZES = {"train": 10_000, "val": 750, "test": 464}
PIXELS = 320
PERCENTILES = tuple(f"{item}_percentile" for item in ITEMS)


def pair(
    mimic_iv: Path, mimic_cxr: Path, mimic_ecg: Path, out: Path, memory: str = "4GB", seed: int = 42
) -> None:
    """Make Symile-MIMIC from raw MIMIC: `pair_admissions`, then `write_symile_mimic`.

    `out` appears when it is complete. All pairs, before they are divided, are in its
    `symile_mimic_data.csv`.

    Args:
        mimic_iv: Folder of MIMIC-IV.
        mimic_cxr: Folder of MIMIC-CXR-JPG.
        mimic_ecg: Folder of MIMIC-IV-ECG.
        out: New folder; call it `symile-mimic` inside `data_root`.
        memory: What the pairing may take, such as `4GB`; beyond that it writes to disk.
        seed: Of the division into splits and of the drawn candidates.

    Raises:
        PacxError: `out` is not empty or cannot be written, or what the two functions raise.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PacxError(f"{out} exists and is not an empty folder; name a new one with --out.")
    try:
        with new_folder(out, replace=True) as partial:
            pairs = pair_admissions(mimic_iv, mimic_cxr, mimic_ecg, memory, scratch=partial)
            pairs.to_csv(partial / "symile_mimic_data.csv", index=False)
            write_symile_mimic(pairs, mimic_cxr, mimic_ecg, partial, seed)
    except OSError as error:
        raise PacxError(
            f"{out} cannot be written: {error}. Free some space there, or name another disk with "
            "--out."
        ) from error


def write_symile_mimic(
    pairs: pd.DataFrame, mimic_cxr: Path, mimic_ecg: Path, root: Path, seed: int
) -> None:
    """Write `<split>.csv` and `data_npy/<split>/` for train, val, val_retrieval and test.

    X-rays are resized to 320 pixels on the shorter side, cropped at the centre and
    ImageNet-normalised: (N, 3, 320, 320) float32. ECGs are scaled to [-1, 1] over the whole record:
    (N, 1, T, 12) float32, leads in MIMIC's order. `labs_percentiles` (N, 50) float32 are of the
    training split's empirical CDF and hold its mean where nothing was measured;
    `labs_missingness` (N, 50) int64 is 1 where the lab WAS measured. In `test` and
    `val_retrieval` every admission is a query with ten candidates: itself (label 1), and nine drawn
    others (label 0).

    Args:
        pairs: What `pair_admissions` returned.
        mimic_cxr: Folder of MIMIC-CXR-JPG.
        mimic_ecg: Folder of MIMIC-IV-ECG.
        root: Folder to write into.
        seed: Of splits and candidates.

    Raises:
        PacxError: There are too few pairs or too little disk; an X-ray or ECG cannot be read; or an
            ECG is constant or of another length than the rest.
    """
    split = split_patients(pairs, seed)
    pairs = pairs.join(lab_percentiles(pairs, split == "train"))
    mean = pairs.loc[split == "train", list(PERCENTILES)].mean().fillna(0)
    rng = np.random.default_rng([seed, 1])
    tables = {name: pairs[split == name] for name in SIZES}
    tables["val_retrieval"] = draw_candidates(tables["val"], rng)
    tables["test"] = draw_candidates(tables["test"], rng)
    first = pairs["ecg_path"].iloc[0]
    samples = read_ecg(inside(mimic_ecg, first), LEADS_MIMIC).signal.shape[1]
    signals = {}  # of all splits, so that a full disk is found before the first film is read
    for name, table in tables.items():
        columns = ["subject_id", "hadm_id", "cxr_path", *FINDINGS, "ecg_path", *ITEMS, *PERCENTILES]
        labels = [column for column in ("label_hadm_id", "label") if column in table]
        table[columns + labels].to_csv(root / f"{name}.csv", index=False)
        folder = root / "data_npy" / name
        folder.mkdir(parents=True)
        percentiles = table[list(PERCENTILES)]
        arrays = {
            "labs_percentiles": percentiles.fillna(mean).to_numpy(np.float32),
            "labs_missingness": percentiles.notna().to_numpy(np.int64),
        } | {column: table[column].to_numpy(np.int64) for column in ("hadm_id", *labels)}
        for array, values in arrays.items():
            np.save(folder / f"{array}_{name}.npy", values)
        shapes = {"cxr": (3, PIXELS, PIXELS), "ecg": (1, samples, 12)}
        signals[name] = [
            create_array(folder / f"{what}_{name}.npy", np.float32, (len(table), *shape))
            for what, shape in shapes.items()
        ]
    for name, (cxr, ecg) in signals.items():
        _write_signals(name, tables[name], cxr, ecg, mimic_cxr, mimic_ecg)


def split_patients(pairs: pd.DataFrame, seed: int) -> np.ndarray:
    """Name the split of every row, so that no patient is in two.

    Patients are shuffled; the first fill the test split, the next validation, the rest is for
    training. Both hold ten admissions at least: a query and its nine other candidates.

    Raises:
        PacxError: Nothing would be left for training.
    """
    counts = pairs["subject_id"].value_counts(sort=False).sort_index()
    counts = counts.sample(frac=1, random_state=seed)
    split, start = pd.Series("train", counts.index), 0
    for name in ("test", "val"):
        share = round(len(pairs) * SIZES[name] / sum(SIZES.values()))
        filled = counts.iloc[start:].cumsum()
        stop = start + int((filled < max(share, CANDIDATES)).sum()) + 1
        split.iloc[start:stop], start = name, stop
    if start >= len(counts):
        raise PacxError(
            f"{len(pairs)} pairs of {len(counts)} patients are too few: {CANDIDATES} admissions "
            "each are needed for test and validation, and others for training."
        )
    return pairs["subject_id"].map(split).to_numpy()


def lab_percentiles(pairs: pd.DataFrame, train: np.ndarray) -> pd.DataFrame:
    """Value of every lab in the training rows' empirical CDF, in (0, 1]; NaN = not measured.

    A lab that no training row has is NaN everywhere: there is nothing to rank it in.
    """
    columns = {}
    for item, name in zip(ITEMS, PERCENTILES, strict=True):
        values, trained = pairs[item].to_numpy(), pairs.loc[train, item].dropna()
        columns[name] = np.full(len(pairs), np.nan)
        if len(trained):
            measured = ~np.isnan(values)
            columns[name][measured] = ecdf(trained).cdf.evaluate(values[measured])
    return pd.DataFrame(columns, pairs.index)


def draw_candidates(queries: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """A retrieval table: all queries as their own candidate, then nine others of each."""
    tables = [queries.assign(label_hadm_id=queries["hadm_id"], label=1)]
    for row, query in enumerate(queries["hadm_id"]):
        others = np.delete(np.arange(len(queries)), row)
        drawn = queries.iloc[rng.choice(others, CANDIDATES - 1, replace=False)]
        tables.append(drawn.assign(label_hadm_id=query, label=0))
    return pd.concat(tables, ignore_index=True)


def _write_signals(
    split: str,
    table: pd.DataFrame,
    cxr: np.memmap,
    ecg: np.memmap,
    mimic_cxr: Path,
    mimic_ecg: Path,
) -> None:
    """X-rays and ECGs straight into memory maps; an admission listed ten times is read once."""

    def write(admission: tuple[tuple[str, str], np.ndarray]) -> None:
        (cxr_path, ecg_path), rows = admission
        cxr[rows] = _film(inside(mimic_cxr, cxr_path))
        ecg[rows] = _scaled_ecg(inside(mimic_ecg, ecg_path), ecg.shape[2])

    # Some admissions share an X-ray and an ECG: a transfer counts as a new one.
    admissions = table.groupby(["cxr_path", "ecg_path"], sort=False).indices
    with ThreadPoolExecutor() as pool:
        written = pool.map(write, admissions.items())
        for _ in tqdm(written, f"write {split}", len(admissions), leave=False):
            pass
    cxr.flush()
    ecg.flush()


def _film(path: Path) -> torch.Tensor:
    """(1, 3, 320, 320) float32, ImageNet-normalised."""
    grey = torch.from_numpy(np.array(read_image(path)))[None]
    grey = vision.center_crop(vision.resize(grey, [PIXELS], antialias=True), [PIXELS, PIXELS])
    return normalise(grey)


def _scaled_ecg(path: Path, samples: int) -> np.ndarray:
    """(1, T, 12) float32 in [-1, 1]."""
    signal = read_ecg(path, LEADS_MIMIC).signal.T
    if len(signal) != samples:
        raise PacxError(f"ECG {path} has {len(signal)} samples, the first one had {samples}.")
    low, high = signal.min(), signal.max()
    if not low < high:  # also true for NaN
        raise PacxError(f"ECG {path} is constant or holds NaN; it cannot be scaled. Leave it out.")
    return (2 * (signal - low) / (high - low) - 1).astype(np.float32)[None]
