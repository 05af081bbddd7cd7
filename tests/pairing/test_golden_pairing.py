"""Pairing against what the reference script gave on the same made-up MIMIC tables.

Cases: the folder `symile_pairing` in `tests/golden/`, or in the folder that PACX_GOLDEN names.
"""

import json

import pandas as pd
import pytest
from golden_formula import FOLDER

from pacx.pairing.admissions import ITEMS, pair_admissions

CASES = FOLDER / "symile_pairing"
RAW = CASES / "raw"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"no folder {CASES}")


@pytest.fixture(scope="module")
def pairs():
    return pair_admissions(RAW, RAW / "cxr", RAW / "ecg")


def test_golden_pairing_row_for_row(pairs):
    expected = pd.read_csv(CASES / "expected_pairs.csv")
    assert len(expected) == json.loads((CASES / "README.json").read_text("utf-8"))["n_pairs"]
    pd.testing.assert_frame_equal(
        pairs[list(expected)], expected, check_dtype=False, check_exact=True
    )


def test_golden_pairing_findings(pairs):
    reference = pd.read_csv(CASES / "expected_reference_output.csv").sort_values("hadm_id")
    shared = [c for c in pairs if c in reference]
    assert {"Atelectasis", "Edema", "No Finding"} <= set(shared)
    pd.testing.assert_frame_equal(
        pairs[shared], reference[shared].reset_index(drop=True), check_dtype=False, check_exact=True
    )


def _edge_cases() -> list:
    if not CASES.is_dir():
        return []
    table = pd.read_csv(CASES / "edge_cases_expected.csv", dtype=str, keep_default_na=False)
    return [pytest.param(row, id=row["case"]) for row in table.to_dict("records")]


@pytest.mark.parametrize("case", _edge_cases())
def test_golden_pairing_edge_case(pairs, case):
    found = pairs[pairs["hadm_id"] == int(case["hadm_id"])]
    assert len(found) == (case["paired"] == "True"), case["description"]
    for row in found.to_dict("records"):
        assert str(row["subject_id"]) == case["subject_id"]
        assert row["cxr_dicom_id"] == case["cxr_dicom_id"]
        assert str(row["ecg_study_id"]) == case["ecg_study_id"]
        labs = {item: row[item] for item in ITEMS if pd.notna(row[item])}
        assert labs == json.loads(case["labs_found"])
