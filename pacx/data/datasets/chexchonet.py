"""CheXchoNet 1.0.0 (Elias and Bhave 2024): X-rays with echocardiographic labels."""

from pathlib import Path

from pacx.data.splits import split_by_patient
from pacx.data.table import Dataset, make_dataset, read_csv

LABEL = "composite_slvh_dlv"


def read(root: Path) -> Dataset:
    """Read the composite label: severe left ventricular hypertrophy or a dilated left ventricle.

    The paper splits 72/8/20 by image, which puts patients in two splits; here the same shares are
    split by patient.

    Raises:
        PacxError: The table is missing or malformed.
    """
    table = read_csv(root / "metadata.csv", ["patient_id", "cxr_filename", LABEL])
    table = table.assign(
        patient=table["patient_id"],
        study=table["cxr_filename"],
        image="images/" + table["cxr_filename"],
        split=split_by_patient(table["patient_id"], {"train": 0.72, "val": 0.08, "test": 0.20}),
    )
    return make_dataset("chexchonet", "binary", [LABEL], table, root)
