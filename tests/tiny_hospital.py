"""A tiny phantom hospital, written once a test session and never changed."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from pacx.phantom.cohort import Cohort, seed_of
from pacx.phantom.hospital import write_hospital

SIZE, HZ, SEED = 32, 100, 11
SIZES = {
    "chexpert": {"train": 24, "val": 6},
    "symile-mimic": {"train": 40, "val": 12, "test": 12},
    "ecg-archive": {"train": 3},
    "tb": {"train": 100},
    "chexchonet": {"train": 150},
    "chestx6": {"train": 12, "val": 6, "test": 6},
    "vindr-cxr": {"train": 60, "test": 30},
    "nih-14": {"train": 90, "test": 20},
    "medmod": {"train": 160},
    "covid-qu-ex": {"train": 6, "val": 3, "test": 3},
    "qata-cov19": {"train": 40, "test": 10},
    "cxl-seg": {"train": 8, "val": 4, "test": 4},
    "actualmed": {"train": 40},
}
#: Those with image files.
WITH_IMAGES = [name for name in SIZES if name not in ("symile-mimic", "ecg-archive")]
_folders = []


@cache
def hospital() -> Path:
    """Folder of all data sets."""
    _folders.append(tempfile.TemporaryDirectory())  # goes when the session ends
    root = Path(_folders[-1].name)
    write_hospital(root, SIZES, SIZE, HZ, SEED)
    return root


def cohort(name: str) -> Cohort:
    """The very patients that `hospital` wrote."""
    return Cohort(
        splits=SIZES[name], image_size=SIZE, ecg_hz=HZ, seed=seed_of(SEED, name), coupling=1.0,
        lag_days=0.0, drift=0.0, bar=tqdm(disable=True),
    )  # fmt: skip


def truth(name: str) -> pd.DataFrame:
    """The truth beside a data set."""
    return pd.read_csv(hospital() / name / "truth.csv")


def copy(name: str, root: Path) -> Path:
    """A copy of one data set that a test may spoil: its folder under `root`."""
    return Path(shutil.copytree(hospital() / name, root / name))
