"""VinDr-CXR 1.0.0 (Nguyen et al. 2022): findings, three radiologists a training image."""

from pathlib import Path

import pandas as pd

from pacx.data.splits import split_by_patient
from pacx.data.table import Dataset, make_dataset, read_csv, refuse_rows
from pacx.errors import PacxError

#: The labels with at least 50 positive images by majority in the real training set: the paper's
#: 19. They are a list, not a rule, so that a smaller set has the same labels.
LABELS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD",
    "Infiltration", "Lung Opacity", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Other lesion", "Lung tumor",
    "Pneumonia", "Tuberculosis", "Other diseases",
)  # fmt: skip
_SUFFIXES = (".dicom", ".dcm", ".png", ".jpg")


def read(root: Path) -> Dataset:
    """Read `train/` and `test/` (DICOM, or PNG of the same names) and the radiologists' labels.

    A training label is what at least half of the radiologists saw; the test set is a consensus.
    A tenth of the training images becomes `val`. Patients are not known: an image is a patient.
    """
    folder = root / "annotations" if (root / "annotations").is_dir() else root
    path = folder / "image_labels_train.csv"
    votes = read_csv(path, ["image_id", "rad_id", *LABELS], ["image_id"])
    unnamed = votes["image_id"].isna()
    refuse_rows(unnamed, path, "image_id is empty. Name the image, or delete the row.")
    if not votes[list(LABELS)].isin([0, 1]).all(axis=None):
        raise PacxError(f"{path}: a radiologist's label is not 0 or 1.")
    majority = votes.groupby("image_id", sort=False)[list(LABELS)].mean() >= 0.5
    train = majority.astype("float32").reset_index()
    train["split"] = split_by_patient(train["image_id"], {"train": 0.9, "val": 0.1})
    # The consensus table spells this one column differently.
    columns = ["Other disease" if label == "Other diseases" else label for label in LABELS]
    test = read_csv(folder / "image_labels_test.csv", ["image_id", *columns], ["image_id"])
    test = test.rename(columns={"Other disease": "Other diseases"}).assign(split="test")
    train["image"] = train["image_id"].map(_files(root / "train"))
    test["image"] = test["image_id"].map(_files(root / "test"))
    table = pd.concat([train, test], ignore_index=True)
    official = table["split"].where(table["split"] == "test", "train") + "/" + table["image_id"]
    table["image"] = table["image"].fillna(official + ".dicom")  # is missing, and will be named
    table["patient"] = table["study"] = table["image_id"]
    return make_dataset("vindr-cxr", "multilabel", LABELS, table, root)


def _files(folder: Path) -> dict[str, str]:
    """Image id -> path relative to the data set; where there are two files, the DICOM."""
    if not folder.is_dir():
        raise PacxError(f"{folder} is missing; VinDr-CXR ships train and test.")
    files = [f for f in folder.iterdir() if f.suffix.lower() in _SUFFIXES]
    files.sort(key=lambda f: _SUFFIXES.index(f.suffix.lower()), reverse=True)
    return {f.stem: f"{folder.name}/{f.name}" for f in files}
