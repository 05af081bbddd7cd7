"""Profiles fail on what they do not know; a run never shows anything half-made."""

import json

import pandas as pd
import pytest
import yaml

from pacx.errors import PacxError
from pacx.profile import Profile, available_profiles, load_profile
from pacx.run import open_run


@pytest.mark.parametrize("name", available_profiles())
def test_shipped_profiles_are_valid(name):
    assert load_profile(name).name == name


def edited(tmp_path, change):
    values = load_profile("smoke").model_dump(mode="json")
    change(values)
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(sede=1), "sede: unknown key"),
        (lambda v: v["mae"].update(mask_ratio=1.5), "mae.mask_ratio"),
        (lambda v: v["mae"].update(mask_ratio="much"), "mae.mask_ratio"),
        (lambda v: v["distill"].pop("lora_rank"), "distill.lora_rank: missing"),
        (lambda v: v["distill"].update(norms="some"), "distill.norms"),
        (lambda v: v["phantom"]["patients"].update(chexpert={"train": 0}), "chexpert.train"),
    ],
)
def test_bad_settings_name_the_key(tmp_path, change, message):
    with pytest.raises(PacxError, match=message):
        load_profile(edited(tmp_path, change))


@pytest.mark.parametrize("text", ["a: [", "just words", ""])
def test_a_profile_that_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(PacxError, match=r"bad\.yaml"):
        load_profile(tmp_path / "bad.yaml")


def test_unknown_profile_lists_the_known_ones():
    with pytest.raises(PacxError, match="demo"):
        load_profile("dmeo")


def test_missing_artefact_names_the_chapter(tmp_path):
    run = open_run("smoke", tmp_path)
    with pytest.raises(PacxError, match=r"Run chapter 05_distillation first.*--only 05"):
        run.artefact("pacx-shuffled")
    with pytest.raises(PacxError, match="Run the earlier chapters first"):
        run.load_results("transfer")


def test_build_makes_once_and_again_only_when_settings_change(tmp_path):
    run, calls = open_run("smoke", tmp_path), []

    def make(folder):
        calls.append(1)
        (folder / "value.txt").write_text(str(len(calls)))

    assert (run.build("thing", make, 1) / "value.txt").read_text() == "1"
    assert (run.build("thing", make, 1) / "value.txt").read_text() == "1"
    assert (run.build("thing", make, 2) / "value.txt").read_text() == "2"
    made = json.loads((run.artefact("thing") / "made.json").read_text())
    assert made["profile"] == "smoke"
    assert made["seconds"] >= 0


def test_an_interrupted_build_leaves_the_old_artefact_and_is_not_read(tmp_path):
    run = open_run("smoke", tmp_path)
    run.build("thing", lambda folder: (folder / "value.txt").write_text("old"), 1)

    def interrupted(folder):
        (folder / "value.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.build("thing", interrupted, 2)
    assert (run.artefact("thing") / "value.txt").read_text() == "old"
    with pytest.raises(KeyboardInterrupt):
        run.build("other", interrupted, 1)
    with pytest.raises(PacxError):
        run.artefact("other")


def test_results_survive_and_do_not_outlive_their_profile(tmp_path):
    run = open_run("smoke", tmp_path)
    run.save_results("numbers", pd.DataFrame({"value": [1.5]}))
    assert open_run("smoke", tmp_path).load_results("numbers")["value"].item() == 1.5
    changed = Profile.model_validate({**run.profile.model_dump(), "seed": 99})
    with pytest.raises(PacxError):
        open_run(changed, tmp_path).load_results("numbers")


def test_an_unwritable_run_folder_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PacxError, match="--runs"):
        open_run("smoke", tmp_path / "file")


def test_a_profile_may_extend_another(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: demo\nname: mine\nseed: 3\n")
    ours, demo = load_profile(mine), load_profile("demo")
    assert ours == demo.model_copy(update={"name": "mine", "seed": 3})
    mine.write_text("extends: demmo\nname: mine\n")
    with pytest.raises(PacxError, match="no profile 'demmo'"):
        load_profile(mine)
    mine.write_text("extends: demo\nsede: 3\n")
    with pytest.raises(PacxError, match="sede: unknown key"):
        load_profile(mine)


def test_the_evidence_is_the_demo_on_other_patients():
    demo, evidence = load_profile("demo"), load_profile("evidence")
    changed = {key for key, value in demo if getattr(evidence, key) != value}
    assert changed == {"name", "description", "benchmarks", "variants", "evidence"}
    assert demo.phantom.seed not in evidence.evidence.cohorts
