"""One function a data set: draws its patients and writes them as the real data set lies on disk."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from PIL import Image
from tqdm.auto import tqdm

from pacx.constants import CHESTX6_CLASSES, LABS, LEADS_ECGFOUNDER, LEADS_MIMIC
from pacx.phantom import state
from pacx.phantom.ecg import diagnoses, render_ecgs
from pacx.phantom.labs import draw_labs
from pacx.phantom.radiograph import render_laterals, render_radiographs

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
CANDIDATES = 10
BLOCK = 512  # images rendered before they are written


@dataclass(frozen=True)
class Cohort:
    """How many patients, from which seed, drawn how; `bar` counts what is written."""

    splits: dict[str, int]
    image_size: int
    ecg_hz: int
    seed: int
    coupling: float
    bar: tqdm

    def patients(self) -> pd.DataFrame:
        """All patients of the data set, with their `split`."""
        patients = state.sample_patients(sum(self.splits.values()), self.seed)
        return patients.assign(split=np.repeat(list(self.splits), list(self.splits.values())))

    def films(self, patients: pd.DataFrame, size: int, masks: bool = False) -> Iterator[tuple]:
        """Blocks of (row numbers, images, masks)."""
        for number, start in enumerate(range(0, len(patients), BLOCK)):
            rows = np.arange(start, min(start + BLOCK, len(patients)))
            seed = self.seed + 7919 * (number + 1)
            yield rows, *render_radiographs(
                patients.iloc[rows], size, seed, masks=masks, coupling=self.coupling
            )


def write_chexpert(root: Path, cohort: Cohort) -> None:
    """CheXpert-v1.0-small: `train.csv`, `valid.csv`, frontal views and some laterals."""
    patients = cohort.patients()
    rng = np.random.default_rng([cohort.seed, 41])
    patients["patient"] = [f"patient{i + 1:05d}" for i in range(len(patients))]
    patients["folder"] = patients["split"].map({"train": "train", "val": "valid"})
    twice = (patients["split"] == "train") & (rng.random(len(patients)) < 0.15)
    studies = pd.concat([patients.assign(study=1), _another_day(patients[twice], rng)])
    studies = studies.sort_values(["patient", "study"], ignore_index=True)
    certain = state.chexpert_findings(studies, cohort.seed, certain=True)
    findings = state.chexpert_findings(studies, cohort.seed)
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
    for rows, images, _ in cohort.films(studies, cohort.image_size):
        _save(cohort, images, [root / f"{p}/view1_frontal.jpg" for p in study_path.iloc[rows]])
    side_view = render_laterals(studies[has_lateral], cohort.image_size, cohort.seed)
    _save(cohort, side_view, [root / f"{p}/view2_lateral.jpg" for p in study_path[has_lateral]])
    table = pd.concat([frontal, lateral]).sort_values("Path")
    for split, file in (("train", "train.csv"), ("val", "valid.csv")):
        table[studies["split"].reindex(table.index) == split].to_csv(root / file, index=False)


def write_symile_mimic(root: Path, cohort: Cohort) -> None:
    """Symile-MIMIC 1.0.0: tables, and arrays in `data_npy/<split>/`, one row an admission.

    As in the original, `labs_missingness` is 1 where a lab WAS measured, missing percentiles hold
    the training mean, and `test.csv` lists each query's ten candidates: the true pairs first
    (label 1), then nine others a query (label 0). `truth.csv` beside the arrays is ours.
    """
    patients = cohort.patients()
    n = len(patients)
    labs = draw_labs(patients, cohort.seed)
    in_train = (patients["split"] == "train").to_numpy()
    percentiles = _percentiles(labs, labs[in_train])
    itemids = [str(lab.itemid) for lab in LABS]
    ids = 10_000_001 + 3 * np.arange(n)
    table = pd.DataFrame({"subject_id": ids, "hadm_id": ids + 10_000_000})
    table["cxr_path"] = [_mimic_cxr_path(i, i + 40_000_000) for i in ids]
    table["ecg_path"] = [f"files/p{i // 10_000}/p{i}/s{i + 30_000_000}/{i + 30_000_000}" for i in ids]
    table = pd.concat(
        [
            table,
            pd.DataFrame(labs.round(3), columns=itemids),
            pd.DataFrame(percentiles, columns=[f"{i}_percentile" for i in itemids]),
        ],
        axis=1,
    )
    average = np.nanmean(percentiles[in_train], axis=0)
    rng = np.random.default_rng([cohort.seed, 42])
    for split, source in {
        "train": "train", "val": "val", "val_retrieval": "val", "test": "test"
    }.items():  # fmt: skip
        members = np.flatnonzero(patients["split"] == source)
        picked = np.arange(len(members))
        part = table.iloc[members]
        if split in ("val_retrieval", "test"):
            picked, query = _candidates(len(members), rng)
            part = part.iloc[picked].assign(
                label_hadm_id=table["hadm_id"].to_numpy()[members][query],
                label=(picked == query).astype(int),
            )
        part.to_csv(root / f"{split}.csv", index=False)
        folder = root / "data_npy" / split
        folder.mkdir(parents=True)
        rows = members[picked]
        arrays = {
            "labs_percentiles": np.where(np.isnan(percentiles), average, percentiles)[rows].astype(
                np.float32
            ),
            "labs_missingness": (~np.isnan(labs))[rows].astype(np.int64),
            "hadm_id": part["hadm_id"].to_numpy(),
        }
        arrays |= {c: part[c].to_numpy() for c in ("label_hadm_id", "label") if c in part}
        for name, array in arrays.items():
            np.save(folder / f"{name}_{split}.npy", array)
        _truth(patients.iloc[rows], part["hadm_id"]).to_csv(folder / "truth.csv", index=False)
        _write_pair_arrays(folder, split, patients.iloc[members], picked, cohort)


def write_ecg_archive(root: Path, cohort: Cohort) -> None:
    """PhysioNet/CinC 2021: WFDB headers with SNOMED codes, 16-bit MATLAB v4 signals."""
    patients = cohort.patients()
    codes = diagnoses(patients, cohort.seed)
    reorder = [LEADS_MIMIC.index(lead) for lead in LEADS_ECGFOUNDER]
    signals = render_ecgs(patients, cohort.ecg_hz, cohort.seed)[:, reorder]
    counts = np.clip(np.rint(signals * 1000), -32767, 32767).astype("<i2")
    records = [f"g{i // 1000 + 1}/P{i + 1:05d}" for i in range(len(patients))]
    for record, values, found, (_, patient) in zip(
        records, counts, codes.to_numpy(), patients.iterrows(), strict=True
    ):
        present = ",".join(codes.columns[found]) or "426783006"  # sinus rhythm
        _write_wfdb(root / record, values, cohort.ecg_hz, patient, present)
        cohort.bar.update()
    (root / "RECORDS").write_text("\n".join(records) + "\n", encoding="utf-8")


def write_chexchonet(root: Path, cohort: Cohort) -> None:
    """CheXchoNet 1.0.0: `metadata.csv` and `images/`; a quarter of the patients come twice."""
    patients = cohort.patients()
    rng = np.random.default_rng([cohort.seed, 43])
    patients["patient_id"] = [f"E{i:06d}" for i in range(len(patients))]
    patients = pd.concat([patients, state.echo_labels(patients, cohort.seed)], axis=1)
    again = rng.random(len(patients)) < 0.25
    films = pd.concat([patients.assign(study=1), _another_day(patients[again], rng)])
    films = films.sort_values(["patient_id", "study"], ignore_index=True)
    films["cxr_filename"] = films["patient_id"] + "_" + films["study"].astype(str) + ".png"
    columns = {"age_years": "age", "pacemaker": "pacemaker_or_icd"}
    table = films.rename(columns=columns)[
        ["patient_id", "cxr_filename", "age", "sex", "ivsd", "lvpwd", "lvidd",
         "pacemaker_or_icd", "slvh", "dlv", "composite_slvh_dlv"]
    ]  # fmt: skip
    for rows, images, _ in cohort.films(films, cohort.image_size):
        _save(cohort, images, [root / "images" / f for f in films["cxr_filename"].iloc[rows]])
    table.astype({"pacemaker_or_icd": int}).to_csv(root / "metadata.csv", index=False)


def write_medmod(root: Path, cohort: Cohort) -> None:
    """MedMod: one row a stay in `medmod.csv`, X-rays in MIMIC-CXR-JPG's folders."""
    patients = cohort.patients()
    ids = 15_000_001 + 3 * np.arange(len(patients))
    paths = [_mimic_cxr_path(i, i + 40_000_000) for i in ids]
    for rows, images, _ in cohort.films(patients, cohort.image_size):
        _save(cohort, images, [root / paths[i] for i in rows])
    stays = pd.DataFrame(
        {"subject_id": ids, "hadm_id": ids + 10_000_000, "stay_id": ids + 20_000_000,
         "cxr_path": paths}
    )  # fmt: skip
    phenotypes = state.phenotype_labels(patients, cohort.seed)
    pd.concat([stays, phenotypes], axis=1).to_csv(root / "medmod.csv", index=False)


def write_chestx6(root: Path, cohort: Cohort) -> None:
    """ChestX6: `<split>/<class>/<file>`, a sixth of the images in each class."""
    patients = cohort.patients()
    patients["pattern"] = np.resize(CHESTX6_CLASSES, len(patients))
    for rows, images, _ in cohort.films(_otherwise_well(patients), cohort.image_size):
        part = patients.iloc[rows]
        paths = [
            root / split / pattern / f"{pattern.lower()}-{i:05d}.jpg"
            for i, split, pattern in zip(rows, part["split"], part["pattern"], strict=True)
        ]
        _save(cohort, images, paths)


def write_covid_qu_ex(root: Path, cohort: Cohort) -> None:
    """COVID-QU-Ex: X-rays with lung masks of the same name, a third of them in each class."""
    patients = cohort.patients()
    classes = {"COVID-19": "Covid-19", "Non-COVID": "Pneumonia-Bacterial", "Normal": "Normal"}
    folder = np.resize(list(classes), len(patients))
    patients["pattern"] = pd.Series(folder).map(classes).to_numpy()
    base = root / "Lung Segmentation Data" / "Lung Segmentation Data"
    films = cohort.films(_otherwise_well(patients), cohort.image_size, masks=True)
    for rows, images, masks in films:
        folders = [base / patients["split"].iloc[i].title() / folder[i] for i in rows]
        names = [f"{folder[i].lower()}_{i:05d}.png" for i in rows]
        files = list(zip(folders, names, strict=True))
        _save(cohort, images, [f / "images" / name for f, name in files])
        _save(cohort, masks["lungs"], [f / "lung masks" / name for f, name in files])


def write_phantom_truth(root: Path, cohort: Cohort) -> None:
    """The truth that no real data set has: task labels, states and exact masks."""
    patients = cohort.patients()
    names = [f"T{i:06d}" for i in range(len(patients))]
    for rows, images, masks in cohort.films(patients, cohort.image_size, masks=True):
        _save(cohort, images, [root / "images" / f"{names[i]}.png" for i in rows])
        for mask, drawn in masks.items():
            _save(cohort, drawn, [root / "masks" / mask / f"{names[i]}.png" for i in rows])
    table = pd.DataFrame(
        {"patient": names, "split": patients["split"], "image": [f"images/{n}.png" for n in names]}
    )
    labels = state.task_labels(patients, cohort.seed)
    truth = _truth(patients, table["patient"]).drop(columns="patient")
    pd.concat([table, labels, truth], axis=1).to_csv(root / "labels.csv", index=False)


def _another_day(patients: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The same patients at a second visit: positioned anew, the same body."""
    rotation = rng.standard_normal(len(patients)).astype(np.float32)
    return patients.assign(study=2, rotation=rotation, ap_view=rng.random(len(patients)) < 0.5)


def _otherwise_well(patients: pd.DataFrame) -> pd.DataFrame:
    """Class folders hold one disease a picture: what else ails these patients is mild."""
    lungs = ["fluid", "inflammation", "copd"]
    milder = patients[lungs].mul(0.5) - 0.5
    return patients.assign(**milder, pneumothorax=False)


def _truth(patients: pd.DataFrame, key: pd.Series) -> pd.DataFrame:
    states = patients[list(state.STATES)].add_prefix("state_").round(4)
    facts = patients[["sex", "age_years", "bmi_value"]]
    table = pd.concat([facts, states], axis=1).reset_index(drop=True)
    table.insert(0, key.name, key.to_numpy())
    return table


def _percentiles(labs: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Percentile of every value in the training split's empirical CDF; NaN stays NaN."""
    percentiles = np.full(labs.shape, np.nan)
    for column in range(labs.shape[1]):
        known = np.sort(train[~np.isnan(train[:, column]), column])
        seen = ~np.isnan(labs[:, column])
        rank = np.searchsorted(known, labs[seen, column], side="right")
        percentiles[seen, column] = rank / max(len(known), 1)
    return percentiles


def _candidates(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a retrieval table as (candidate, query): n true pairs, then nine others a query."""
    others = [rng.choice(n - 1, CANDIDATES - 1, replace=False) for _ in range(n)]
    others = np.stack([o + (o >= query) for query, o in enumerate(others)]).ravel()
    queries = np.arange(n)
    return np.concatenate([queries, others]), np.concatenate(
        [queries, np.repeat(queries, CANDIDATES - 1)]
    )


def _write_pair_arrays(
    folder: Path, split: str, patients: pd.DataFrame, picked: np.ndarray, cohort: Cohort
) -> None:
    """X-rays and ECGs of `patients[picked]`; each patient is rendered once."""
    size, samples = cohort.image_size * 10 // 7, cohort.ecg_hz * 10
    shape = {"cxr": (3, size, size), "ecg": (1, samples, 12)}
    cxr, ecg = (
        open_memmap(folder / f"{name}_{split}.npy", "w+", np.float32, (len(picked), *shape[name]))
        for name in ("cxr", "ecg")
    )
    for rows, images, _ in cohort.films(patients, size):
        signals = render_ecgs(patients.iloc[rows], cohort.ecg_hz, cohort.seed + int(rows[0]))
        signals = signals.transpose(0, 2, 1)
        low = signals.min(axis=(1, 2), keepdims=True)
        high = signals.max(axis=(1, 2), keepdims=True)
        signals = 2 * (signals - low) / (high - low) - 1
        for target in np.flatnonzero((picked >= rows[0]) & (picked <= rows[-1])):
            row = picked[target] - rows[0]
            grey = images[row].astype(np.float32)[None] / 255
            cxr[target] = (grey - IMAGENET_MEAN[:, None, None]) / IMAGENET_STD[:, None, None]
            ecg[target, 0] = signals[row]
            cohort.bar.update()
    cxr.flush()
    ecg.flush()


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


def _mimic_cxr_path(subject: int, study: int) -> str:
    code = hashlib.sha256(f"{subject}/{study}".encode()).hexdigest()[:40]
    dicom_id = "-".join(code[k : k + 8] for k in range(0, 40, 8))
    return f"files/p{str(subject)[:2]}/p{subject}/s{study}/{dicom_id}.jpg"


def _save(cohort: Cohort, images: np.ndarray, paths: list[Path]) -> None:
    """Encodes images (bool masks as 0 and 255) to JPEG or PNG files."""
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    if images.dtype == bool:
        images = images.astype(np.uint8) * 255
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda i: _encode(images[i], paths[i]), range(len(paths))):
            cohort.bar.update()


def _encode(image: np.ndarray, path: Path) -> None:
    options = {"quality": 92} if path.suffix == ".jpg" else {"compress_level": 1}
    Image.fromarray(image).save(path, **options)
