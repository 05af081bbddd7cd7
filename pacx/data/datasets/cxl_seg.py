"""CXL-Seg 1.0.0 (Indeewara et al. 2023): X-rays of MIMIC-CXR with lung masks, split as shipped."""

from pathlib import Path

from pacx.data.table import Dataset, as_ids, make_dataset, read_csv


def read(root: Path) -> Dataset:
    """Read `files/p18/p18000001/s58000001/<dicom_id>.jpg` and `<dicom_id>-mask.jpg` beside it."""
    ids = ["dicom_id", "subject_id", "study_id"]
    table = read_csv(root / "CXLSeg-split.csv", [*ids, "split"], ids)
    subject, study = as_ids(table["subject_id"]), as_ids(table["study_id"])
    stem = (
        "files/p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + table["dicom_id"]
    )  # fmt: skip
    table = table.assign(
        patient=subject,
        study=study,
        split=table["split"].replace({"validate": "val"}),
        image=stem + ".jpg",
        mask=stem + "-mask.jpg",
    )
    return make_dataset("cxl-seg", "segmentation", [], table, root)
