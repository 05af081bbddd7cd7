"""ChestX6: six classes in folders, split as shipped."""

from pathlib import Path

import pandas as pd

from pacx.constants import CHESTX6_CLASSES
from pacx.data.table import Dataset, files_in, make_dataset
from pacx.errors import PacxError


def read(root: Path) -> Dataset:
    """Read `<split>/<class>/<file>`; the data set has no patient numbers, a file is a patient."""
    rows = []
    for split in ("train", "val", "test"):
        if not (root / split).is_dir():
            raise PacxError(f"{root / split} is missing; ChestX6 ships train, val and test.")
        folders = (f for f in (root / split).iterdir() if f.is_dir())
        for folder in sorted(f for f in folders if not f.name.startswith(".")):
            if folder.name not in CHESTX6_CLASSES:
                raise PacxError(f"{folder}: unknown class; expected {CHESTX6_CLASSES}.")
            rows += [(split, folder.name, file.name) for file in files_in(folder)]
    table = pd.DataFrame(rows, columns=["split", "class", "file"])
    table["image"] = table["split"] + "/" + table["class"] + "/" + table["file"]
    table["patient"] = table["study"] = table["image"]
    for name in CHESTX6_CLASSES:
        table[name] = (table["class"] == name).astype("float32")
    return make_dataset("chestx6", "multiclass", CHESTX6_CLASSES, table, root)
