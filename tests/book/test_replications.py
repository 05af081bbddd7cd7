"""Repetitions of chapters on fresh cohorts, on a project with one tiny chapter."""

import json

import pandas as pd
import pytest

from pacx.book import replications
from pacx.book.replications import gather_evidence
from pacx.errors import PacxError
from pacx.profile import EvidenceSettings, load_profile
from pacx.run import open_run

CHAPTER = """# %% tags=["parameters"]
profile, runs = "smoke", "runs"

# %%
import pandas as pd
from pacx.run import open_run

run = open_run(profile, runs)
with open(run.folder.parent / "executed", "a") as log:
    log.write("x")
row = {"model": "pacx", "value": run.profile.phantom.seed + run.profile.seed}
_ = run.save_results("transfer", pd.DataFrame([row]))
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "02_tiny.py").write_text(CHAPTER)
    (tmp_path / "constraints.txt").touch()
    return tmp_path


def run_of(project, **changes):
    evidence = EvidenceSettings(**{"cohorts": [10, 20], "chapters": ["02"], **changes})
    changes = {"evidence": evidence, "variants": ["pacx-ecg"]}
    return open_run(load_profile("smoke").model_copy(update=changes), project / "runs")


def test_chapters_are_repeated_pooled_and_not_repeated_again(project):
    run = run_of(project)
    out = gather_evidence(run, project / "evidence", project)
    table = pd.read_csv(out / "transfer.csv")
    assert dict(zip(table["cohort"], table["value"], strict=True)) == {10: 20, 20: 40}
    made = json.loads((out / "provenance.json").read_text())
    assert load_profile(out / "profile.yaml") == run.profile
    assert load_profile(run.folder / "10" / "profile.yaml").variants == run.profile.variants
    assert [set(row) for row in made["seconds"]] == [{"cohort", "02_tiny"}] * 2
    (run.folder / "20" / "notebooks" / "02_tiny.ipynb").unlink()  # as if stopped before it
    gather_evidence(run, out, project)
    assert (run.folder / "executed").read_text() == "x" * 3


def test_parts_make_every_repetition_once_and_write_nothing_else(project, monkeypatch):
    def in_this_process(what, call, jobs):
        return [call(*job) for job in jobs]

    monkeypatch.setattr(replications, "_side_by_side", in_this_process)
    run, out = run_of(project, cohorts=[10, 20, 30]), project / "evidence"
    assert gather_evidence(run, out, project, (2, 2)) == run.folder
    assert [path.name for path in run.folder.iterdir() if path.is_dir()] == ["20"]
    gather_evidence(run, out, project, (1, 2))
    assert not out.exists()
    gather_evidence(run, out, project)
    assert sorted(pd.read_csv(out / "transfer.csv")["cohort"]) == [10, 20, 30]
    assert (run.folder / "executed").read_text() == "x" * 3


def test_a_profile_without_evidence_is_refused(tmp_path):
    with pytest.raises(PacxError, match="has no `evidence`"):
        gather_evidence(open_run("smoke", tmp_path), tmp_path / "evidence")


def test_what_would_fail_after_hours_is_refused_before(project, monkeypatch):
    with pytest.raises(PacxError, match="no chapter '77'"):
        gather_evidence(run_of(project, chapters=["02", "77"]), project / "evidence", project)
    monkeypatch.chdir(project)
    for out in (".", "notebooks"):
        with pytest.raises(PacxError, match="holds something else than evidence"):
            gather_evidence(run_of(project), out, project)
    assert (project / "notebooks" / "02_tiny.py").is_file()
