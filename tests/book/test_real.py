"""Chapter 14: its committed tables are what it reads, and its cells lay real X-rays out."""

import re
import shutil

import jupytext
import numpy as np
import pandas as pd
import pytest
from conftest import PROJECT, REAL

from pacx.book.real import FOLDER, measured
from pacx.data.datasets import load_dataset, own
from pacx.errors import PacxError
from pacx.pairing.check import check_dataset
from pacx.profile import load_profile
from pacx.run import Run

CHAPTER = PROJECT / "notebooks" / "14_real_x_rays.py"
NAMES = re.findall(r'measured\(run, "(\w+)"', CHAPTER.read_text(encoding="utf-8"))
SCORES = {"findings", "lungs", "reconstruction", "blood", "distilled"}


def layouts() -> dict:
    """What the chapter's cells tagged `layout` define."""
    found: dict = {}
    for cell in jupytext.read(CHAPTER).cells:
        if "layout" in cell.metadata.get("tags", []):
            exec(cell.source, found)
    return found


def test_committed_tables_are_those_that_the_chapter_reads():
    assert {file.stem for file in FOLDER.glob("*.csv")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_committed_table(name):
    run = Run(load_profile("smoke"))
    table = measured(run, name, lambda: pytest.fail("a run on phantoms measures nothing"))
    assert len(table)
    assert {"profile", "commit", "made"} <= set(table)
    assert not {"patient", "study", "image", "mask"} & set(table), "aggregates only"
    if name in SCORES:
        assert (table[["dataset", "images", "model", "reference"]].notna()).all(axis=None)
        change = table.dropna(subset=["difference_value"])
        # In the files numbers have four digits.
        assert (change["difference_low"] <= change["difference_value"] + 1e-4).all()
        assert (change["difference_value"] <= change["difference_high"] + 1e-4).all()
    if "licence" in table:
        assert table["licence"].notna().all()


def test_a_run_on_the_real_sets_measures_and_keeps_what_it_measured(tmp_path):
    run = Run(load_profile("real", data_root=tmp_path), tmp_path)
    table = measured(run, "new", lambda: pd.DataFrame({"value": [1 / 3]}))
    assert table["value"].tolist() == [0.3333]
    assert table["profile"].tolist() == ["real"]
    kept = pd.read_csv(run.results / "real" / "new.csv")
    assert kept.equals(table)


def test_a_table_that_nobody_has_measured_is_one_error(tmp_path):
    with pytest.raises(PacxError, match=r"nothing\.csv is missing\. Work in a checkout"):
        measured(Run(load_profile("smoke"), tmp_path), "nothing", pd.DataFrame)


def test_blood_tests_beyond_a_limit_become_the_outermost_number():
    cells = layouts()
    rows = pd.DataFrame({f"{lab}_{kind}": np.nan for lab in cells["LABS"]
                         for kind in ("val", "offset")}, index=range(4))  # fmt: skip
    rows["crp_val"] = [-np.inf, np.inf, 5.0, 90.0]
    rows["crp_offset"] = [0, -1, 1, 2]
    values = cells["blood_tests"](rows)
    # 90 was measured two days away, so the highest number is 5, too.
    assert values["crp"].tolist()[:3] == [5, 5, 5]
    assert values["crp"].isna()[3]
    assert values.drop(columns="crp").isna().all(axis=None)


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "name", "images"),
    [("nih-14", "nih", 820), ("openist", "openist", 220), ("hannover", "hannover", 136)],
)
def test_real_x_rays_are_laid_out(folder, name, images, tmp_path):
    if not (REAL / folder).is_dir():
        pytest.skip(f"no {folder} in {REAL} (set PACX_REAL)")
    root = shutil.copytree(REAL / folder, tmp_path / name, copy_function=shutil.copyfile)
    layouts()[f"lay_out_{name}"](root)
    check = check_dataset(name, root, most=20)
    assert check.problems == []
    dataset = load_dataset(name, tmp_path)
    assert len(dataset.table) == images
    assert dataset.terms == "open"
    assert not dataset.patients_in_two_splits
    if name == "hannover":
        pairs = own.read_pairs(root)
        assert np.isfinite(pairs[["crp", "po2"]].stack()).all()
