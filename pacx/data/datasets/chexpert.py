"""CheXpert (Irvin et al. 2019): the X-rays of stage 1. Layout: CheXpert-v1.0-small."""

from pathlib import Path

import pandas as pd

from pacx.constants import CHEXPERT_FINDINGS
from pacx.data.table import Dataset, make_dataset, read_csv


def read(root: Path) -> Dataset:
    """Read frontal views; the official `valid.csv` becomes the split `val`.

    An uncertain finding (-1) is unknown, as is an empty one.
    """
    parts = []
    for split, file in (("train", "train.csv"), ("val", "valid.csv")):
        table = read_csv(root / file, ["Path", "Frontal/Lateral", *CHEXPERT_FINDINGS])
        parts.append(table.assign(split=split))
    table = pd.concat(parts, ignore_index=True)
    table = table[table["Frontal/Lateral"] == "Frontal"].copy()
    # The first folder of Path is the archive's own name, whatever the reader called it.
    table["image"] = table["Path"].str.split("/", n=1).str[1]
    table["patient"] = table["Path"].str.extract(r"(patient\d+)", expand=False)
    table["study"] = table["patient"] + table["Path"].str.extract(r"(/study\d+)", expand=False)
    findings = list(CHEXPERT_FINDINGS)
    table[findings] = table[findings].where(table[findings] != -1)
    return make_dataset("chexpert", "pretraining", CHEXPERT_FINDINGS, table, root)
