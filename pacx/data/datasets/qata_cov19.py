"""QaTa-COV19 v2 (Degerli et al. 2022): X-rays of COVID-19 with masks of the infection."""

from pathlib import Path

import pandas as pd

from pacx.data.splits import SplitPolicy, make_splits
from pacx.data.table import Dataset, files_in, make_dataset
from pacx.errors import PacxError

_BASE = "QaTa-COV19-v2"
SHARES = {"train": 0.9, "val": 0.1}


def read(root: Path, split: SplitPolicy = "patient") -> Dataset:
    """Read the official test set; a tenth of the rest becomes `val`, in the paper by image.

    Files that start with `sub-S...` name their patient; any other file is a patient.
    """
    rows = []
    for folder, name in (("Train Set", "train"), ("Test Set", "test")):
        base = root / _BASE / folder
        if not (base / "Images").is_dir():
            raise PacxError(f"{base / 'Images'} is missing; QaTa-COV19 ships Train and Test Set.")
        for image in files_in(base / "Images"):
            mask = base / "Ground-truths" / f"mask_{image.name}"
            if not mask.is_file():
                raise PacxError(f"{image} has no mask {mask}.")
            paths = [str(path.relative_to(root)) for path in (image, mask)]
            rows.append((name, image.name, *paths))
    table = pd.DataFrame(rows, columns=["split", "study", "image", "mask"])
    subject = table["study"].str.extract(r"^(sub-S\d+)", expand=False)
    table["patient"] = subject.fillna(table["study"])
    rest = table["split"] == "train"
    table.loc[rest, "split"] = make_splits(table.loc[rest, "patient"], SHARES, split)
    return make_dataset("qata-cov19", "segmentation", [], table, root)
