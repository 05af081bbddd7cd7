"""`pacx data check`: what is there, and what would spoil a result."""

import os

import numpy as np
import pandas as pd
import pytest
from conftest import REAL
from PIL import Image
from tiny_hospital import SIZE, SIZES, WITH_IMAGES, copy, hospital
from typer.testing import CliRunner

from pacx.cli import app
from pacx.data.datasets import load_dataset
from pacx.data.datasets.ecg_archive import load_ecg_archive
from pacx.data.datasets.symile_mimic import load_pairs
from pacx.data.images import load_images
from pacx.errors import PacxError
from pacx.pairing.check import check_dataset


def problems(name, root):
    return " ".join(check_dataset(name, root).problems)


@pytest.mark.parametrize("name", [*WITH_IMAGES, "symile-mimic"])
def test_phantoms_have_no_problem(name, tmp_path):
    check = check_dataset(name, hospital())
    assert check.problems == []
    assert check.splits["patients"].sum() == sum(SIZES[name].values()) or name == "qata-cov19"
    assert f"{name} in {hospital() / name}" in str(check)
    if name != "symile-mimic":
        data = load_dataset(name, hospital())
        for label in data.labels:
            counted = check.prevalence.query("label == @label")["positive"].sum()
            assert counted == data.table[label].sum()
    check.save_montage(tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size[0] == 8 * 128


def test_the_folder_may_be_the_data_set_s_own(tmp_path):
    folder = copy("tb", tmp_path).rename(tmp_path / "my X-rays")
    assert check_dataset("tb", folder).problems == []
    with pytest.raises(PacxError, match="nowhere is missing"):
        check_dataset("tb", tmp_path / "nowhere")
    with pytest.raises(PacxError, match="Choose one of"):
        check_dataset("ghost", folder)


def test_missing_and_unreadable_files(tmp_path):
    folder = copy("nih-14", tmp_path)
    first, second, third, *_ = sorted(folder.rglob("*.png"))
    first.unlink()
    second.write_bytes(b"nothing")
    Image.fromarray(np.full((SIZE, SIZE), 9, np.uint8)).save(third)
    said = problems("nih-14", tmp_path)
    assert f"missing, such as images/{first.name}" in said
    assert "1 images or masks cannot be read" in said
    assert second.name in said
    assert "1 images or masks are of one grey value" in said
    assert third.name in said


def test_masks_of_another_shape_and_missing_masks(tmp_path):
    masks = sorted(copy("cxl-seg", tmp_path).rglob("*-mask.jpg"))
    Image.new("L", (SIZE, SIZE + 1)).save(masks[0])
    masks[1].unlink()
    check = check_dataset("cxl-seg", tmp_path)
    said = " ".join(check.problems)
    assert "1 images or masks are of another shape" in said
    assert f"1 of {len(masks)} masks are missing, such as that of row" in said
    assert masks[1].name not in said  # names of files tell who a patient is
    assert "1 masks are empty." in check.notes


def test_patients_and_images_in_two_splits(tmp_path):
    folder = copy("cxl-seg", tmp_path)
    table = pd.read_csv(folder / "CXLSeg-split.csv")
    twice = table[table["subject_id"].duplicated(keep=False)].index[0]
    table.loc[twice, "split"] = "test" if table["split"][twice] == "train" else "train"
    table.to_csv(folder / "CXLSeg-split.csv", index=False)
    assert "1 patients are in more than one split" in problems("cxl-seg", tmp_path)
    folder = copy("chestx6", tmp_path)
    image = next(folder.glob("train/Normal/*"))
    (folder / "test" / "Normal" / "copy.jpg").write_bytes(image.read_bytes())
    assert "1 images are in more than one split" in problems("chestx6", tmp_path)


def test_masks_that_are_all_empty_or_faint(tmp_path):
    masks = sorted(copy("cxl-seg", tmp_path).rglob("*-mask.jpg"))
    for mask in masks:
        Image.new("L", (SIZE, SIZE)).save(mask)
    assert problems("cxl-seg", tmp_path) == "All masks are empty."
    Image.new("L", (SIZE, SIZE), 1).save(masks[0])
    assert "1 images or masks cannot be read (a mask needs 0" in problems("cxl-seg", tmp_path)


def test_one_image_in_several_rows(tmp_path):
    path = copy("chexchonet", tmp_path) / "metadata.csv"
    table = pd.read_csv(path)
    label = table["composite_slvh_dlv"]
    again = table[:1].assign(composite_slvh_dlv=1 - label[0])
    pd.concat([table, again]).to_csv(path, index=False)
    assert problems("chexchonet", tmp_path) == (
        "1 images are listed twice with opposite labels, such as that of row 0 of the table."
    )
    table.assign(cxr_filename=table["cxr_filename"][0]).to_csv(path, index=False)
    said = problems("chexchonet", tmp_path)
    assert "1 images are listed under more than one patient" in said
    assert "1 images are listed in more than one split" in said


def test_rows_that_are_there_twice(tmp_path):
    path = copy("chexchonet", tmp_path) / "metadata.csv"
    table = pd.read_csv(path)
    pd.concat([table, table[:3]]).to_csv(path, index=False)
    assert problems("chexchonet", tmp_path) == "3 rows are copies of others."


def test_names_that_no_disk_can_hold_or_no_screen_print(tmp_path):
    path = copy("actualmed", tmp_path) / "metadata.csv"
    table = pd.read_csv(path)
    rows = len(table)
    table.loc[0, "image"] = "x" * 300 + ".jpg"
    table.to_csv(path, index=False)
    assert problems("actualmed", tmp_path).startswith(f"1 of {rows} images are missing")
    folder = copy("chestx6", tmp_path) / "train" / "Normal"
    try:
        next(folder.iterdir()).rename(folder / os.fsdecode(b"Z\xfcrich.jpg"))
    except OSError as error:
        pytest.skip(f"this disk wants UTF-8: {error}")
    assert problems("chestx6", tmp_path) == ""
    data = load_dataset("chestx6", tmp_path)
    images = load_images(data.root, list(data.table["image"]), SIZE, tmp_path / "cache")
    assert len(images) == len(data.table)
    (folder / os.fsdecode(b"Z\xfcrich.jpg")).write_bytes(b"nothing")
    with pytest.raises(PacxError, match=r"Z\\udcfcrich\.jpg"):
        load_images(data.root, list(data.table["image"]), SIZE, tmp_path / "cache")
    check = check_dataset("chestx6", tmp_path)
    assert "1 images or masks cannot be read" in str(check)
    str(check).encode()


def test_empty_splits_and_labels_of_one_class(tmp_path):
    folder = copy("chexchonet", tmp_path)
    table = pd.read_csv(folder / "metadata.csv").assign(composite_slvh_dlv=0)
    table.to_csv(folder / "metadata.csv", index=False)
    assert "one class only in split 'test'" in problems("chexchonet", tmp_path)
    folder = copy("cxl-seg", tmp_path)
    table = pd.read_csv(folder / "CXLSeg-split.csv").query("split == 'train'")
    table.to_csv(folder / "CXLSeg-split.csv", index=False)
    said = problems("cxl-seg", tmp_path)
    assert "Split 'val' is empty." in said
    assert "Split 'test' is empty." in said


def test_spoilt_pairs(tmp_path):
    folder = copy("symile-mimic", tmp_path)
    path = folder / "data_npy" / "val" / "labs_missingness_val.npy"
    np.save(path, 1 - np.load(path))
    path = folder / "data_npy" / "train" / "ecg_train.npy"
    ecg = np.load(path)
    ecg[3], ecg[4] = 0, np.nan
    np.save(path, ecg)
    said = problems("symile-mimic", tmp_path)
    assert "looks inverted" in said
    assert "Split 'val' is empty" in said
    assert "ecg_train.npy: 1 rows hold one value only, such as 3" in said
    assert "ecg_train.npy: 1 rows hold values that are not finite, such as 4" in said


def test_leads_that_are_flat_or_clipped(tmp_path):
    path = copy("symile-mimic", tmp_path) / "data_npy" / "train" / "ecg_train.npy"
    ecg = np.load(path)
    whole = load_pairs(tmp_path, "train", 8, tmp_path / "cache")
    ecg[3, 0, :, 8] = 0.1
    ecg[5, 0, :, :6] = 0.1
    ecg[6, 0, :, 2] = np.minimum(ecg[6, 0, :, 2], 0.1)
    np.save(path, ecg)
    said = problems("symile-mimic", tmp_path)
    assert "ecg_train.npy: 2 ECGs have a flat lead, such as 3 (V3)" in said
    assert "ecg_train.npy: 1 ECGs have a clipped lead, such as 6 (III)" in said
    assert "ecg_train.npy: 1 ECGs have six flat leads or more" in said
    kept = load_pairs(tmp_path, "train", 8, tmp_path / "cache")
    for part in ("cxr", "percentiles", "observed"):
        before = getattr(whole, part)
        assert np.array_equal(getattr(kept, part), np.delete(before, 5, axis=0))
    assert list(kept.table["study"]) == list(whole.table["study"].drop(5))
    assert len(kept.ecg) == len(whole.ecg) - 1


def test_what_distillation_says_of_spoilt_ecgs(tmp_path, capsys):
    path = copy("symile-mimic", tmp_path) / "data_npy" / "val" / "ecg_val.npy"
    ecg = np.load(path)
    ecg[0], ecg[1, 0, :, 0] = np.linspace(-1, 1, 12), 0
    np.save(path, ecg)
    load_pairs(tmp_path, "val", 8, tmp_path / "cache")
    said = capsys.readouterr().out
    assert "symile-mimic, val: 1 pairs are left out" in said
    assert "symile-mimic, val: 1 ECGs have a flat or clipped lead and are kept" in said
    ecg[:] = ecg[0]
    np.save(path, ecg)
    with pytest.raises(PacxError, match="all ECGs are flat"):
        load_pairs(tmp_path, "val", 8, tmp_path / "cache")


def test_an_archive_of_ecgs(tmp_path):
    assert check_dataset("ecg-archive", hospital()).problems == []
    root = copy("ecg-archive", tmp_path)
    first, second, third = sorted(root.rglob("*.mat"))
    second.write_bytes(first.read_bytes())  # headers hold the record's name
    counts = np.frombuffer(third.read_bytes()[24:], "<i2").reshape(-1, 12).copy()
    counts[:, 9] = 5
    third.write_bytes(third.read_bytes()[:24] + counts.tobytes())
    said = problems("ecg-archive", tmp_path)
    assert f"1 ECGs are copies of another, such as {second.stem}." in said
    assert f"1 ECGs have a flat lead, such as {third.stem} (V4)" in said
    counts[:, 2:9] = 5
    third.write_bytes(third.read_bytes()[:24] + counts.tobytes())
    assert "1 ECGs have limb leads that contradict" in problems("ecg-archive", tmp_path)
    with pytest.raises(PacxError, match=f"{third.stem}.hea: six leads or more are flat"):
        load_ecg_archive(tmp_path, tmp_path / "cache")
    first.unlink()
    assert "1 ECGs cannot be read" in problems("ecg-archive", tmp_path)


def test_command_line(tmp_path):
    montage = tmp_path / "sheet.png"

    def run(name, root, *more):
        command = ["data", "check", name, "--root", str(root), "--montage", str(montage), *more]
        return CliRunner().invoke(app, command)

    done = run("actualmed", hospital(), "--most", "10")
    assert done.exit_code == 0, done.output
    assert "COVID-19" in done.output
    assert "10 of" in done.output
    assert montage.is_file()
    next(copy("tb", tmp_path).rglob("*.png")).unlink()
    done = run("tb", tmp_path)
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert "PROBLEM: 1 of 100 images are missing" in done.output


@pytest.mark.real
def test_real_open_x_rays():
    if not (REAL / "cxr" / "metadata.csv").is_file():
        pytest.skip(f"no real X-rays in {REAL} (set PACX_REAL)")
    check = check_dataset("actualmed", REAL / "cxr")
    assert check.problems == []
    assert check.splits["images"].sum() == 54
    assert check.splits["patients"].sum() == 49
    assert check.prevalence["positive"].sum() == 26
    assert check.prevalence["known"].sum() == 44


@pytest.mark.real
def test_real_x_rays_of_nih(tmp_path):
    if not (REAL / "nih-14" / "Data_Entry_2017.csv").is_file():
        pytest.skip(f"no NIH sample in {REAL} (set PACX_REAL)")
    check = check_dataset("nih-14", REAL / "nih-14")
    assert check.problems == []
    assert check.splits["images"].sum() == 820
    assert check.prevalence["known"].sum() == 14 * 820
    # Under the name that later downloads have, it is the same table.
    for file in (REAL / "nih-14").iterdir():
        name = file.name.replace("2017.csv", "2017_v2020.csv")
        (tmp_path / name).symlink_to(file)
    again = check_dataset("nih-14", tmp_path, most=10)
    assert again.prevalence.equals(check.prevalence)
