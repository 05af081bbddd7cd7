"""MedMod: X-rays of MIMIC-CXR with 25 phenotypes of the stay in MIMIC-IV."""

from pathlib import Path

from pacx.constants import MEDMOD_PHENOTYPES
from pacx.data.splits import split_by_patient
from pacx.data.table import Dataset, make_dataset, read_csv


def read(root: Path) -> Dataset:
    """Read one row a stay, split 70/10/20 by patient (the paper splits by stay).

    Raises:
        PacxError: The table is missing or malformed.
    """
    columns = ["subject_id", "hadm_id", "stay_id", "cxr_path", *MEDMOD_PHENOTYPES]
    table = read_csv(root / "medmod.csv", columns)
    table = table.assign(
        patient=table["subject_id"],
        study=table["stay_id"],
        image=table["cxr_path"],
        split=split_by_patient(table["subject_id"], {"train": 0.70, "val": 0.10, "test": 0.20}),
    )
    return make_dataset("medmod", "multilabel", MEDMOD_PHENOTYPES, table, root)
