"""NIH ChestX-ray14 (Wang et al. 2017): 14 findings mined from reports."""

from pathlib import Path

import pandas as pd

from pacx.data.splits import SplitPolicy, make_splits
from pacx.data.table import Dataset, make_dataset, read_csv, read_list, refuse_rows
from pacx.errors import PacxError

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening",
    "Hernia",
)  # fmt: skip
SHARES = {"train": 0.85, "val": 0.15}


def read(root: Path, split: SplitPolicy = "patient") -> Dataset:
    """Read the official test list; 15 % of the rest becomes `val`, which the paper takes by image.

    Images lie in `images_001/images/` to `images_012/images/`, or all in `images/`.
    """
    newer = root / "Data_Entry_2017_v2020.csv"
    path = newer if newer.is_file() else root / "Data_Entry_2017.csv"
    ids = ["Image Index", "Patient ID"]
    table = read_csv(path, [*ids, "Finding Labels"], ids)
    table = pd.concat([table, parse_findings(table["Finding Labels"], path)], axis=1)
    official = {"train": read_list(root / "train_val_list.txt")}
    official["test"] = read_list(root / "test_list.txt")
    if twice := set(official["train"]) & set(official["test"]):
        raise PacxError(f"{root}: {min(twice)} is in train_val_list.txt and in test_list.txt.")
    split_of = {name: split for split, names in official.items() for name in names}
    table["split"] = table["Image Index"].map(split_of)
    if table["split"].isna().any():
        name = table["Image Index"][table["split"].isna()].iloc[0]
        raise PacxError(f"{path}: {name} is in neither train_val_list.txt nor test_list.txt.")
    rest = table["split"] == "train"
    table.loc[rest, "split"] = make_splits(table.loc[rest, "Patient ID"], SHARES, split)
    files = {f.name: str(f.relative_to(root)) for f in root.glob("images_*/images/*.png")}
    table["image"] = table["Image Index"].map(files).fillna("images/" + table["Image Index"])
    table["patient"] = table["Patient ID"]
    table["study"] = table["Image Index"]
    return make_dataset("nih-14", "multilabel", FINDINGS, table, root)


def parse_findings(text: pd.Series, where: Path) -> pd.DataFrame:
    """Findings joined by `|` as 0/1 columns.

    Args:
        text: (N,) such as "Effusion|Mass", or "No Finding".
        where: File that the text is from, for the error.

    Returns:
        (N, 14) float32 columns `FINDINGS`.

    Raises:
        PacxError: A finding is empty or unknown.
    """
    columns = text.fillna("").str.get_dummies("|")
    unknown = sorted(set(columns) - {*FINDINGS, "No Finding"})
    if unknown:
        raise PacxError(f"{where}: unknown finding(s) {unknown}; expected {list(FINDINGS)}.")
    nothing = columns.sum(axis=1) == 0
    refuse_rows(nothing, where, "Finding Labels is empty; write 'No Finding'.")
    return columns.reindex(columns=list(FINDINGS), fill_value=0).astype("float32")
