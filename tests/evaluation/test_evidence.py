"""Pooling over repetitions, and the evidence that is committed."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pacx.errors import PacxError
from pacx.evaluation.claims import PRIMARY, SECONDARY
from pacx.evaluation.evidence import (
    FOLDER,
    MORE_WITH_FEW,
    NOT_GATHERED,
    load_evidence,
    pool,
    pooled_claims,
)
from pacx.figures import tables
from pacx.figures.tables import beside_the_evidence, in_the_evidence
from pacx.profile import load_profile


def repetitions(effect=0.1, cohorts=9, seed=0):
    """Rows of one model; every cohort, with a training of its own, shifts the true effect."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "dataset": "d", "metric": "AUROC", "model": "pacx", "reference": "mae", "cohort": c,
            "value": 0.7 + gain, "difference_value": gain,
            "difference_low": gain - 0.03, "difference_high": gain + 0.03,
        }
        for c, gain in enumerate(effect + rng.normal(0, 0.02, cohorts))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_pooled_interval_is_student_s_over_cohorts():
    table = repetitions()
    row = pool(table).iloc[0]
    low, high = stats.ttest_1samp(table["difference_value"], 0).confidence_interval(0.95)
    assert row["value"] == pytest.approx(table["difference_value"].mean())
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["runs"] == 9
    assert row["above"] == (table["difference_low"] > 0).sum()


def test_pooled_interval_covers_the_effect():
    """Of 1,000 sets of nine cohorts, 95 % hold the true effect (binomial, 3 standard errors)."""
    sets = [repetitions(seed=seed).assign(task=seed) for seed in range(1000)]
    rows = pool(pd.concat(sets))
    assert len(rows) == 1000
    covered = rows["low"].le(0.1).mul(rows["high"].ge(0.1)).mean()
    assert abs(covered - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 1000)


def claims_of(**estimates):
    """A table of claims: by claim, one estimate a cohort."""
    rows = [
        {"claim": claim, "primary": claim != "same", "margin": 0.02,
         "kind": "within" if claim == "same" else "above",
         "estimate": value, "cohort": cohort, "holds": value > 0.02}
        for claim, values in estimates.items()
        for cohort, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_claims_are_judged_on_all_cohorts(tmp_path):
    rng = np.random.default_rng(0)
    clear, none, same = rng.normal([[0.1], [0.02], [0.0]], 0.01, (3, 9))
    claims_of(clear=clear, none=none, same=same).to_csv(tmp_path / "claims.csv", index=False)
    table = pooled_claims(tmp_path).set_index("claim")
    assert list(table["holds"]) == [True, False, True]
    by_hand = stats.ttest_1samp(clear, 0.02, alternative="greater").pvalue
    assert table.loc["clear", "p"] == pytest.approx(by_hand)
    assert table.loc["clear", "p_holm"] == pytest.approx(2 * by_hand)
    assert np.isnan(table.loc["same", "p_holm"])
    sides = [stats.ttest_1samp(same, m, alternative=a).pvalue
             for m, a in ((-0.02, "greater"), (0.02, "less"))]  # fmt: skip
    assert table.loc["same", "p"] == pytest.approx(max(sides))
    assert list(table["holds_in"]) == [(values > 0.02).sum() for values in (clear, none, same)]


def test_a_claim_of_a_gain_that_is_the_margin_is_rarely_called_one(tmp_path):
    """One-sided at 5 %: of 1,000 sets of nine cohorts, 5 % (binomial, 3 standard errors)."""
    draws = np.random.default_rng(1).normal(0.02, 0.01, (1000, 9))
    names = {f"claim {k}": row for k, row in enumerate(draws)}
    claims_of(**names).assign(primary=False).to_csv(tmp_path / "claims.csv", index=False)
    called = pooled_claims(tmp_path)["holds"].mean()
    assert abs(called - 0.05) < 3 * np.sqrt(0.95 * 0.05 / 1000)


def test_whether_few_labels_gain_more_is_the_difference_of_the_first_claims(tmp_path):
    every, few = (claim.text for claim in PRIMARY[:2])
    rng = np.random.default_rng(0)
    gains = {every: rng.normal(0.05, 0.01, 9), few: rng.normal(0.08, 0.01, 9)}
    claims_of(**gains).to_csv(tmp_path / "claims.csv", index=False)
    last = pooled_claims(tmp_path).iloc[-1]
    assert last["claim"] == MORE_WITH_FEW
    assert last["estimate"] == pytest.approx((gains[few] - gains[every]).mean())
    assert last["holds"]
    assert not last["primary"]


@pytest.fixture
def evidence(tmp_path, monkeypatch):
    """A folder that takes the place of the committed evidence beside a run."""
    folder = tmp_path / "evidence"
    monkeypatch.setattr(tables, "load_evidence", partial(load_evidence, folder=folder))
    return folder


def test_a_run_stands_beside_the_evidence(evidence):
    ours = repetitions(cohorts=1)
    evidence.mkdir()
    repetitions().to_csv(evidence / "transfer.csv", index=False)
    shown = beside_the_evidence(ours, "transfer").data
    assert shown["runs above, below zero"].tolist() == ["9,\xa00\xa0of\xa09"]
    with pytest.raises(PacxError, match="no evidence 'other'"):
        in_the_evidence("other", "cohort == 0")


def test_missing_evidence_says_so(evidence):
    ours = repetitions(cohorts=1)
    for table in beside_the_evidence(ours, "transfer"), in_the_evidence("transfer", "cohort == 0"):
        assert NOT_GATHERED in table.to_html()


def test_committed_evidence_is_of_the_committed_profile():
    if not FOLDER.is_dir():
        pytest.skip("no evidence has been gathered yet")
    profile = load_profile("evidence")
    gathered, wanted = load_profile(FOLDER / "profile.yaml").model_dump(), profile.model_dump()
    # Chapter 09 became two after the evidence was gathered, and the later ones moved by one.
    assert gathered["evidence"].pop("chapters")[:5] == wanted["evidence"].pop("chapters")[:5]
    assert gathered == wanted
    judged = load_evidence("claims")
    assert {claim.text for claim in (*PRIMARY, *SECONDARY)} == set(judged["claim"])
    for file in FOLDER.glob("*.csv"):
        assert set(load_evidence(file.stem)["cohort"]) == set(profile.evidence.cohorts)
