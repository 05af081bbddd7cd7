"""Pooling over repetitions, and the evidence that is committed."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pacx.constants import PHYSIOLOGY_TASKS
from pacx.errors import PacxError
from pacx.evaluation.claims import PRIMARY
from pacx.evaluation.evidence import (
    FOLDER,
    load_evidence,
    pool,
    pooled_claims,
    provenance_of_evidence,
    superseded,
)
from pacx.figures import tables
from pacx.figures.tables import about_the_evidence, beside_the_evidence, in_the_evidence
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
    sets = [repetitions(effect=0, seed=seed).assign(task=seed) for seed in range(400)]
    rows = pool(pd.concat(sets))
    assert len(rows) == 400
    covered = rows["low"].le(0).mul(rows["high"].ge(0)).mean()
    assert abs(covered - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize(
    "more",
    [
        {},  # as superseded evidence has them
        {"primary": True, "kind": "within", "margin": 0.02, "pooling": ["cls", "mean", "cls"],
         "reference_pooling": "mean", "model": "pacx", "reference": "mae", "p": 0.1, "p_holm": 0.2},
    ],
)  # fmt: skip
def test_claims_are_pooled_and_tasks_counted(tmp_path, more):
    facts = {
        "cohort": [0, 1, 2],
        "seed": 0,
        "estimate": [0.1, 0.2, 0.3],
        "holds": [True, False, True],
        "claim": "c",
    } | more
    pd.DataFrame(facts).to_csv(tmp_path / "claims.csv", index=False)
    effects = {task: 0.1 if k < 3 else 0.0 for k, task in enumerate(PHYSIOLOGY_TASKS)}
    tasks = [
        repetitions(effect, seeds=1, seed=7).assign(task=task, fraction=0.01)
        for task, effect in effects.items()
    ]
    tasks = pd.concat(tasks)
    if more:  # other readings stand beside
        tasks = tasks.assign(probe="converged", pooling="cls")
        none = tasks.assign(difference_value=-1, difference_low=-2, difference_high=0)
        tasks = pd.concat([tasks, none.assign(pooling="mean"), none.assign(probe="paper")])
    tasks.to_csv(tmp_path / "label_efficiency.csv", index=False)
    claim, count = pooled_claims(tmp_path).to_dict("records")
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert (claim["estimate"], claim["low"]) == pytest.approx((0.2, 0.2 - half))
    assert (claim["holds"], claim["runs"]) == (2, 3)
    for fact in {"primary", "kind", "margin"} & set(more):
        assert claim[fact] == more[fact]
    assert (count["estimate"], count["runs"]) == (3, len(PHYSIOLOGY_TASKS))


@pytest.fixture
def evidence(tmp_path, monkeypatch):
    """A folder that takes the place of the committed evidence beside a run."""
    folder = tmp_path / "evidence"
    for read in (load_evidence, superseded):
        monkeypatch.setattr(tables, read.__name__, partial(read, folder=folder))
    return folder


def test_a_run_stands_beside_the_evidence(evidence):
    ours = repetitions(cohorts=1, seeds=1)
    assert beside_the_evidence(ours, "transfer").data["runs above, below zero"].tolist() == [""]
    evidence.mkdir()
    repetitions().to_csv(evidence / "transfer.csv", index=False)
    shown = beside_the_evidence(ours, "transfer").data
    assert shown["runs above, below zero"].tolist() == ["9,\xa00\xa0of\xa09"]
    with pytest.raises(PacxError, match="no evidence 'other'"):
        in_the_evidence("other", "seed == 0")


def test_evidence_without_a_key_stands_beside_its_values_but_not_beside_another_pooling(evidence):
    evidence.mkdir()
    ours = [
        repetitions(cohorts=1, seeds=1).assign(pooling=pooling, probe=probe)
        for pooling in ("cls", "mean")
        for probe in ("converged", "paper")
    ]
    ours = pd.concat(ours)
    repetitions().to_csv(evidence / "transfer.csv", index=False)
    shown = beside_the_evidence(ours, "transfer").data
    told = shown[shown["evidence [95 %]"] != ""]
    assert list(told["pooling"]) == ["CLS token"] * 2
    assert set(told["probe"]) == {"converged", "the paper's"}
    repetitions().assign(pooling="mean", probe="paper").to_csv(
        evidence / "transfer.csv", index=False
    )
    shown = beside_the_evidence(ours, "transfer").data
    told = shown[shown["evidence [95 %]"] != ""]
    assert told[["pooling", "probe"]].to_numpy().tolist() == [["mean of patches", "the paper's"]]


def test_what_shows_superseded_evidence_says_so(evidence):
    evidence.mkdir()
    repetitions().to_csv(evidence / "transfer.csv", index=False)
    ours = repetitions(cohorts=1, seeds=1)

    def shown():
        pages = beside_the_evidence(ours, "transfer"), in_the_evidence("transfer", "seed == 0")
        return [*(page.to_html() for page in pages), about_the_evidence().data]

    assert superseded(evidence) is None  # nobody knows of it
    assert not any("superseded" in page for page in shown())
    (evidence / "provenance.json").write_text('{"profile": "evidence"}')
    assert superseded(evidence) is None
    (evidence / "provenance.json").write_text('{"superseded": "Of <old> phantoms."}')
    assert superseded(evidence) == "Of <old> phantoms."
    assert all("superseded. Of &lt;old&gt; phantoms." in page for page in shown())


def test_committed_evidence_is_of_the_committed_profile():
    """Or it is superseded, and says why: then it is whole, and of its own profile's cohorts."""
    if not FOLDER.is_dir():
        pytest.skip("no evidence has been gathered yet")
    if reason := superseded():
        assert "\n" not in reason
        made = provenance_of_evidence()
        expected = {(c, s) for c in made["cohorts"] for s in made["seeds"]}
    else:
        profile = load_profile("evidence")
        assert load_profile(FOLDER / "profile.yaml") == profile
        expected = {(c, s) for c in profile.evidence.cohorts for s in profile.evidence.seeds}
        judged = load_evidence("claims")
        assert {claim.text for claim in PRIMARY} <= set(judged["claim"])
    for file in FOLDER.glob("*.csv"):
        table = load_evidence(file.stem)
        found = set(zip(table["cohort"], table["seed"], strict=True))
        assert found == expected or file.stem == "dose"
