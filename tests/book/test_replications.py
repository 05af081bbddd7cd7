"""Repetitions of chapters on fresh cohorts, on a project with one tiny chapter."""

import json

import numpy as np
import pandas as pd
import pytest

from pacx.book.replications import _share, gather_evidence
from pacx.errors import PacxError
from pacx.files import cached_array
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
    evidence = EvidenceSettings(
        **{
            "cohorts": [10],
            "seeds": [0],
            "variants_once": ["pacx-ecg"],
            "chapters": ["02"],
            "couplings": [],
            "teacher_shares": [],
            **changes,
        }
    )
    changes = {"evidence": evidence, "variants": ["pacx-ecg", "pacx-labs"]}
    return open_run(load_profile("smoke").model_copy(update=changes), project / "runs")


def test_chapters_are_repeated_pooled_and_not_repeated_again(project):
    run = run_of(project, cohorts=[10, 20], seeds=[0, 1])
    profile = run.profile
    out = gather_evidence(run, project / "evidence", project)
    table = pd.read_csv(out / "transfer.csv")
    assert (table["value"] == table["cohort"] + table["seed"]).all()
    assert sorted(table["value"]) == [10, 11, 20, 21]
    made = json.loads((out / "provenance.json").read_text())
    assert "superseded" not in made
    assert load_profile(out / "profile.yaml") == profile
    assert load_profile(run.folder / "10-0" / "profile.yaml").variants == profile.variants
    assert load_profile(run.folder / "10-1" / "profile.yaml").variants == ["pacx-labs"]
    assert [set(row) for row in made["seconds"]] == [{"cohort", "seed", "02_tiny"}] * 4
    (run.folder / "20-1" / "notebooks" / "02_tiny.ipynb").unlink()  # as if stopped before it
    gather_evidence(run, out, project)
    assert (run.folder / "executed").read_text() == "x" * 5


def test_a_profile_without_evidence_is_refused(tmp_path):
    with pytest.raises(PacxError, match="has no `evidence`"):
        gather_evidence(open_run("smoke", tmp_path), tmp_path / "evidence")


def test_what_another_run_has_not_made_yet_can_be_shared(tmp_path):
    run = open_run("smoke", tmp_path)
    _share(run, tmp_path / "other", "cache", "artefacts/mae")
    cached_array(run.cache, ("ones",), (3,), np.float32, lambda array: array.fill(1))
    assert len(list((tmp_path / "other" / "cache").glob("*.npy"))) == 1


def test_what_would_fail_after_hours_is_refused_before(project, monkeypatch):
    with pytest.raises(PacxError, match="no chapter '77'"):
        gather_evidence(run_of(project, chapters=["02", "77"]), project / "evidence", project)
    run = run_of(project, couplings=[0.5])
    run.profile.phantom.patients.pop("phantom-truth")
    with pytest.raises(PacxError, match=r"couplings.*need phantom-truth in phantom\.patients"):
        gather_evidence(run, project / "evidence", project)
    monkeypatch.chdir(project)
    for out in (".", "notebooks"):
        with pytest.raises(PacxError, match="holds something else than evidence"):
            gather_evidence(run_of(project), out, project)
    assert (project / "notebooks" / "02_tiny.py").is_file()
