"""CheXchoNet 1.0.0 (Elias and Bhave 2024): X-rays with echocardiographic labels."""

from pathlib import Path

from pacx.data.splits import SplitPolicy, make_splits
from pacx.data.table import Dataset, make_dataset, read_csv

LABEL = "composite_slvh_dlv"
SHARES = {"train": 0.72, "val": 0.08, "test": 0.20}


def read(root: Path, split: SplitPolicy = "patient") -> Dataset:
    """Read the composite label: severe left ventricular hypertrophy or a dilated left ventricle.

    The paper splits by image, stratified by the label, which puts patients in two splits.
    """
    ids = ["patient_id", "cxr_filename"]
    table = read_csv(root / "metadata.csv", [*ids, LABEL], ids)
    table = table.assign(
        patient=table["patient_id"],
        study=table["cxr_filename"],
        image="images/" + table["cxr_filename"],
        split=make_splits(table["patient_id"], SHARES, split, strata=table[LABEL]),
    )
    return make_dataset("chexchonet", "binary", [LABEL], table, root)
