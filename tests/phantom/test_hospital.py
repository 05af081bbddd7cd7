"""The data sets on disk: layouts of the real ones, complete or absent."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pydicom
import pytest
import wfdb
from PIL import Image

from pacx.constants import (
    ANATOMY_TASKS,
    CHESTX6_CLASSES,
    CHEXPERT_FINDINGS,
    ECG_DIAGNOSES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LABS,
    MEDMOD_PHENOTYPES,
    PHYSIOLOGY_TASKS,
)  # fmt: skip
from pacx.errors import PacxError
from pacx.phantom import cohort, hospital, state
from pacx.phantom.findings import VINDR_FINDINGS
from pacx.phantom.hospital import DATASETS, write_hospital
from pacx.phantom.layouts import SHARE_OF_MORE_DEVICES

SIZES = {
    "chexpert": {"train": 24, "val": 6},
    "symile-mimic": {"train": 20, "val": 10, "test": 12},
    "ecg-archive": {"train": 12},
    "chexchonet": {"train": 16},
    "medmod": {"train": 12},
    "chestx6": {"train": 12, "val": 6, "test": 6},
    "covid-qu-ex": {"train": 6, "val": 3, "test": 3},
    "tb": {"train": 16},
    "vindr-cxr": {"train": 12, "test": 6},
    "nih-14": {"train": 16, "test": 6},
    "qata-cov19": {"train": 10, "test": 4},
    "cxl-seg": {"train": 6, "val": 3, "test": 3},
    "actualmed": {"train": 10},
    "phantom-truth": {"train": 6, "val": 3, "test": 5},
}


def write(root, sizes=SIZES, seed=7, size=32):
    write_hospital(root, sizes, image_size=size, ecg_hz=100, seed=seed)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hospital")
    write(folder)
    return folder


def contents(folder):
    return {
        str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()
    }


def test_every_data_set_is_there(root):
    assert set(SIZES) == set(DATASETS)
    assert {f.name for f in root.iterdir()} == set(DATASETS)


def test_same_seed_same_files(root, tmp_path):
    sizes = {k: SIZES[k] for k in ("chexpert", "ecg-archive", "symile-mimic")}
    write(tmp_path, sizes)
    for name in sizes:
        assert contents(tmp_path / name) == contents(root / name)


def test_chexpert(root):
    base = root / "chexpert"
    train, valid = (pd.read_csv(base / f) for f in ("train.csv", "valid.csv"))
    wanted = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_FINDINGS]
    assert list(train) == list(valid) == wanted
    assert (
        train["Path"]
        .str.match(r"CheXpert-v1.0-small/train/patient\d{5}/study\d/view\d_(frontal|lateral).jpg")
        .all()
    )
    for path in pd.concat([train, valid])["Path"]:
        assert Image.open(base / path.split("/", 1)[1]).size == (32, 32)
    assert train["Path"].str.extract(r"(patient\d+)")[0].nunique() == 24
    assert train.loc[train["Frontal/Lateral"] == "Lateral", "AP/PA"].isna().all()
    assert valid[list(CHEXPERT_FINDINGS)].isin([0, 1]).all().all()


def test_symile_mimic(root):
    base = root / "symile-mimic"
    columns = ["subject_id", "hadm_id", "cxr_path", "ecg_path"]
    items = [str(lab.itemid) for lab in LABS]
    table = pd.read_csv(base / "train.csv")
    assert list(table) == [*columns, *items, *(f"{i}_percentile" for i in items)]
    for split, rows in {"train": 20, "val": 10, "val_retrieval": 100, "test": 120}.items():
        load = lambda name: np.load(base / "data_npy" / split / f"{name}_{split}.npy")  # noqa: B023, E731
        cxr, ecg = load("cxr"), load("ecg")
        assert cxr.shape == (rows, 3, 45, 45)
        assert cxr.dtype == np.float32
        assert ecg.shape == (rows, 1, 1000, 12)
        assert ecg.dtype == np.float32
        assert np.allclose(ecg.min(axis=(1, 2, 3)), -1)
        assert np.allclose(ecg.max(axis=(1, 2, 3)), 1)
        grey = cxr * np.reshape(IMAGENET_STD, (3, 1, 1)) + np.reshape(IMAGENET_MEAN, (3, 1, 1))
        assert grey.min() > -1e-5
        assert grey.max() < 1 + 1e-5
        observed, percentiles = load("labs_missingness"), load("labs_percentiles")
        assert observed.dtype == np.int64
        assert percentiles.dtype == np.float32
        csv = pd.read_csv(base / f"{split}.csv")
        assert np.array_equal(observed == 1, csv[items].notna())
        assert (percentiles >= 0).all()
        assert (percentiles <= 1).all()
        assert np.array_equal(load("hadm_id"), csv["hadm_id"])
        assert len(pd.read_csv(base / "data_npy" / split / "truth.csv")) == rows
    train, test = pd.read_csv(base / "train.csv"), pd.read_csv(base / "test.csv")
    assert not set(train["subject_id"]) & set(test["subject_id"])
    queries = test.groupby("label_hadm_id")
    assert (queries["label"].sum() == 1).all()
    assert (queries.size() == 10).all()
    assert (queries["hadm_id"].nunique() == 10).all()
    assert ((test["hadm_id"] == test["label_hadm_id"]) == (test["label"] == 1)).all()
    medmod = pd.read_csv(root / "medmod" / "medmod.csv")
    symile = pd.concat([train, test, pd.read_csv(base / "val.csv")])
    assert not set(medmod["subject_id"]) & set(symile["subject_id"])
    assert not set(medmod["hadm_id"]) & set(symile["hadm_id"])


def test_ecg_archive(root):
    base = root / "ecg-archive"
    records = (base / "RECORDS").read_text().split()
    assert len(records) == 12
    for name in records:
        record = wfdb.rdrecord(str(base / name))
        digital = wfdb.rdrecord(str(base / name), physical=False).d_signal.astype(int)
        assert record.fs == 100
        assert record.p_signal.shape == (1000, 12)
        assert set(record.units) == {"mV"}
        assert record.adc_gain == [1000.0] * 12
        assert record.checksum == [int(c) for c in wrapped(digital.sum(axis=0))]
        lead = {n: digital[:, k] for k, n in enumerate(record.sig_name)}
        assert np.abs(lead["II"] - lead["I"] - lead["III"]).max() <= 1
        comments = dict(c.split(": ") for c in record.comments)
        assert comments["Sex"] in ("Female", "Male")
        assert 18 <= int(comments["Age"]) <= 90
        assert set(comments["Dx"].split(",")) <= {*ECG_DIAGNOSES, "426783006"}


def wrapped(total):
    return (total + 32768) % 65536 - 32768


def test_chexchonet_and_medmod(root):
    table = pd.read_csv(root / "chexchonet" / "metadata.csv")
    assert table["patient_id"].nunique() == 16 < len(table)
    assert all((root / "chexchonet" / "images" / f).is_file() for f in table["cxr_filename"])
    assert (table.groupby("patient_id")["composite_slvh_dlv"].nunique() == 1).all()
    stays = pd.read_csv(root / "medmod" / "medmod.csv")
    assert list(stays) == ["subject_id", "hadm_id", "stay_id", "cxr_path", *MEDMOD_PHENOTYPES]
    assert all((root / "medmod" / path).is_file() for path in stays["cxr_path"])


def test_folder_data_sets(root):
    for split, count in SIZES["chestx6"].items():
        folders = {f.name: len(list(f.iterdir())) for f in (root / "chestx6" / split).iterdir()}
        assert set(folders) == set(CHESTX6_CLASSES)
        assert sum(folders.values()) == count
    base = root / "covid-qu-ex" / "Lung Segmentation Data" / "Lung Segmentation Data"
    images = list(base.glob("*/*/images/*.png"))
    assert len(images) == 12
    for image in images:
        mask = np.asarray(Image.open(image.parent.parent / "lung masks" / image.name))
        assert set(np.unique(mask)) == {0, 255}


def test_files_of_every_kind(root):
    """What readers must cope with is there: 16 bit, RGB, RGBA, both photometric interpretations."""
    modes = [Image.open(f).mode for f in (root / "tb" / "images" / "images").iterdir()]
    assert set(modes) == {"I;16", "RGB"}
    modes = [Image.open(f).mode for f in (root / "nih-14").rglob("*.png")]
    assert set(modes) == {"L", "RGBA"}
    assert modes.count("RGBA") < 3
    files = [pydicom.dcmread(f) for f in (root / "vindr-cxr").rglob("*.dicom")]
    assert len(files) == 18
    assert {f.BitsStored for f in files} == {12}
    assert {f.PhotometricInterpretation for f in files} == {"MONOCHROME1", "MONOCHROME2"}


def test_radiologists_disagree_now_and_then(root):
    folder = root / "vindr-cxr" / "annotations"
    votes = pd.read_csv(folder / "image_labels_train.csv")
    consensus = pd.read_csv(folder / "image_labels_test.csv")
    assert (votes.groupby("image_id")["rad_id"].nunique() == 3).all()
    labels = list(VINDR_FINDINGS)
    seen = votes.groupby("image_id")[labels].sum()
    assert (seen.isin([1, 2])).to_numpy().any()
    assert (seen == 3).to_numpy().any()
    assert len(labels) == 27
    assert "Other disease" in consensus
    assert "Other diseases" in votes
    nothing = votes[labels].sum(axis=1) == 0
    assert ((votes["No finding"] == 1) == nothing).all()


def test_nih_findings_and_lists(root):
    base = root / "nih-14"
    table = pd.read_csv(base / "Data_Entry_2017.csv").set_index("Image Index")
    lists = [(base / f).read_text().split() for f in ("train_val_list.txt", "test_list.txt")]
    assert sorted(lists[0] + lists[1]) == sorted(table.index)
    patients = [set(table.loc[names, "Patient ID"]) for names in lists]
    assert not patients[0] & patients[1]
    assert len(table) > len(patients[0] | patients[1])
    assert table["Finding Labels"].str.contains("|", regex=False).any()


def test_an_infection_is_where_the_disease_changed_the_film(root):
    base = root / "qata-cov19"
    truth = pd.read_csv(base / "truth.csv")
    assert (truth["mask_pixels"] > 5).all()
    assert (truth["mask_pixels"] < 32 * 32 / 3).all()
    assert truth["image"].str.startswith("sub-S").any()
    assert truth["image"].str.startswith("covid_").any()


def test_phantom_truth(root):
    base = root / "phantom-truth"
    table = pd.read_csv(base / "labels.csv")
    assert table["split"].value_counts().to_dict() == SIZES["phantom-truth"]
    assert {*PHYSIOLOGY_TASKS, *ANATOMY_TASKS, "state_fluid", "sex", "age_years"} <= set(table)
    for image in table["image"]:
        name = image.removeprefix("images/")
        assert Image.open(base / image).size == (32, 32)
        for mask in ("lungs", "heart", "bones", "devices", "body"):
            assert (base / "masks" / mask / name).is_file()


def test_the_split_of_another_hospital_is_darker_and_has_more_devices(tmp_path):
    sizes = {"test": 300, "shifted": 300}
    write(tmp_path, {"phantom-truth": sizes})
    base = tmp_path / "phantom-truth"
    table = pd.read_csv(base / "labels.csv").set_index("split")
    assert table.index.value_counts().to_dict() == sizes
    grey = table["image"].map(lambda name: np.asarray(Image.open(base / name)).mean())
    assert grey["shifted"].mean() < grey["test"].mean() - 5
    for device in ("pacemaker", "tube"):
        share = state.FACTS[device][0]
        error = 4 * np.sqrt(0.25 / 300)
        assert table.loc["test", device].mean() == pytest.approx(share, abs=error)
        expected = share + SHARE_OF_MORE_DEVICES * (1 - share)
        assert table.loc["shifted", device].mean() == pytest.approx(expected, abs=error)
    # Neither the patients nor what ails them is different.
    states = table.filter(like="state_")
    assert (states.loc["shifted"].mean() - states.loc["test"].mean()).abs().max() < 0.33
    assert not set(table.loc["shifted", "patient"]) & set(table.loc["test", "patient"])


def _truth_of_pairs(root):
    """Split -> `truth.csv`, and the very patients that were drawn, by admission."""
    base = root / "symile-mimic"
    settings = json.loads((base / "phantom.json").read_text())
    names = {"splits": "patients", "image_size": "image_size", "ecg_hz": "ecg_hz"}
    facts = {ours: settings[theirs] for ours, theirs in names.items()}
    facts |= {name: settings[name] for name in ("coupling", "lag_days", "drift")}
    seed = cohort.seed_of(settings["seed"], "symile-mimic")
    drawn = cohort.Cohort(seed=seed, bar=None, **facts)
    patients = drawn.patients()
    patients.index = 20_000_001 + 3 * np.arange(len(patients))  # hadm_id
    splits = ("train", "val", "val_retrieval", "test")
    return {s: pd.read_csv(base / "data_npy" / s / "truth.csv") for s in splits}, patients, seed


def test_tasks_beside_the_pairs_are_those_of_their_patients(root):
    truth, patients, seed = _truth_of_pairs(root)
    tasks = state.task_labels(patients, seed)
    for split, table in truth.items():
        members = table["hadm_id"]
        expected = tasks.loc[members].reset_index(drop=True)
        pd.testing.assert_frame_equal(table[list(tasks)], expected, check_names=False)
        found = table.filter(like="state_").rename(columns=lambda name: name[6:])
        known = patients.loc[members, list(state.STATES)].reset_index(drop=True)
        np.testing.assert_allclose(found, known, atol=1e-4)
        ids = np.load(root / "symile-mimic" / "data_npy" / split / f"hadm_id_{split}.npy")
        assert np.array_equal(members, ids)
    everybody = pd.concat(truth.values()).drop_duplicates("hadm_id")
    for task, name in state.TASK_STATES.items():
        ill = everybody[task] == 1
        gap = everybody.loc[ill, f"state_{name}"].mean()
        assert gap > everybody.loc[~ill, f"state_{name}"].mean() + 0.8, task


def test_the_time_between_x_ray_and_ecg_is_written_beside_the_pairs(root, tmp_path):
    """It moves acute states only for ECG and labs: X-rays and labels are of its start."""
    assert (_truth_of_pairs(root)[0]["train"]["lag_days"] == 0).all()
    sizes = {"symile-mimic": {"train": 200, "val": 10, "test": 12}}
    for folder, drift in (("now", 0.0), ("later", 0.3)):
        write_hospital(tmp_path / folder, sizes, 32, 100, 7, lag_days=0.5, drift=drift)
    (now, _, _), (later, _, _) = (_truth_of_pairs(tmp_path / f) for f in ("now", "later"))
    for split in now:
        pd.testing.assert_frame_equal(now[split], later[split])
    days = later["train"]["lag_days"]
    assert (days > 0).all()
    assert days.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(200))

    def load(folder, name, split="train"):
        return np.load(
            tmp_path / folder / "symile-mimic" / "data_npy" / split / f"{name}_{split}.npy"
        )

    assert np.array_equal(load("now", "cxr"), load("later", "cxr"))
    for name in ("ecg", "labs_percentiles"):
        assert not np.array_equal(load("now", name), load("later", name)), name


def test_no_patient_is_in_two_data_sets(root):
    truth = pd.read_csv(root / "phantom-truth" / "labels.csv")["state_age"]
    paired = pd.read_csv(root / "symile-mimic" / "data_npy" / "train" / "truth.csv")["state_age"]
    assert not set(truth) & set(paired)


def test_kept_when_complete_refused_when_different(root):
    note = root / "medmod" / "phantom.json"
    before = note.stat().st_mtime_ns
    write(root)
    assert note.stat().st_mtime_ns == before
    with pytest.raises(PacxError, match="phantoms of other settings"):
        write(root, seed=8)
    assert json.loads(note.read_text())["seed"] == 7


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def stop(image, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(cohort, "_encode", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, {"medmod": {"train": 4}})
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    write(tmp_path, {"medmod": {"train": 4}})
    assert (tmp_path / "medmod" / "medmod.csv").is_file()


@pytest.mark.parametrize(
    "sizes",
    [{"medmod": {"shifted": 5}}, {"symile-mimic": {"train": 20}}, {"tb": {}},
     {"chexpert": {"train": 4, "test": 2}}],
)  # fmt: skip
def test_impossible_settings(tmp_path, sizes):
    with pytest.raises(PacxError):
        write(tmp_path, sizes)


def test_no_two_splits_share_their_noise(tmp_path):
    """Row i of each split is drawn from a seed of its own; val_retrieval shows val's patients."""
    write(tmp_path, {"symile-mimic": {"train": 40, "val": 40, "test": 40}})
    base = tmp_path / "symile-mimic" / "data_npy"

    def load(name, split):
        return np.load(base / split / f"{name}_{split}.npy")[:40].astype(np.float64)

    for name, axes in (("cxr", (2, 3)), ("ecg", (2,))):
        noise = {}
        for split in ("train", "val", "test"):
            rough = load(name, split)
            for axis in axes:
                rough = np.diff(rough, n=2, axis=axis)
            noise[split] = rough.reshape(40, -1)
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(noise[one], noise[other], strict=True)]
            assert abs(np.mean(alike)) < 0.05, (name, one, other)
        assert np.array_equal(load(name, "val"), load(name, "val_retrieval"))


def test_two_writers_draw_a_data_set_once(tmp_path, monkeypatch):
    draw, drawn = hospital.WRITERS["medmod"], []
    monkeypatch.setitem(
        hospital.WRITERS, "medmod", lambda root, cohort: drawn.append(draw(root, cohort))
    )
    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, tmp_path, {"medmod": {"train": 4}}) for _ in range(2)]
        for writer in writers:
            writer.result()
    assert len(drawn) == 1
    assert [f.name for f in tmp_path.iterdir()] == ["medmod"]


def test_other_code_draws_anew(tmp_path, monkeypatch):
    write(tmp_path, {"medmod": {"train": 4}})
    before = (tmp_path / "medmod" / "phantom.json").read_text()
    monkeypatch.setattr(hospital, "code_of", lambda module: "changed")
    write(tmp_path, {"medmod": {"train": 4}})
    assert (tmp_path / "medmod" / "phantom.json").read_text() != before


def test_folder_of_something_else(tmp_path):
    (tmp_path / "medmod").mkdir()
    with pytest.raises(PacxError, match="not a phantom"):
        write(tmp_path, {"medmod": {"train": 4}})
