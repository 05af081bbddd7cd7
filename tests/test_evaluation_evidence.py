"""Pooling over repetitions, and the evidence that is committed."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pacx.constants import PHYSIOLOGY_TASKS
from pacx.errors import PacxError
from pacx.evaluation.evidence import FOLDER, load_evidence, pool, pooled_claims
from pacx.figures.tables import beside_the_evidence
from pacx.profile import load_profile


def repetitions(effect=0.1, cohorts=3, seeds=3, seed=0):
    """Rows of one model; every cohort and every training shifts the true effect."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "dataset": "d", "metric": "AUROC", "model": "pacx", "reference": "mae",
            "cohort": c, "seed": s, "value": 0.7 + gain, "difference_value": gain,
            "difference_low": gain - 0.03, "difference_high": gain + 0.03,
        }
        for c, shift in enumerate(rng.normal(0, 0.02, cohorts))
        for s, gain in enumerate(effect + shift + rng.normal(0, 0.01, seeds))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_pooled_interval_is_student_s_over_cohorts():
    table = repetitions()
    row = pool(table).iloc[0]
    means = table.groupby("cohort")["difference_value"].mean()
    low, high = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert row["value"] == pytest.approx(table["difference_value"].mean())
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert row["runs"] == 9
    assert row["above"] == (table["difference_low"] > 0).sum()


def test_pooled_interval_covers_no_effect():
    """Of 400 sets of three cohorts without an effect, 5 % may be called one (binomial +- 3 sd)."""
    rows = [pool(repetitions(effect=0, seed=seed)).iloc[0] for seed in range(400)]
    covered = np.mean([row["low"] <= 0 <= row["high"] for row in rows])
    assert abs(covered - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 400)


def test_claims_are_pooled_and_tasks_counted(tmp_path):
    facts = {
        "cohort": [0, 1, 2],
        "seed": 0,
        "estimate": [0.1, 0.2, 0.3],
        "holds": [True, False, True],
    }
    pd.DataFrame(facts).assign(claim="c").to_csv(tmp_path / "claims.csv", index=False)
    effects = {task: 0.1 if k < 3 else 0.0 for k, task in enumerate(PHYSIOLOGY_TASKS)}
    tasks = [
        repetitions(effect, seeds=1, seed=7).assign(task=task, fraction=0.01)
        for task, effect in effects.items()
    ]
    pd.concat(tasks).to_csv(tmp_path / "label_efficiency.csv", index=False)
    claim, count = pooled_claims(tmp_path).to_dict("records")
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert (claim["estimate"], claim["low"]) == pytest.approx((0.2, 0.2 - half))
    assert (claim["holds"], claim["runs"]) == (2, 3)
    assert (count["estimate"], count["runs"]) == (3, len(PHYSIOLOGY_TASKS))


def test_a_run_stands_beside_the_evidence(tmp_path, monkeypatch):
    ours = repetitions(cohorts=1, seeds=1)
    monkeypatch.setattr(load_evidence, "__defaults__", (tmp_path,))
    repetitions().to_csv(tmp_path / "transfer.csv", index=False)
    shown = beside_the_evidence(ours, "transfer").data
    assert shown["runs above, below zero"].tolist() == ["9,\xa00\xa0of\xa09"]
    with pytest.raises(PacxError, match="no evidence 'other'"):
        load_evidence("other")
    monkeypatch.setattr(load_evidence, "__defaults__", (tmp_path / "none",))
    assert beside_the_evidence(ours, "transfer").data["runs above, below zero"].tolist() == [""]


def test_the_first_page_says_what_the_evidence_says():
    """Random teachers give more than half of the gain; with raw targets there is less of both."""
    gain = pool(load_evidence("controls").query("pooling == 'cls'"))
    gain = gain[gain["outcome"].str.startswith("physiology")].set_index(["model", "outcome"])
    gain = gain["value"].unstack("model")
    assert (gain["pacx-untrained"] > gain["pacx"] / 2).all()
    assert (gain["pacx-raw"] < gain["pacx"]).all()
    assert (gain["pacx-untrained-raw"] < gain["pacx-raw"] / 4).all()


def test_committed_evidence_is_of_the_committed_profile():
    if not FOLDER.is_dir():
        pytest.skip("no evidence has been gathered yet")
    profile = load_profile("evidence")
    assert load_profile(FOLDER / "profile.yaml") == profile
    expected = {(c, s) for c in profile.evidence.cohorts for s in profile.evidence.seeds}
    for file in FOLDER.glob("*.csv"):
        table = load_evidence(file.stem)
        found = set(zip(table["cohort"], table["seed"], strict=True))
        assert found == expected or file.stem == "dose"
