"""The first page and the protocol say what the library knows of claims, and no more."""

import json

import numpy as np
import pandas as pd
import pytest

from pacx.book.claims import parts_about_claims
from pacx.constants import LABS
from pacx.evaluation.claims import PRIMARY, SECONDARY
from pacx.evaluation.evidence import FOLDER, NOT_GATHERED
from pacx.figures.first_page import (
    HZ,
    SHOWN_LABS,
    claims_in_words,
    claims_to_come,
    ladder_in_words,
    records,
)
from pacx.run import open_run

CLAIMS = pd.DataFrame(
    {
        "claim": ["better", "the same"], "primary": [True, False], "estimate": [0.03, 0.001],
        "low": [0.02, -0.01], "high": [0.04, 0.012], "kind": ["above", "within"],
        "margin": [0.01, 0.02], "p": [0.001, 0.004], "p_holm": [0.005, np.nan],
        "holds": [True, False],
    }
)  # fmt: skip


def ladder() -> pd.DataFrame:
    rows = [
        ("mae", pooling, probe, fraction)
        for pooling in ("cls", "mean")
        for probe in ("converged", "paper")
        for fraction in (0.1, 1.0)
    ]
    rows += [("pixels", "32 components", "converged", 1.0), ("teachers", "both", "converged", 1.0)]
    table = pd.DataFrame(rows, columns=["model", "pooling", "probe", "fraction"])
    table["value"] = 0.6 + 0.01 * np.arange(len(table))
    table = table.assign(low=table["value"] - 0.02, high=table["value"] + 0.02)
    return pd.concat([table.assign(group=group) for group in ("physiology", "anatomy")])


def test_the_patient_of_the_first_page_has_what_the_titles_say():
    film, masks, ecg, labs = records()
    assert film.shape == (224, 224)
    columns = {organ: np.flatnonzero(masks[organ].any(0)) for organ in ("heart", "lungs")}
    width = {organ: found[-1] - found[0] for organ, found in columns.items()}
    assert width["heart"] > 0.5 * width["lungs"]
    ranges = {lab.name: lab for lab in LABS}
    assert labs[list(SHOWN_LABS)].notna().all()
    for name in ("Creatinine", "Urea Nitrogen", "Phosphate"):
        assert labs[name] > ranges[name].high
    assert labs["Hemoglobin"] < ranges["Hemoglobin"].low
    above = ecg > 0.6 * ecg.max()
    beats = np.flatnonzero(above[1:] & ~above[:-1])
    assert 60 * HZ / np.diff(beats).mean() > 90


def test_every_claim_to_come_has_its_margin_and_reason():
    table = claims_to_come()
    assert list(table["claim"]) == [claim.text for claim in (*PRIMARY, *SECONDARY)]
    assert (table["kind"] == "primary").sum() == len(PRIMARY)
    assert table["reason for the margin"].str.len().gt(10).all()
    margins = table["margin"]
    assert margins.iloc[0] == f"above\N{NO-BREAK SPACE}{PRIMARY[0].margin:g}"
    assert margins[table["claim"].str.contains("equals")].str.startswith("within ±").all()


def test_each_claim_to_come_says_what_it_compares():
    first = claims_to_come().iloc[0]
    assert (PRIMARY[0].model, PRIMARY[0].reference) == ("pacx", "mae")
    assert first["compares"] == "PaCX-MAE minus MAE"


def test_corrected_and_uncorrected_p_are_apart():
    first, second = (claims_in_words(CLAIMS, primary=primary) for primary in (True, False))
    assert first["holds (p after Holm)"].item() == "yes (0.005)"
    assert second["holds (raw p)"].item() == "no (0.004)"
    tiny = claims_in_words(CLAIMS.assign(p_holm=1e-7), primary=True)
    assert tiny["holds (p after Holm)"].item() == "yes (<\N{NO-BREAK SPACE}0.001)"
    assert first["claim: margin"].item() == "better: above\N{NO-BREAK SPACE}0.01"
    assert second["claim: margin"].item() == "the same: within ±\N{NO-BREAK SPACE}0.02"


def test_each_probe_and_pooling_has_a_column_of_its_own():
    told = ladder_in_words(ladder(), "physiology", 1.0).set_index("features")
    assert list(told.columns) == [
        "CLS token, converged probe", "CLS token, the paper's probe",
        "mean of patches, converged probe", "mean of patches, the paper's probe", "best reading",
    ]  # fmt: skip
    assert told.loc["MAE", "CLS token, converged probe"].startswith("0.610")
    pixels = told.loc["pixels (PCA), 32 components"]
    assert list(pixels[:-1]) == [""] * 4
    assert pixels["best reading"].startswith("0.680")


def test_a_run_without_the_tables_says_so_and_with_them_shows_them(tmp_path):
    run, folder = open_run("smoke", tmp_path), tmp_path / "parts"
    folder.mkdir()
    parts = parts_about_claims(run, FOLDER, folder)
    assert "no table `claims`" in parts["headline"]
    assert "no table `ladder_all`" in parts["ladder"]
    assert (folder / "patient.webp").is_file()
    first = (folder / "patient.webp").read_bytes()
    run.save_results("claims", CLAIMS)
    run.save_results("ladder_all", ladder())
    parts = parts_about_claims(run, FOLDER, folder)
    assert "no table" not in parts["headline"] + parts["ladder"]
    assert parts["headline"].count("{dropdown}") == 4
    assert "ladder.svg" in parts["ladder"]
    assert (folder / "ladder.svg").is_file()
    assert (folder / "patient.webp").read_bytes() == first, "the same patient in every run"


@pytest.mark.parametrize("part", ["claims", "evidence", "evidence_note"])
def test_missing_evidence_says_so(tmp_path, part):
    run = open_run("smoke", tmp_path)
    assert NOT_GATHERED in parts_about_claims(run, tmp_path / "none", tmp_path)[part]


def test_the_claims_of_all_cohorts_come_first(tmp_path):
    run, evidence = open_run("smoke", tmp_path), tmp_path / "evidence"
    run.save_results("claims", CLAIMS)
    evidence.mkdir()
    cohorts = [CLAIMS.assign(cohort=c, estimate=CLAIMS["estimate"] + 0.001 * c) for c in range(9)]
    pd.concat(cohorts).to_csv(evidence / "claims.csv", index=False)
    for name in ("controls", "keeping", "direct"):
        pd.DataFrame({"model": ["x"], "reference": ["y"], "difference_value": [0.1]}).to_csv(
            evidence / f"{name}.csv"
        )
    scores = {"group": "anatomy", "model": "mae", "pooling": "cls", "fraction": 1, "value": 0.6}
    pd.DataFrame([scores | {"cohort": c} for c in range(9)]).to_csv(evidence / "ladder_all.csv")
    made = {"cohorts": list(range(9)), "seconds": [{"cohort": c, "05": 1} for c in range(9)]}
    (evidence / "provenance.json").write_text(json.dumps(made))
    parts = parts_about_claims(run, evidence, tmp_path)
    assert parts["evidence_note"] == ""
    assert parts["headline"].index("0.034") < parts["headline"].index("in this run")
    assert "9 of 9" in parts["claims"]
    assert "a dot a cohort" in parts["ladder"]
    for part in ("claims", "headline"):
        assert parts[part].index("Primary claims on all") < parts[part].index("Secondary claims on")
    assert (tmp_path / "claims.svg").is_file()
