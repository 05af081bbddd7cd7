"""Profiles fail on what they do not know; a run never shows anything half-made."""

import json
import shutil
import subprocess
from functools import partial
from importlib import metadata
from typing import get_args

import pandas as pd
import pytest
import yaml
from tiny_hospital import hospital

import pacx.run
from pacx.book.execution import key_of
from pacx.data.datasets import DATASETS
from pacx.data.datasets.ecg_archive import load_ecg_archive
from pacx.data.datasets.symile_mimic import load_pairs
from pacx.errors import PacxError
from pacx.phantom.hospital import WRITERS
from pacx.profile import (
    Benchmark,
    PhantomData,
    Profile,
    VariantName,
    available_profiles,
    load_profile,
)
from pacx.run import find_run, open_run
from pacx.training.distill import VARIANTS


@pytest.mark.parametrize("name", available_profiles())
def test_shipped_profiles_are_valid(name):
    assert load_profile(name).name == name


def test_the_paper_trains_in_16_bit_and_its_rehearsal_runs_on_a_cpu():
    assert load_profile("paper").precision == "fp16"
    assert load_profile("paper", precision="bf16").precision == "bf16"
    assert load_profile("rehearsal").precision == "fp32"


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


@pytest.mark.parametrize("text", ["a: [", "just words", "", "!!map [1]"])
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


def other_settings(run):
    return run.profile.model_copy(update={"seed": 99})


def made_with(run, value):
    run.save_results("numbers", pd.DataFrame({"value": [value]}))
    run.notebooks.mkdir(exist_ok=True)
    (run.notebooks / "01_cohort.ipynb").write_text(str(value))
    return run


def test_what_other_settings_made_is_set_aside_and_said(tmp_path, capsys):
    first = made_with(open_run("smoke", tmp_path), 1)
    open_run("smoke", tmp_path)
    assert not capsys.readouterr().out
    second = open_run(other_settings(first), tmp_path)
    said = capsys.readouterr().out
    assert f"notebooks go to {first.folder / 'notebooks.before'}." in said
    assert f"results go to {first.folder / 'results.before'}." in said
    kept = pd.read_parquet(first.folder / "results.before" / "numbers.parquet")
    assert kept["value"].tolist() == [1]
    assert (first.folder / "notebooks.before" / "01_cohort.ipynb").read_text() == "1"
    open_run("smoke", tmp_path)  # the second has made nothing, so nothing takes that place
    assert (first.folder / "notebooks.before" / "01_cohort.ipynb").read_text() == "1"
    open_run(second.profile, tmp_path)
    made_with(second, 2)
    open_run("smoke", tmp_path)
    assert "in place of older ones" in capsys.readouterr().out
    assert (first.folder / "notebooks.before" / "01_cohort.ipynb").read_text() == "2"


def test_a_run_is_found_unchanged_or_not_at_all(tmp_path):
    with pytest.raises(PacxError, match=r"holds no run.*pacx run --profile smoke"):
        find_run("smoke", tmp_path)
    assert not list(tmp_path.iterdir())
    run = made_with(open_run("smoke", tmp_path), 1)
    with pytest.raises(PacxError, match=r"other settings.*--profile .*profile\.yaml"):
        find_run(other_settings(run), tmp_path)
    assert find_run(run.folder / "profile.yaml", tmp_path).load_results("numbers").size == 1


def test_changed_tables_of_real_data_make_anew(tmp_path):
    data, source = tmp_path / "data", tmp_path / "01_chapter.py"
    (data / "chexpert").mkdir(parents=True)
    (data / "tb" / "meta").mkdir(parents=True)
    source.touch()
    (tmp_path / "constraints.txt").touch()
    run, seen = open_run(load_profile("smoke", data), tmp_path / "runs"), []
    for file in ("chexpert/train.csv", "chexpert/train.csv", "tb/meta/clinical.csv"):
        with (data / file).open("a") as table:
            table.write("1\n")
        run.build("thing", lambda folder: seen.append(1))
        run.build("thing", lambda folder: seen.append(1))
        seen.append(key_of(source, run, tmp_path))
    assert seen[::2] == [1, 1, 1]
    assert len(set(seen[1::2])) == 3


def _note(seen, folder):
    seen.append("made")


def test_a_copied_run_on_copied_data_makes_nothing_anew(tmp_path):
    """Neither the place nor the time of a file is in any key."""
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(hospital() / "symile-mimic", here / "data" / "symile-mimic")
    shutil.copytree(hospital() / "ecg-archive", here / "data" / "ecg-archive")
    source = tmp_path / "01_chapter.py"
    source.touch()
    (tmp_path / "constraints.txt").touch()
    seen = []
    for place in (here, there):
        if place == there:
            shutil.copytree(here, there, copy_function=shutil.copyfile)
        run = open_run(load_profile("smoke", place / "data"), place / "runs")
        load_pairs(run.data_root, "val", 16, run.cache)
        load_ecg_archive(run.data_root, run.cache)
        run.build("thing", partial(_note, seen))
        seen += [key_of(source, run, tmp_path), sorted(f.name for f in run.cache.glob("*.npy"))]
    assert seen[0] == "made"
    assert seen[1:3] == seen[3:]
    assert not list(there.rglob("*.before"))


def test_new_times_of_phantoms_make_nothing_anew(tmp_path):
    run, seen = open_run("smoke", tmp_path), []
    for _ in range(2):
        (run.data_root / "tb").mkdir(parents=True, exist_ok=True)
        (run.data_root / "tb" / "labels.csv").write_text("x" * (len(seen) + 1))
        run.build("thing", lambda folder: seen.append(1))
    assert seen == [1]


def test_provenance_names_no_commit_of_a_foreign_repository(tmp_path, monkeypatch):
    package = tmp_path / ".venv" / "pacx"
    package.mkdir(parents=True)
    (package / "run.py").touch()
    (tmp_path / "theirs").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init"], ["add", "theirs"], ["commit", "-m", "x"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    monkeypatch.setattr(pacx.run.resources, "files", lambda name: package)
    assert pacx.run._commit() == f"pacx {metadata.version('pacx')}"
    subprocess.run([*git, "add", "-f", ".venv"], check=True)
    assert not pacx.run._commit().startswith("pacx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v.update(benchmarks=["tb", "nih14"]),
            "benchmarks: 'nih14' cannot be read here, choose one of .*nih-14",
        ),
        (lambda v: v.update(variants=["pacx-nope"]), r"variants\.0: .*'pacx-ecg'"),
        (lambda v: v.update(variants=["pacx"]), r"variants\.0: .*'pacx-ecg'"),
        (lambda v: v.update(variants=["pacx-ecg"] * 2), "variants: pacx-ecg is there twice"),
        (lambda v: v["vit"].update(image_size=60), "vit: patch_size 8 does not divide image_size"),
        (lambda v: v["vit"].update(heads=5), "vit: heads 5 does not divide width 48"),
        (lambda v: v["mae"].update(decoder_heads=5), "mae: decoder_heads 5 does not divide"),
        (lambda v: v["mae"].update(decoder_width=30, decoder_heads=5), "not a multiple of 4"),
        (lambda v: v["mae"].update(mask_ratio=0.99), "mae: mask_ratio 0.99 keeps none of 64"),
        (lambda v: v["paper_probe"].update(epochs=True), r"paper_probe\.epochs: .*integer"),
        (lambda v: v["phantom"]["patients"].update(nope={"train": 3}), r"phantom\.patients\.nope"),
        (lambda v: v["phantom"]["patients"]["tb"].update(trian=3), r"phantom\.patients\.tb\.trian"),
        (lambda v: v["phantom"]["patients"].update(tb=5), r"phantom\.patients\.tb"),
        (
            lambda v: v["phantom"]["patients"].update(tb={"train": {"a": 1}}),
            r"phantom\.patients\.tb\.train",
        ),
        (
            lambda v: v.update(
                data_root="data", evidence=load_profile("evidence").evidence.model_dump()
            ),
            "evidence: real patients have no fresh cohorts",
        ),
    ],
)
def test_a_typing_mistake_cannot_run(tmp_path, change, message):
    with pytest.raises(PacxError, match=message):
        load_profile(edited(tmp_path, change))


def test_a_key_that_stands_there_twice_is_refused(tmp_path):
    (tmp_path / "own.yaml").write_text("extends: smoke\nseed: 1\nbootstrap: 5\nseed: 2\n")
    with pytest.raises(PacxError, match=r"own\.yaml is not valid YAML: seed is there twice"):
        load_profile(tmp_path / "own.yaml")


def test_extends_is_relative_to_the_file_that_says_it(tmp_path):
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "base.yaml").write_text("extends: smoke\nname: base\nseed: 4\n")
    (folder / "child.yaml").write_text("extends: base.yaml\nname: child\n")
    assert load_profile(folder / "child.yaml").seed == 4
    (folder / "base.yaml").write_text("extends: ../sub/child.yaml\n")
    with pytest.raises(PacxError, match="extends itself"):
        load_profile(folder / "child.yaml")


def test_profiles_know_every_data_set_and_variant():
    benchmarks, phantoms, variants = map(get_args, (Benchmark, PhantomData, VariantName))
    assert set(benchmarks) == set(DATASETS) - {"chexpert", "symile-mimic"}
    assert set(phantoms) == set(WRITERS)
    assert {"pacx", *variants} == set(VARIANTS)
