"""`pacx data check`: what is there, and what would spoil a result."""

import numpy as np
import pandas as pd
import pytest
from conftest import REAL
from PIL import Image
from tiny_hospital import SIZE, SIZES, WITH_IMAGES, copy, hospital
from typer.testing import CliRunner

from pacx.cli import app
from pacx.data.datasets import load_dataset
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
