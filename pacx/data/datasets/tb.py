"""Tuberculosis in Shenzhen (Jaeger et al. 2014).

Source: Kaggle raddar/tuberculosis-chest-xrays-shenzhen.
"""

from pathlib import Path

from pacx.data.splits import SplitPolicy, make_splits
from pacx.data.table import Dataset, make_dataset, read_csv, refuse_rows

SHARES = {"train": 0.68, "val": 0.12, "test": 0.20}


def read(root: Path, split: SplitPolicy = "patient") -> Dataset:
    """Read one image a patient; a patient is ill unless `findings` is "normal".

    The paper's split is stratified by the label; no patient has two images, so neither split leaks.
    """
    path = root / "shenzhen_metadata.csv"
    table = read_csv(path, ["study_id", "findings"], ["study_id"])
    empty = table["findings"].isna()
    refuse_rows(empty, path, "findings is empty; 'normal' or a finding is needed.")
    ill = table["findings"].astype(str).str.strip().str.lower() != "normal"
    table = table.assign(
        patient=table["study_id"],
        study=table["study_id"],
        image="images/images/" + table["study_id"],
        split=make_splits(table["study_id"], SHARES, split, strata=ill),
        tuberculosis=ill.astype("float32"),
    )
    return make_dataset("tb", "binary", ["tuberculosis"], table, root)
