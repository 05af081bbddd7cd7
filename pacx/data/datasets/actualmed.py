"""Actualmed COVID-19 chest X-rays (Chung et al. 2020): open to anyone, on GitHub.

Source: agchung/Actualmed-COVID-chestxray-dataset; for research only.
"""

from pathlib import Path

from pacx.data.splits import split_by_patient
from pacx.data.table import Dataset, make_dataset, read_csv
from pacx.errors import PacxError

LABEL = "COVID-19"
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def read(root: Path) -> Dataset:
    """Read `images/`, split by patient; an empty finding is inconclusive, so unknown."""
    ids = ["patient_id", "image"]
    table = read_csv(root / "metadata.csv", [*ids, "finding"], ids)
    finding = table["finding"]
    label_of = {LABEL: 1.0, "No finding": 0.0}
    unknown = sorted(set(finding.dropna().astype(str)) - set(label_of))
    if unknown:
        raise PacxError(
            f"{root / 'metadata.csv'}: unknown finding(s) {unknown}; expected {list(label_of)} or "
            "nothing."
        )
    table = table.assign(
        patient=table["patient_id"],
        study=table["image"],
        image="images/" + table["image"],
        split=split_by_patient(table["patient_id"], SHARES),
        **{LABEL: finding.map(label_of).astype("float32")},
    )
    return make_dataset("actualmed", "binary", [LABEL], table, root)
