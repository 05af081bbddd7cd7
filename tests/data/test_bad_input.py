"""Each reader on spoilt data: one clear error that says what is wrong and where."""

import re

import numpy as np
import pandas as pd
import pytest
from tiny_hospital import WITH_IMAGES, copy, hospital

from pacx.data.datasets import load_dataset
from pacx.data.datasets.ecg_archive import load_ecg_archive
from pacx.data.datasets.symile_mimic import load_pairs, looks_inverted
from pacx.data.images import load_images
from pacx.errors import PacxError

VINDR = "annotations/image_labels_train.csv"
COVID = "Lung Segmentation Data/Lung Segmentation Data"
QATA = "QaTa-COV19-v2"
#: Data set -> its main table and a column that its reader needs.
TABLES = {
    "chexpert": ("train.csv", "Path"),
    "tb": ("shenzhen_metadata.csv", "findings"),
    "chexchonet": ("metadata.csv", "composite_slvh_dlv"),
    "vindr-cxr": (VINDR, "Pneumonia"),
    "nih-14": ("Data_Entry_2017.csv", "Finding Labels"),
    "medmod": ("medmod.csv", "Shock"),
    "cxl-seg": ("CXLSeg-split.csv", "subject_id"),
    "actualmed": ("metadata.csv", "finding"),
    "symile-mimic": ("train.csv", "hadm_id"),
}


def read(name, root):
    if name == "symile-mimic":
        return load_pairs(root, "train", 32, root / "cache")
    return load_dataset(name, root)


def refused(name, root, *words):
    """The reader's error holds all the words."""
    with pytest.raises(PacxError) as caught:
        read(name, root)
    for word in words:
        assert word in str(caught.value)


def edit(path, column, value, row=0):
    table = pd.read_csv(path)
    table[column] = table[column].astype(object)
    table.loc[row, column] = value
    table.to_csv(path, index=False)


@pytest.mark.parametrize("name", [*WITH_IMAGES, "symile-mimic"])
def test_missing_folder(name, tmp_path):
    refused(name, tmp_path, str(tmp_path / name), "missing")


@pytest.mark.parametrize("name", TABLES)
def test_missing_table(name, tmp_path):
    file = copy(name, tmp_path) / TABLES[name][0]
    file.unlink()
    refused(name, tmp_path, str(file), "missing")


@pytest.mark.parametrize("name", TABLES)
def test_missing_column(name, tmp_path):
    path, column = copy(name, tmp_path) / TABLES[name][0], TABLES[name][1]
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    refused(name, tmp_path, path.name, column, "lacks")


@pytest.mark.parametrize("name", TABLES)
def test_table_that_is_not_utf8(name, tmp_path):
    path = copy(name, tmp_path) / TABLES[name][0]
    path.write_bytes(path.read_bytes() + "Zürich".encode("latin-1"))
    refused(name, tmp_path, str(path), "UTF-8")


def test_text_files_that_are_not_utf8(tmp_path):
    path = copy("nih-14", tmp_path) / "test_list.txt"
    path.write_bytes(path.read_bytes() + b"\nZ\xfcrich.png")
    refused("nih-14", tmp_path, str(path), "UTF-8")
    header = next(copy("ecg-archive", tmp_path).rglob("*.hea"))
    header.write_bytes(header.read_bytes() + b"# Z\xfcrich\n")
    with pytest.raises(PacxError, match=re.escape(header.name)):
        load_ecg_archive(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("chexpert", "valid.csv"),
        ("vindr-cxr", "annotations/image_labels_test.csv"),
        ("nih-14", "train_val_list.txt"),
        ("symile-mimic", "data_npy/train/labs_missingness_train.npy"),
        ("symile-mimic", "data_npy/train/hadm_id_train.npy"),
    ],
)
def test_other_missing_files(name, path, tmp_path):
    (copy(name, tmp_path) / path).unlink()
    refused(name, tmp_path, path.rsplit("/", 1)[-1], "missing")


@pytest.mark.parametrize(
    ("name", "path"),
    [("chestx6", "val"), ("covid-qu-ex", f"{COVID}/Val"), ("qata-cov19", f"{QATA}/Test Set/Images"),
     ("vindr-cxr", "test")],
)  # fmt: skip
def test_missing_folders_of_a_split(name, path, tmp_path):
    folder = copy(name, tmp_path) / path
    folder.rename(tmp_path / "elsewhere")
    refused(name, tmp_path, str(folder), "missing")


@pytest.mark.parametrize(
    ("name", "masks"),
    [("covid-qu-ex", f"{COVID}/Train/*/lung masks/*"), ("qata-cov19", f"{QATA}/Train Set/G*/*")],
)
def test_image_without_a_mask(name, masks, tmp_path):
    mask = next(copy(name, tmp_path).glob(masks))
    mask.unlink()
    refused(name, tmp_path, mask.name, "no mask")


@pytest.mark.parametrize("name", WITH_IMAGES)
@pytest.mark.parametrize("harm", ["missing", "truncated"])
def test_broken_images(name, harm, tmp_path):
    copy(name, tmp_path)
    data = load_dataset(name, tmp_path)
    path = data.root / data.table["image"][1]
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PacxError, match=re.escape(path.name)):
        load_images(data.root, list(data.table["image"]), 32, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


@pytest.mark.parametrize("kind", ["empty", "zip", "endless"])
def test_files_that_are_no_array(kind, tmp_path):
    path = copy("symile-mimic", tmp_path) / "data_npy" / "train" / "ecg_train.npy"
    with path.open("wb") as file:
        if kind == "zip":
            np.savez(file, ecg=np.zeros(40))
        elif kind == "endless":
            header = {"descr": "<f4", "fortran_order": False, "shape": (10**30,)}
            np.lib.format.write_array_header_1_0(file, header)
    refused("symile-mimic", tmp_path, str(path), "not a readable .npy array")


def test_truncated_arrays(tmp_path):
    path = copy("symile-mimic", tmp_path) / "data_npy" / "train" / "ecg_train.npy"
    path.write_bytes(path.read_bytes()[:5000])
    refused("symile-mimic", tmp_path, "ecg_train.npy", "not a readable")


@pytest.mark.parametrize(
    ("name", "split"), [("cxl-seg", "validate"), ("vindr-cxr", None), ("symile-mimic", None)]
)
def test_empty_split(name, split, tmp_path):
    folder = copy(name, tmp_path)
    if name == "cxl-seg":
        table = pd.read_csv(folder / "CXLSeg-split.csv")
        table[table["split"] != split].to_csv(folder / "CXLSeg-split.csv", index=False)
        with pytest.raises(PacxError, match="split 'val' is empty"):
            read(name, tmp_path).split("val")
    elif name == "vindr-cxr":
        path = folder / "annotations" / "image_labels_test.csv"
        pd.read_csv(path)[:0].to_csv(path, index=False)
        with pytest.raises(PacxError, match="split 'test' is empty"):
            read(name, tmp_path).split("test")
    else:
        pd.read_csv(folder / "train.csv")[:0].to_csv(folder / "train.csv", index=False)
        refused(name, tmp_path, "train.csv", "no pair")


@pytest.mark.parametrize(
    ("name", "path", "column", "value"),
    [
        ("chexpert", "train.csv", "Edema", 7),
        ("chexpert", "train.csv", "Edema", "inf"),
        ("tb", "shenzhen_metadata.csv", "findings", None),
        ("chexchonet", "metadata.csv", "composite_slvh_dlv", 3),
        ("chexchonet", "metadata.csv", "composite_slvh_dlv", "inf"),
        ("vindr-cxr", VINDR, "Pneumonia", 2),
        ("vindr-cxr", VINDR, "Pneumonia", None),
        ("vindr-cxr", "annotations/image_labels_test.csv", "Pneumonia", "maybe"),
        ("nih-14", "Data_Entry_2017.csv", "Finding Labels", "Mass|Ghost"),
        ("nih-14", "Data_Entry_2017.csv", "Finding Labels", None),
        ("medmod", "medmod.csv", "Shock", "yes"),
        ("cxl-seg", "CXLSeg-split.csv", "split", "holdout"),
        ("actualmed", "metadata.csv", "finding", "Ghost"),
    ],
)
def test_unknown_label(name, path, column, value, tmp_path):
    edit(copy(name, tmp_path) / path, column, value)
    where = {"findings": "row 0", "Finding Labels": "inding", "split": "split"}.get(column, "")
    refused(name, tmp_path, name, where or ("label" if name == "vindr-cxr" else column))


def test_vindr_row_without_an_image(tmp_path):
    edit(copy("vindr-cxr", tmp_path) / VINDR, "image_id", None, row=4)
    refused("vindr-cxr", tmp_path, "image_labels_train.csv", "row 4", "image_id is empty")


def test_ecg_headers_in_upper_case_are_not_passed_over(tmp_path):
    header = next(copy("ecg-archive", tmp_path).rglob("*.hea"))
    header.rename(header.with_suffix(".HEA"))
    with pytest.raises(PacxError, match=rf"{header.stem}\.HEA.*lower case"):
        load_ecg_archive(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("text", ["", "garbage\n", "A 12 100 1000\n", "A 0 100\n", "A 12 100\n"])
def test_first_ecg_header_that_is_broken(text, tmp_path):
    header = copy("ecg-archive", tmp_path) / "g0" / "A.hea"
    header.parent.mkdir()
    header.write_text(f"{text}# Dx: 1\n")
    with pytest.raises(PacxError, match=r"A\.hea"):
        load_ecg_archive(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("name", ["chestx6", "covid-qu-ex", "qata-cov19"])
def test_files_of_operating_systems_are_passed_over(name, tmp_path):
    root = copy(name, tmp_path)
    before = load_dataset(name, tmp_path).table
    for folder in {(root / image).parent for image in before["image"]}:
        (folder / ".DS_Store").touch()
        (folder / "Thumbs.db").touch()
    if name == "chestx6":
        (root / "train" / ".ipynb_checkpoints").mkdir()
    assert load_dataset(name, tmp_path).table.equals(before)


def test_upper_case_suffixes_and_numbers_as_names(tmp_path):
    root = copy("vindr-cxr", tmp_path)
    before = load_dataset("vindr-cxr", tmp_path).table["image"]
    first = root / before[0]
    first.rename(first.with_suffix(".DICOM"))
    image = load_dataset("vindr-cxr", tmp_path).table["image"]
    assert image[0] == before[0].replace(".dicom", ".DICOM")
    path = copy("actualmed", tmp_path) / "metadata.csv"
    table = pd.read_csv(path)
    table.assign(image=range(len(table))).to_csv(path, index=False)
    assert load_dataset("actualmed", tmp_path).table["image"][3] == "images/3"


def test_symile_ids_as_a_merge_writes_them(tmp_path):
    path = copy("symile-mimic", tmp_path) / "val.csv"
    before = load_pairs(tmp_path, "val", 32, tmp_path / "cache").table
    table = pd.read_csv(path)
    table.astype({"subject_id": float, "hadm_id": float}).to_csv(path, index=False)
    after = load_pairs(tmp_path, "val", 32, tmp_path / "cache").table
    assert after[["patient", "study"]].equals(before[["patient", "study"]])


def test_pairs_follow_the_rows_that_are_chosen(tmp_path):
    path = copy("symile-mimic", tmp_path) / "test.csv"
    first = load_pairs(tmp_path, "test", 32, tmp_path / "cache")
    table = pd.read_csv(path)
    table["label"] = np.roll(table["label"], 1)
    table.to_csv(path, index=False)
    second = load_pairs(tmp_path, "test", 32, tmp_path / "cache")
    assert np.array_equal(second.cxr[:-1], first.cxr[1:])
    assert np.array_equal(second.ecg[:-1], first.ecg[1:])


def test_ecgs_follow_their_signal_files(tmp_path):
    signal = sorted(copy("ecg-archive", tmp_path).rglob("*.mat"))[0]
    first = np.array(load_ecg_archive(tmp_path, tmp_path / "cache").ecg)
    content = np.frombuffer(signal.read_bytes()[24:], "<i2")
    signal.write_bytes(signal.read_bytes()[:24] + (content // 2 + 100).tobytes()[::-1])
    second = load_ecg_archive(tmp_path, tmp_path / "cache").ecg
    assert not np.array_equal(first[0], second[0])
    assert np.array_equal(first[1:], second[1:])


def test_unknown_class_folder(tmp_path):
    (copy("chestx6", tmp_path) / "train" / "Ghost").mkdir()
    refused("chestx6", tmp_path, "Ghost", "unknown class")


def test_nih_image_in_both_lists_or_in_none(tmp_path):
    folder = copy("nih-14", tmp_path)
    lists = folder / "train_val_list.txt", folder / "test_list.txt"
    texts = [path.read_text() for path in lists]
    name = texts[1].split()[0]
    lists[0].write_text(f"{texts[0]}\n{name}")
    refused("nih-14", tmp_path, name, "in train_val_list.txt and in test_list.txt")
    lists[0].write_text(texts[0])
    lists[1].write_text(texts[1].replace(name, ""))
    refused("nih-14", tmp_path, name, "in neither")


@pytest.mark.parametrize(
    ("name", "path", "column", "value"),
    [
        ("chexpert", "train.csv", "Path", "x/../../patient00001/study1/x.jpg"),
        ("tb", "shenzhen_metadata.csv", "study_id", "../../../x.png"),
        ("chexchonet", "metadata.csv", "cxr_filename", "../../x.png"),
        ("vindr-cxr", "annotations/image_labels_test.csv", "image_id", "../../x"),
        ("medmod", "medmod.csv", "cxr_path", "/etc/passwd"),
        ("cxl-seg", "CXLSeg-split.csv", "dicom_id", "../../../../../x"),
        ("actualmed", "metadata.csv", "image", "..\\..\\x.jpg"),
    ],
)
def test_path_that_climbs_out(name, path, column, value, tmp_path):
    folder = copy(name, tmp_path)
    table = pd.read_csv(folder / path)
    row = table.index[table["Frontal/Lateral"] == "Frontal"][0] if name == "chexpert" else 0
    edit(folder / path, column, value, row)
    refused(name, tmp_path, "not inside", str(folder))


def test_nih_path_that_climbs_out(tmp_path):
    folder = copy("nih-14", tmp_path)
    name = (folder / "test_list.txt").read_text().split()[0]
    for file in ("test_list.txt", "Data_Entry_2017.csv"):
        text = (folder / file).read_text()
        (folder / file).write_text(text.replace(name, "../../x.png"))
    refused("nih-14", tmp_path, "not inside")


@pytest.mark.parametrize(
    ("name", "column"),
    [("medmod", "subject_id"), ("cxl-seg", "subject_id"), ("actualmed", "patient_id"),
     ("chexchonet", "cxr_filename"), ("symile-mimic", "subject_id")],
)  # fmt: skip
def test_row_without_a_name(name, column, tmp_path):
    edit(copy(name, tmp_path) / TABLES[name][0], column, None)
    refused(name, tmp_path, "no ")


@pytest.mark.parametrize(
    ("array", "change", "said"),
    [
        ("labs_percentiles", lambda a: a[:, :49], "shape (40, 49)"),
        ("labs_missingness", lambda a: a[1:], "shape (39, 50)"),
        ("cxr", lambda a: a[:, 0], "shape (40, 45, 45)"),
        ("ecg", lambda a: a[..., :11], "shape (40, 1, 1000, 11)"),
        ("hadm_id", lambda a: a[::-1], "same order"),
        ("labs_missingness", lambda a: a + 1, "other than 0 and 1"),
        ("labs_missingness", lambda a: 1 - a, "looks inverted"),
        ("labs_percentiles", lambda a: a * np.nan, "is nan"),
        ("labs_percentiles", lambda a: a * 100, "in [0, 1]"),
        ("cxr", lambda a: np.where(np.arange(40)[:, None, None, None] == 7, np.inf, a), "row 7"),
        ("ecg", lambda a: np.where(np.arange(40)[:, None, None, None] == 8, np.nan, a), "row 8"),
    ],
    ids=range(11),
)
def test_wrong_arrays(array, change, said, tmp_path):
    path = copy("symile-mimic", tmp_path) / "data_npy" / "train" / f"{array}_train.npy"
    stored = np.load(path)
    np.save(path, change(stored).astype(stored.dtype))
    refused("symile-mimic", tmp_path, said)
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_pickles_are_not_loaded(tmp_path):
    path = copy("symile-mimic", tmp_path) / "data_npy" / "train" / "ecg_train.npy"
    np.save(path, np.array([{"a": 1}] * 40, dtype=object), allow_pickle=True)
    refused("symile-mimic", tmp_path, "ecg_train.npy", "not a readable")


def test_inverted_means_that_the_filled_side_is_marked_measured():
    rng = np.random.default_rng(0)
    observed = (rng.random((60, 8)) < 0.6).astype(np.float32)
    filled = np.where(observed == 1, rng.random((60, 8)), 0.5).astype(np.float32)
    assert not looks_inverted(filled, observed)
    assert looks_inverted(filled, 1 - observed)
    # Nothing to tell by: all measured, too few rows, or no side that is constant.
    assert not looks_inverted(filled, np.ones_like(observed))
    assert not looks_inverted(filled[:4], 1 - observed[:4])
    assert not looks_inverted(rng.random((60, 8)), observed)


def test_the_hospital_itself_was_not_spoilt():
    for name in WITH_IMAGES:
        load_dataset(name, hospital())
