"""One function a data set: draws its patients and writes them as the real data set lies on disk.

Symile-MIMIC, which is arrays and not files, has `pairs.py` to itself; `benchmarks.py` holds the
benchmarks with findings, infections and lung masks.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pacx.constants import CHESTX6_CLASSES, LEADS_ECGFOUNDER, LEADS_MIMIC, SHIFTED
from pacx.phantom import state
from pacx.phantom.cohort import (
    Cohort,
    mimic_cxr_path,
    otherwise_well,
    save_images,
    truth_table,
    visits,
)
from pacx.phantom.ecg import diagnoses, render_ecgs
from pacx.phantom.findings import chexpert_findings, phenotype_labels
from pacx.phantom.radiograph import MASKS, render_laterals

SHIFT_OF_EXPOSURE = 1.5  # standard deviations, in the split of another hospital
SHARE_OF_MORE_DEVICES = 0.3  # of its patients get each device, and the AP view, besides


def write_chexpert(root: Path, cohort: Cohort) -> None:
    """CheXpert-v1.0-small: `train.csv`, `valid.csv`, frontal views and some laterals."""
    patients = cohort.patients()
    rng = np.random.default_rng([cohort.seed, 41])
    patients["patient"] = [f"patient{i + 1:05d}" for i in range(len(patients))]
    patients["folder"] = patients["split"].map({"train": "train", "val": "valid"})
    studies = visits(patients, 0.15 * (patients["split"] == "train"), "patient", rng)
    certain = chexpert_findings(studies, cohort.seed, certain=True)
    findings = chexpert_findings(studies, cohort.seed)
    findings = findings.where(studies["split"] == "train", certain)
    study_path = (
        studies["folder"] + "/" + studies["patient"] + "/study" + studies["study"].astype(str)
    )
    facts = pd.DataFrame(
        {
            "Path": "CheXpert-v1.0-small/" + study_path + "/view1_frontal.jpg",
            "Sex": studies["sex"].map({"F": "Female", "M": "Male"}),
            "Age": studies["age_years"],
            "Frontal/Lateral": "Frontal",
            "AP/PA": np.where(studies["ap_view"], "AP", "PA"),
        }
    )
    frontal = pd.concat([facts, findings], axis=1)
    has_lateral = ~studies["ap_view"].to_numpy() & (rng.random(len(studies)) < 0.25)
    lateral = frontal[has_lateral].assign(**{"Frontal/Lateral": "Lateral", "AP/PA": np.nan})
    lateral["Path"] = lateral["Path"].str.replace("view1_frontal", "view2_lateral")
    cohort.write_xrays(studies, [root / folder / "view1_frontal.jpg" for folder in study_path])
    side_view = render_laterals(studies[has_lateral], cohort.image_size, cohort.seed)
    folders = study_path[has_lateral]
    save_images(cohort, side_view, [root / folder / "view2_lateral.jpg" for folder in folders])
    table = pd.concat([frontal, lateral]).sort_values("Path")
    for split, file in (("train", "train.csv"), ("val", "valid.csv")):
        table[studies["split"].reindex(table.index) == split].to_csv(root / file, index=False)


def write_ecg_archive(root: Path, cohort: Cohort) -> None:
    """PhysioNet/CinC 2021: WFDB headers with SNOMED codes, 16-bit MATLAB v4 signals."""
    patients = cohort.patients()
    codes = diagnoses(patients, cohort.seed)
    reorder = [LEADS_MIMIC.index(lead) for lead in LEADS_ECGFOUNDER]
    signals = render_ecgs(patients, cohort.ecg_hz, cohort.seed)[:, reorder]
    counts = np.clip(np.rint(signals * 1000), -32767, 32767).astype("<i2")
    records = [f"g{i // 1000 + 1}/P{i + 1:05d}" for i in range(len(patients))]
    for record, values, coded, (_, patient) in zip(
        records, counts, codes.to_numpy(), patients.iterrows(), strict=True
    ):
        present = ",".join(codes.columns[coded]) or "426783006"  # sinus rhythm
        _write_wfdb(root / record, values, cohort.ecg_hz, patient, present)
        cohort.bar.update()
    (root / "RECORDS").write_text("\n".join(records) + "\n", encoding="utf-8")


def write_chexchonet(root: Path, cohort: Cohort) -> None:
    """CheXchoNet 1.0.0: `metadata.csv` and `images/`; a quarter of the patients come twice."""
    patients = cohort.patients()
    rng = np.random.default_rng([cohort.seed, 43])
    patients["patient_id"] = [f"E{i:06d}" for i in range(len(patients))]
    patients = pd.concat([patients, state.echo_labels(patients, cohort.seed)], axis=1)
    xrays = visits(patients, 0.25, "patient_id", rng)
    xrays["cxr_filename"] = xrays["patient_id"] + "_" + xrays["study"].astype(str) + ".png"
    columns = {"age_years": "age", "pacemaker": "pacemaker_or_icd"}
    table = xrays.rename(columns=columns)[
        ["patient_id", "cxr_filename", "age", "sex", "ivsd", "lvpwd", "lvidd",
         "pacemaker_or_icd", "slvh", "dlv", "composite_slvh_dlv"]
    ]  # fmt: skip
    cohort.write_xrays(xrays, [root / "images" / name for name in xrays["cxr_filename"]])
    table.astype({"pacemaker_or_icd": int}).to_csv(root / "metadata.csv", index=False)


def write_medmod(root: Path, cohort: Cohort) -> None:
    """MedMod: one row a stay in `medmod.csv`, X-rays in MIMIC-CXR-JPG's folders."""
    patients = cohort.patients()
    ids = 15_000_001 + 3 * np.arange(len(patients))
    paths = [mimic_cxr_path(i, i + 40_000_000) for i in ids]
    cohort.write_xrays(patients, [root / path for path in paths])
    stays = pd.DataFrame(
        {"subject_id": ids, "hadm_id": ids + 10_000_000, "stay_id": ids + 20_000_000,
         "cxr_path": paths}
    )  # fmt: skip
    phenotypes = phenotype_labels(patients, cohort.seed)
    pd.concat([stays, phenotypes], axis=1).to_csv(root / "medmod.csv", index=False)


def write_chestx6(root: Path, cohort: Cohort) -> None:
    """ChestX6: `<split>/<class>/<file>`, a sixth of the images in each class."""
    patients = cohort.patients()
    patients["pattern"] = np.resize(CHESTX6_CLASSES, len(patients))
    paths = [
        root / split / pattern / f"{pattern.lower()}-{i:05d}.jpg"
        for i, (split, pattern) in enumerate(
            zip(patients["split"], patients["pattern"], strict=True)
        )
    ]
    cohort.write_xrays(otherwise_well(patients), paths)


def write_covid_qu_ex(root: Path, cohort: Cohort) -> None:
    """COVID-QU-Ex: X-rays with lung masks of the same name, a third of them in each class."""
    patients = cohort.patients()
    classes = {"COVID-19": "Covid-19", "Non-COVID": "Pneumonia-Bacterial", "Normal": "Normal"}
    folders = np.resize(list(classes), len(patients))
    patients["pattern"] = [classes[folder] for folder in folders]
    base = root / "Lung Segmentation Data" / "Lung Segmentation Data"
    files = [
        (base / split.title() / folder, f"{folder.lower()}_{i:05d}.png")
        for i, (split, folder) in enumerate(zip(patients["split"], folders, strict=True))
    ]
    masks = {"lungs": [folder / "lung masks" / name for folder, name in files]}
    images = [folder / "images" / name for folder, name in files]
    cohort.write_xrays(otherwise_well(patients), images, masks)


def write_phantom_truth(root: Path, cohort: Cohort) -> None:
    """The truth that no real data set has: task labels, states and exact masks.

    The split `shifted` is of another hospital: other exposure, more devices and AP views.
    """
    patients = cohort.patients()
    rng = np.random.default_rng([cohort.seed, 46])
    elsewhere = (patients["split"] == SHIFTED).to_numpy()
    patients["exposure"] = SHIFT_OF_EXPOSURE * elsewhere
    for fact in ("pacemaker", "tube", "ap_view"):
        patients[fact] |= elsewhere & (rng.random(len(patients)) < SHARE_OF_MORE_DEVICES)
    names = [f"T{i:06d}" for i in range(len(patients))]
    masks = {mask: [root / "masks" / mask / f"{name}.png" for name in names] for mask in MASKS}
    cohort.write_xrays(patients, [root / "images" / f"{name}.png" for name in names], masks)
    table = pd.DataFrame(
        {"patient": names, "split": patients["split"], "image": [f"images/{n}.png" for n in names]}
    )
    labels = state.task_labels(patients, cohort.seed)
    table = pd.concat([table, labels, truth_table(patients)], axis=1)
    table.to_csv(root / "labels.csv", index=False)


def _write_wfdb(path: Path, counts: np.ndarray, hz: int, patient: pd.Series, dx: str) -> None:
    """One record: `.hea` and a MATLAB v4 file whose 24-byte header WFDB skips (16x1+24)."""
    path.parent.mkdir(exist_ok=True)
    leads, samples = counts.shape
    header = np.array([30, leads, samples, 0, 4], "<i4").tobytes() + b"val\0"
    path.with_suffix(".mat").write_bytes(header + counts.T.tobytes())
    lines = [f"{path.name} {leads} {hz} {samples}"]
    for lead, row in zip(LEADS_ECGFOUNDER, counts, strict=True):
        checksum = int(row.astype(np.int64).sum() + 32768) % 65536 - 32768
        lines.append(f"{path.name}.mat 16x1+24 1000.0(0)/mV 16 0 {row[0]} {checksum} 0 {lead}")
    sex = {"F": "Female", "M": "Male"}[patient["sex"]]
    lines += [f"# Age: {patient['age_years']}", f"# Sex: {sex}", f"# Dx: {dx}"]
    lines += ["# Rx: Unknown", "# Hx: Unknown", "# Sx: Unknown"]
    path.with_suffix(".hea").write_text("\n".join(lines) + "\n", encoding="utf-8")
