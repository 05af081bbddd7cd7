"""The benchmarks with findings, infections and lung masks, as the real ones lie on disk.

`truth.csv` in each folder is ours: the latent states, what is truly on each xray, and the exact
area of each mask, for tests and for chapters that compare a label with its cause.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pacx.phantom.cohort import (
    Cohort,
    mimic_cxr_path,
    otherwise_well,
    save_images,
    truth_table,
    visits,
)
from pacx.phantom.findings import NIH_FINDINGS, VINDR_FINDINGS, add_patterns, draw_findings

RADIOLOGISTS = 17
MISSED, IMAGINED = 0.15, 0.02  # a radiologist's misses and false alarms in VinDr-CXR


def write_tb(root: Path, cohort: Cohort) -> None:
    """Shenzhen: `shenzhen_metadata.csv`, RGB PNGs and, as detectors deliver, some of 16 bit."""
    patients = cohort.patients()
    rng = np.random.default_rng([cohort.seed, 51])
    sick = rng.random(len(patients)) < 0.5
    patients["pattern"] = np.where(sick, "Tuberculosis", "Normal")
    wording = rng.choice(["right upper PTB", "bilateral PTB", "STB, pleuritis"], len(patients))
    wording = np.where(sick, wording, rng.choice(["normal", "Normal "], len(patients)))
    table = pd.DataFrame(
        {
            "study_id": [f"CHNCXR_{i + 1:04d}_{int(s)}.png" for i, s in enumerate(sick)],
            "sex": patients["sex"].map({"F": "Female", "M": "Male"}),
            "age": patients["age_years"],
            "findings": wording,
        }
    )

    def stored(row: int, image: np.ndarray) -> np.ndarray:
        return image.astype(np.uint16) * 257 if row % 8 == 0 else np.dstack([image] * 3)

    paths = [root / "images" / "images" / name for name in table["study_id"]]
    cohort.write_xrays(otherwise_well(patients), paths, stored=stored)
    table.to_csv(root / "shenzhen_metadata.csv", index=False)
    _write_truth(root, patients, table["study_id"], tuberculosis=sick.astype(int))


def write_vindr_cxr(root: Path, cohort: Cohort) -> None:
    """VinDr-CXR 1.0.0: DICOM files; three radiologists a training image, who do not agree.

    `truth.csv` holds the finding itself and, as `<finding> votes`, how many of the three saw it.
    """
    rng = np.random.default_rng([cohort.seed, 52])
    patients = add_patterns(cohort.patients(), rng)
    ids = pd.Series([rng.bytes(16).hex() for _ in range(len(patients))], name="image_id")
    truth = draw_findings(patients, VINDR_FINDINGS, rng)
    seen = np.repeat(truth.to_numpy()[:, None], 3, axis=1)  # (N, 3, 27)
    mistaken = rng.random(seen.shape) < np.where(seen == 1, MISSED, IMAGINED)
    seen = np.where(mistaken, 1 - seen, seen)
    readers = np.stack([rng.choice(RADIOLOGISTS, 3, replace=False) + 1 for _ in range(len(ids))])
    train = np.flatnonzero(patients["split"] != "test")
    votes = pd.DataFrame(seen[train].reshape(-1, len(VINDR_FINDINGS)), columns=VINDR_FINDINGS)
    votes["No finding"] = (votes.sum(axis=1) == 0).astype(int)
    votes.insert(0, "image_id", np.repeat(ids.to_numpy()[train], 3))
    votes.insert(1, "rad_id", [f"R{number}" for number in readers[train].ravel()])
    test = patients["split"] == "test"
    consensus = truth[test].rename(columns={"Other diseases": "Other disease"})
    consensus["No finding"] = (consensus.sum(axis=1) == 0).astype(int)
    consensus.insert(0, "image_id", ids[test])
    folders = np.where(test, "test", "train")
    paths = [root / folder / f"{i}.dicom" for folder, i in zip(folders, ids, strict=True)]
    cohort.write_xrays(patients, paths)
    (root / "annotations").mkdir()
    votes.to_csv(root / "annotations" / "image_labels_train.csv", index=False)
    consensus.to_csv(root / "annotations" / "image_labels_test.csv", index=False)
    counts = pd.DataFrame(seen.sum(axis=1), columns=[f"{name} votes" for name in VINDR_FINDINGS])
    _write_truth(root, patients, ids, **truth, **counts)


def write_nih_14(root: Path, cohort: Cohort) -> None:
    """NIH ChestX-ray14: several findings a xray, up to three xrays a patient, a few RGBA."""
    rng = np.random.default_rng([cohort.seed, 53])
    patients = add_patterns(cohort.patients(), rng)
    patients["Patient ID"] = np.arange(1, len(patients) + 1)
    xrays = visits(patients, 0.4, "Patient ID", rng, most=3)
    truth = draw_findings(xrays, NIH_FINDINGS, rng)
    number = xrays["study"] - 1
    names = pd.Series(
        [f"{p:08d}_{n:03d}.png" for p, n in zip(xrays["Patient ID"], number, strict=True)],
        name="Image Index",
    )
    table = pd.DataFrame(
        {
            "Image Index": names,
            "Finding Labels": [
                "|".join(truth.columns[row == 1]) or "No Finding" for row in truth.to_numpy()
            ],
            "Follow-up #": number,
            "Patient ID": xrays["Patient ID"],
            "Patient Age": xrays["age_years"],
            "Patient Gender": xrays["sex"],
            "View Position": np.where(xrays["ap_view"], "AP", "PA"),
            "OriginalImage[Width": cohort.image_size,
            "Height]": cohort.image_size,
        }
    )

    def stored(row: int, image: np.ndarray) -> np.ndarray:
        return np.dstack([image] * 3 + [np.full_like(image, 255)]) if row % 50 == 7 else image

    archives = 1 + np.arange(len(xrays)) * 12 // len(xrays)
    paths = [
        root / f"images_{archive:03d}" / "images" / name
        for archive, name in zip(archives, names, strict=True)
    ]
    cohort.write_xrays(xrays, paths, stored=stored)
    table.to_csv(root / "Data_Entry_2017.csv", index=False)
    test = xrays["split"] == "test"
    for file, members in (("train_val_list.txt", names[~test]), ("test_list.txt", names[test])):
        (root / file).write_text("\n".join(members), encoding="utf-8")
    _write_truth(root, xrays, names, **truth)


def write_qata_cov19(root: Path, cohort: Cohort) -> None:
    """QaTa-COV19 v2: X-rays of COVID-19 with a mask of the infection, `mask_<image name>`.

    The infection is what the disease changes: the same xray is rendered with and without it, and
    the mask is where the difference is more than a quarter of its largest.
    """
    patients = cohort.patients().assign(pattern="Covid-19")
    rng = np.random.default_rng([cohort.seed, 54])
    patients["subject"] = np.arange(1, len(patients) + 1)
    xrays = otherwise_well(visits(patients, 0.2, "subject", rng))
    numbered = xrays["subject"] % 4 != 0  # a part of the data set carries no subject numbers
    names = pd.Series(
        np.where(
            numbered,
            [f"sub-S{s:05d}_ses-E{s:05d}{n}_run-1_bp-chest_dx.png"
             for s, n in zip(xrays["subject"], xrays["study"], strict=True)],
            [f"covid_{i:05d}.png" for i in range(len(xrays))],
        ),
        name="image",
    )  # fmt: skip
    area = np.zeros(len(xrays), int)
    folders = xrays["split"].map({"train": "Train Set", "val": "Train Set", "test": "Test Set"})
    ill = cohort.xrays(xrays, cohort.image_size)
    well = cohort.xrays(xrays.assign(pattern="Normal"), cohort.image_size, masks=True)
    for (rows, images, _), (_, before, masks) in zip(ill, well, strict=True):
        added = images.astype(int) - before
        largest = added.max(axis=(1, 2), keepdims=True)
        infected = masks["lungs"] & (added > 0.25 * largest)
        area[rows] = infected.sum(axis=(1, 2))
        files = [(root / "QaTa-COV19-v2" / folders[i], names[i]) for i in rows]
        save_images(cohort, images, [base / "Images" / name for base, name in files])
        masked = [base / "Ground-truths" / f"mask_{name}" for base, name in files]
        save_images(cohort, infected, masked)
    _write_truth(root, xrays, names, subject=xrays["subject"], mask_pixels=area)


def write_cxl_seg(root: Path, cohort: Cohort) -> None:
    """CXL-Seg 1.0.0: xrays of MIMIC-CXR with lung masks beside them, `<dicom_id>-mask.jpg`."""
    patients = cohort.patients()
    rng = np.random.default_rng([cohort.seed, 55])
    patients["subject_id"] = 18_000_001 + 3 * np.arange(len(patients))
    xrays = visits(patients, 0.3, "subject_id", rng)
    xrays["study_id"] = xrays["subject_id"] + 40_000_000 + xrays["study"] - 1
    keys = zip(xrays["subject_id"], xrays["study_id"], strict=True)
    paths = [mimic_cxr_path(subject, study) for subject, study in keys]
    ids = pd.Series([Path(path).stem for path in paths], name="dicom_id")
    beside = [root / path.replace(".jpg", "-mask.jpg") for path in paths]
    areas = cohort.write_xrays(xrays, [root / path for path in paths], {"lungs": beside})
    table = pd.concat([ids, xrays[["subject_id", "study_id"]]], axis=1)
    table["split"] = xrays["split"].replace({"val": "validate"})
    table.to_csv(root / "CXLSeg-split.csv", index=False)
    _write_truth(root, xrays, ids, mask_pixels=areas["lungs"])


def write_actualmed(root: Path, cohort: Cohort) -> None:
    """Actualmed: `metadata.csv` and `images/`; an empty finding means inconclusive."""
    patients = cohort.patients()
    rng = np.random.default_rng([cohort.seed, 56])
    patients["pattern"] = np.where(rng.random(len(patients)) < 0.55, "Covid-19", "Normal")
    patients["patient_id"] = [f"ANON{i + 1}" for i in range(len(patients))]
    xrays = visits(patients, 0.15, "patient_id", rng)
    conclusive = rng.random(len(xrays)) > 0.15
    finding = xrays["pattern"].map({"Covid-19": "COVID-19", "Normal": "No finding"})
    table = pd.DataFrame(
        {
            "patient_id": xrays["patient_id"],
            "image": xrays["patient_id"] + "." + xrays["study"].astype(str) + ".jpg",
            "finding": finding.where(conclusive),
            "view": np.where(xrays["ap_view"], "AP", "PA"),
            "original_width": cohort.image_size,
            "original_height": cohort.image_size,
        }
    )
    cohort.write_xrays(otherwise_well(xrays), [root / "images" / name for name in table["image"]])
    table.to_csv(root / "metadata.csv", index=False)
    _write_truth(root, xrays, table["image"], covid=(xrays["pattern"] == "Covid-19").astype(int))


def _write_truth(root: Path, xrays: pd.DataFrame, key: pd.Series, **columns) -> None:
    """`truth.csv`: key, split, what is truly there, and the states."""
    parts = [key, xrays["split"], pd.DataFrame(columns), truth_table(xrays)]
    pd.concat(parts, axis=1).to_csv(root / "truth.csv", index=False)
