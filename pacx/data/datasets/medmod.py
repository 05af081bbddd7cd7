"""MedMod: X-rays of MIMIC-CXR with 25 phenotypes of the stay in MIMIC-IV."""

from pathlib import Path

from pacx.constants import MEDMOD_PHENOTYPES
from pacx.data.splits import SplitPolicy, make_splits
from pacx.data.table import Dataset, make_dataset, read_csv

SHARES = {"train": 0.70, "val": 0.10, "test": 0.20}
RAREST = "Other upper respiratory disease"


def read(root: Path, split: SplitPolicy = "patient") -> Dataset:
    """Read one row a stay. The paper splits by stay, stratified by the rarest phenotype."""
    ids = ["subject_id", "hadm_id", "stay_id", "cxr_path"]
    table = read_csv(root / "medmod.csv", [*ids, *MEDMOD_PHENOTYPES], ids)
    table = table.assign(
        patient=table["subject_id"],
        study=table["stay_id"],
        image=table["cxr_path"],
        split=make_splits(table["subject_id"], SHARES, split, strata=table[RAREST]),
    )
    return make_dataset("medmod", "multilabel", MEDMOD_PHENOTYPES, table, root)
