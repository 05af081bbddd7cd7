"""What is made is made anew when something that it is made from changes, and only then."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT

from pacx import files
from pacx.book.execution import key_of, sources_of
from pacx.errors import PacxError
from pacx.files import cached_array, code_of, fingerprint, new_file, new_folder
from pacx.profile import load_profile
from pacx.run import Run

TRAINED = {"mae", "labs", "ecg", "distill", "supervised"}
CHAPTERS = {path.stem[:2] for path in (PROJECT / "notebooks").glob("[0-9][0-9]_*.py")}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project, whose code the keys are made from."""
    for part in ("pacx", "notebooks", "book"):
        shutil.copytree(PROJECT / part, tmp_path / part, ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(PROJECT / "constraints.txt", tmp_path)
    (tmp_path / "book" / "evidence").mkdir(exist_ok=True)
    (tmp_path / "book" / "evidence" / "transfer.csv").write_text("model\nmae\n")
    monkeypatch.setattr(files, "__file__", str(tmp_path / "pacx" / "files.py"))
    yield tmp_path
    files._code.cache_clear()


def keys_of(folder: Path) -> dict[str, str]:
    """The key of everything that is made: artefacts by their stage, chapters by their number."""
    files._code.cache_clear()
    run = Run(load_profile("smoke"))
    made_by = {stage: f"pacx.training.{stage}" for stage in TRAINED}
    made_by["segmenter"] = "pacx.training.segmentation"
    keys = {name: code_of(module) for name, module in made_by.items()}
    chapters = {s.stem[:2]: key_of(s, run, folder) for s in sources_of(folder)}
    return keys | chapters | {"data": run.fingerprint_of_data}


@pytest.mark.parametrize(
    ("file", "old", "new", "anew", "kept"),
    [
        # The three holes of keys made by hand.
        ("pacx/training/segmentation.py", "+ empty", "+ 2 * empty", {"segmenter", "06"}, TRAINED),
        ("book/evidence/transfer.csv", "mae", "mea", {"06", "09"}, TRAINED | {"data"}),
        ("pacx/pairing/check.py", '"""Is', '"""Reworded: is', set(), TRAINED | CHAPTERS),
        # One of each kind of thing that something is made from.
        ("pacx/figures/interactive.js", "const", "let", {"02", "05"}, TRAINED | {"03"}),
        ("pacx/profiles/paper.yaml", "epochs", "epochs ", {"13"}, TRAINED | {"02"}),
        ("book/benchmarks/spectrum.json", "1", "2", {"01"}, TRAINED | {"02", "05"}),
        ("pacx/models/mae.py", "qkv_bias=True", "qkv_bias=False", {"mae", "02"}, {"labs", "ecg"}),
        ("pacx/phantom/labs.py", "1.0", "1.1", {"data", *CHAPTERS}, set()),
        ("pacx/constants.py", "0.485", "0.486", TRAINED | {"data"}, set()),
        ("constraints.txt", "accelerate==", "accelerate==9", CHAPTERS, TRAINED | {"data"}),
        ("notebooks/03_lab_autoencoder.py", "percentile", "fraction", {"03"}, CHAPTERS - {"03"}),
        # Words, and code that others use.
        ("pacx/models/encoder.py", "must be at least", "has to be at least", set(), TRAINED),
        ("pacx/training/fit.py", '"""The rate of', '"""The rate at', set(), TRAINED | CHAPTERS),
        ("pacx/figures/graph.py", "1", "2", {"01"}, TRAINED | {"02", "05", "data"}),
        ("pacx/cli.py", "1", "2", set(), TRAINED | CHAPTERS | {"data"}),
    ],
)  # fmt: skip
def test_a_change_makes_anew_what_is_made_from_it_and_nothing_else(
    project, file, old, new, anew, kept
):
    before = keys_of(project)
    text = (project / file).read_text(encoding="utf-8")
    assert old in text
    (project / file).write_text(text.replace(old, new), encoding="utf-8")
    after = keys_of(project)
    changed = {name for name in before if before[name] != after[name]}
    assert anew <= changed
    assert not kept & changed


def test_a_fingerprint_tells_everything_apart(tmp_path):
    (tmp_path / "a").write_text("x")
    numbers = np.arange(4.0)
    parts = ["x", tmp_path / "a", numbers, numbers.reshape(2, 2), ("x",), 1, 1.0, None]
    assert len({fingerprint(part) for part in parts}) == len(parts)
    assert fingerprint("a", "b") != fingerprint("ab")
    assert fingerprint(numbers[::2]) == fingerprint(numbers[::2].copy())


def test_code_outside_the_library_has_no_fingerprint():
    assert code_of("numpy", __name__) == code_of()


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "table").write_text("old")

    def fail():
        with new_file(tmp_path / "table") as partial:
            partial.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"table": "old"}


def test_a_folder_is_replaced_only_when_asked(tmp_path):
    for text in ("first", "second"):
        with new_folder(tmp_path / "out", replace=True) as partial:
            (partial / text).touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["second"]
    with pytest.raises(PacxError, match="exists"), new_folder(tmp_path / "out"):
        pass


def test_what_dead_processes_left_is_removed_and_what_living_ones_write_is_not(tmp_path):
    dead, own, living, other = (
        tmp_path / f".{name}.{process}.partial"
        for name, process in (("a", 4_194_999), ("a", os.getpid()), ("a", os.getppid()), ("b", 1))
    )
    for left in (dead, own):
        left.mkdir()
    for left in (living, other):
        left.touch()
    with new_file(tmp_path / "a") as partial:
        partial.touch()
    assert set(tmp_path.iterdir()) == {tmp_path / "a", living, other}


def test_a_cached_array_is_made_once_for_each_key(tmp_path):
    made = []

    def fill(array):
        made.append(1)
        array[:] = len(made)

    arrays = [
        cached_array(tmp_path, key, (3,), np.float32, fill) for key in (("a",), ("b",), ("a",))
    ]
    assert [array.tolist() for array in arrays] == [[1] * 3, [2] * 3, [1] * 3]
    assert not arrays[0].flags.writeable
