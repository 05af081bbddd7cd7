"""COVID-QU-Ex (Tahir et al. 2021): X-rays with lung masks, split as shipped."""

from pathlib import Path

import pandas as pd

from pacx.data.table import Dataset, files_in, make_dataset
from pacx.errors import PacxError

_BASE = "Lung Segmentation Data/Lung Segmentation Data"
_SPLITS = {"Train": "train", "Val": "val", "Test": "test"}


def read(root: Path) -> Dataset:
    """Read images and lung masks; the data set has no patient numbers, a file is a patient."""
    rows = []
    for folder, split in _SPLITS.items():
        base = root / _BASE / folder
        if not base.is_dir():
            raise PacxError(f"{base} is missing; COVID-QU-Ex ships Train, Val and Test.")
        for image in [f for images in sorted(base.glob("*/images")) for f in files_in(images)]:
            mask = image.parent.parent / "lung masks" / image.name
            if not mask.is_file():
                raise PacxError(f"{image} has no mask {mask}.")
            rows.append((split, str(image.relative_to(root)), str(mask.relative_to(root))))
    table = pd.DataFrame(rows, columns=["split", "image", "mask"])
    table["patient"] = table["study"] = table["image"]
    return make_dataset("covid-qu-ex", "segmentation", [], table, root)
