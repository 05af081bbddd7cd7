"""Anyone's own data: from a tidy folder to predictions, and every way to get the layout wrong."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb
import yaml
from PIL import Image
from tiny_hospital import hospital
from typer.testing import CliRunner

from pacx.book.chapter import open_chapter
from pacx.book.privacy import _identifiers
from pacx.cli import app
from pacx.constants import LABS, LEADS_MIMIC
from pacx.data.datasets import (
    lacking,
    load_dataset,
    load_pairs,
    load_populations,
    paired_patients,
    teachers_of,
    terms_of,
)
from pacx.data.ecg import read_ecg
from pacx.data.images import read_image
from pacx.data.splits import audit_overlaps
from pacx.errors import NoDataError, PacxError
from pacx.evaluation.transfer import open_benchmark
from pacx.pairing.check import check_dataset
from pacx.phantom.ecg import render_ecgs
from pacx.phantom.labs import draw_labs
from pacx.phantom.radiograph import render_radiographs
from pacx.phantom.state import sample_patients, task_labels
from pacx.profile import load_profile
from pacx.run import Run
from pacx.training.labs import train_labs

N, SIZE, HZ = 40, 32, 100
LABELS = ["congestion", "kidney_disease", "tube"]
TESTS = ["Creatinine", "Hemoglobin", "Sodium"]
SPLITS = ["train"] * 20 + ["val"] * 8 + ["test"] * 12
PATIENTS = [f"p{i}" for i in range(N)]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory) -> Path:
    """Forty phantoms in the tidy layout: X-rays, masks, ECGs, labels and three blood tests."""
    root = tmp_path_factory.mktemp("data") / "clinic"
    patients = sample_patients(N, seed=3)
    films, masks = render_radiographs(patients, SIZE, seed=3, masks=True)
    ecgs = render_ecgs(patients, HZ, seed=3)
    for folder in ("images", "masks", "ecg"):
        (root / folder).mkdir(parents=True)
    for i in range(N):
        Image.fromarray(films[i]).save(root / "images" / f"{i}.png")
        Image.fromarray(255 * masks["lungs"][i].astype(np.uint8)).save(root / "masks" / f"{i}.png")
        wfdb.wrsamp(
            f"{i}", fs=HZ, units=["mV"] * 12, sig_name=list(LEADS_MIMIC), p_signal=ecgs[i].T,
            fmt=["16"] * 12, write_dir=str(root / "ecg"),
        )  # fmt: skip
    who = {"image": [f"images/{i}.png" for i in range(N)], "patient": PATIENTS, "split": SPLITS}
    labels = task_labels(patients, seed=3)[LABELS].astype(int).reset_index(drop=True)
    # Each split needs both classes, which forty patients do not always have.
    labels.iloc[[0, 20, 28]], labels.iloc[[1, 21, 29]] = 0, 1
    pd.DataFrame(who).join(labels).to_csv(root / "table.csv", index=False)
    names = [lab.name for lab in LABS]
    values = pd.DataFrame(draw_labs(patients, seed=3), columns=names)[TESTS].round(2)
    values.iloc[::5, 0] = np.nan
    values["Sodium"] = values["Sodium"].fillna(140)
    who["ecg"] = [f"ecg/{i}" for i in range(N)]
    pd.DataFrame(who).join(values).to_csv(root / "pairs.csv", index=False)
    units = {lab.name: lab.unit for lab in LABS if lab.name in TESTS}
    about = {"name": "clinic", "task": "multilabel", "labels": LABELS, "labs": units}
    (root / "dataset.yaml").write_text(yaml.safe_dump(about))
    return root


@pytest.fixture
def folder(clinic, tmp_path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(clinic, tmp_path / "data" / "clinic"))


def write_profile(folder: Path, data_root: Path, **changes) -> Path:
    """The smoke profile on own data, as small as it goes."""
    smoke = load_profile("smoke").model_dump(mode="json")
    once = {"epochs": 1, "batch_size": 8}
    small = {stage: smoke[stage] | once for stage in ("mae", "labs", "distill")}
    vit = {"image_size": SIZE, "patch_size": 8, "width": 24, "depth": 1, "heads": 2}
    own = {"pretraining": "clinic", "pairs": "clinic", "benchmarks": ["clinic"]}
    profile = {
        "extends": "smoke", "name": "clinic", "data_root": str(data_root), "vit": vit,
        "variants": [], **small, **own, **changes,
    }  # fmt: skip
    path = folder / "clinic.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path


def run_of(folder: Path, **changes) -> Run:
    """A run on the data set in a folder, which has an archive of ECGs beside it."""
    return Run(load_profile(write_profile(folder.parent, folder.parent, **changes)), folder.parent)


def command(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_from_check_to_prediction_with_blood_tests_only(clinic, tmp_path):
    runs, encoder = tmp_path / "runs", tmp_path / "encoder"
    montage = tmp_path / "sheet.png"
    said = command("data", "check", "clinic", "--root", clinic.parent, "--montage", montage)
    assert "pairs.csv: 40 of 40 ECGs were read." in said
    assert "0 problem(s) found" in said
    profile = write_profile(tmp_path, clinic.parent)
    said = command("train", "mae", "labs", "pacx", "--profile", profile, "--runs", runs)
    assert "ecg: left out for want of ECGs to learn from" in said
    made = runs / "clinic" / "artefacts"
    assert {f.name for f in made.iterdir()} >= {"mae", "labs", "pacx"}
    assert not (made / "ecg").exists()
    history = pd.read_csv(made / "pacx" / "history.csv")
    assert "regression_labs" in history
    assert "regression_ecg" not in history

    assert "The encoder is at" in command("export", runs / "clinic", "--to", encoder)
    table = tmp_path / "probe.csv"
    command("probe", "--encoder", encoder, "--data", clinic, "--out", table)
    scores = pd.read_csv(table)
    assert set(scores["task"]) == {*LABELS, "macro"}
    assert set(scores["pooling"]) == {"cls", "mean"}
    assert (scores["low"] <= scores["value"]).all()
    assert (scores["value"] <= scores["high"]).all()
    truth = load_dataset("clinic", clinic.parent).split("test")
    of_labels = scores.query("task != 'macro'").drop_duplicates("task").set_index("task")
    assert of_labels["positives"].to_dict() == truth[LABELS].sum().to_dict()
    assert (scores["patients"] == 12).all()
    out = tmp_path / "out"
    command("predict", clinic / "images", "--encoder", encoder, "--probe", "clinic", "--out", out)
    predicted = pd.read_csv(out / "predictions.csv")
    assert len(predicted) == N
    assert predicted["clinic: tube"].between(0, 1).all()


def test_what_is_read_is_what_was_written(clinic):
    data = load_dataset("clinic", clinic.parent)
    assert (data.task, data.labels, data.terms) == ("multilabel", tuple(LABELS), "credentialed")
    written = pd.read_csv(clinic / "table.csv")
    assert data.table[["image", "patient", "split", *LABELS]].equals(
        written.astype(dict.fromkeys(LABELS, "float32")).set_axis(data.table.index)
    )
    assert terms_of("clinic", clinic.parent) == "credentialed"


def test_pairs_hold_percentiles_of_their_own_training_split(folder):
    shutil.copytree(hospital() / "ecg-archive", folder.parent / "ecg-archive")
    run = run_of(folder)
    assert teachers_of(run) == ("ecg", "labs")
    assert lacking(run) == {}
    pairs = load_pairs(run, "test")
    written = pd.read_csv(folder / "pairs.csv")
    train, test = (written[written["split"] == s][TESTS].to_numpy() for s in ("train", "test"))
    assert pairs.observed.tolist() == (~np.isnan(test)).tolist()
    for column, values in enumerate(train.T):
        for row, value in enumerate(test[:, column]):
            rank = np.mean(values[~np.isnan(values)] <= value) if value == value else 0
            assert pairs.percentiles[row, column] == pytest.approx(rank)
    assert pairs.ecg.shape == (12, 12, 10 * HZ)
    assert np.isfinite(pairs.ecg).all()
    assert pairs.table["patient"].tolist() == PATIENTS[28:]
    np.testing.assert_array_equal(pairs.cxr[3], read_image(folder / "images" / "31.png"))
    # A slower record is brought to the teacher's rate.
    signal = read_ecg(folder / "ecg" / "28").signal[:, ::2]
    wfdb.wrsamp(
        "28", fs=HZ // 2, units=["mV"] * 12, p_signal=signal.T, fmt=["16"] * 12,
        sig_name=list(read_ecg(folder / "ecg" / "28").leads), write_dir=str(folder / "ecg"),
    )  # fmt: skip
    again = load_pairs(run, "test").ecg
    np.testing.assert_array_equal(again[1:], pairs.ecg[1:])
    assert np.corrcoef(again[0].ravel(), pairs.ecg[0].ravel())[0, 1] > 0.9


def test_the_profile_and_the_data_say_which_teachers_there_are(folder):
    assert teachers_of(run_of(folder)) == ("labs",)  # nothing to train an ECG teacher from
    shutil.copytree(hospital() / "ecg-archive", folder.parent / "ecg-archive")
    assert teachers_of(run_of(folder, teachers=["ecg"])) == ("ecg",)
    about = yaml.safe_load((folder / "dataset.yaml").read_text())
    (folder / "dataset.yaml").write_text(yaml.safe_dump(about | {"labs": {}}))
    run = run_of(folder)
    assert teachers_of(run) == ("ecg",)
    assert load_pairs(run, "train").percentiles.shape == (20, 0)
    with pytest.raises(NoDataError, match="cannot train 'labs' for want of blood tests"):
        train_labs(run)
    (folder / "pairs.csv").unlink()
    assert set(lacking(run_of(folder))) == {"ecg", "labs", "pacx"}
    assert paired_patients(run_of(folder), "train").empty
    with pytest.raises(NoDataError, match="reads symile-mimic"):
        open_chapter(folder.parent / "clinic.yaml", folder.parent, needs="symile-mimic")
    assert set(lacking(run_of(folder, pairs="nobody"))) == {"ecg", "labs", "pacx"}
    assert paired_patients(run_of(folder, pairs="nobody"), "train").empty


def test_without_a_split_patients_are_dealt_out_always_alike(folder):
    table = pd.read_csv(folder / "table.csv").drop(columns="split")
    table["patient"] = [f"p{i // 2}" for i in range(N)]
    table.to_csv(folder / "table.csv", index=False)
    first = load_dataset("clinic", folder.parent)
    assert first.patients_in_two_splits == []
    assert first.table["split"].value_counts().to_dict() == {"train": 28, "test": 8, "val": 4}
    table[::-1].to_csv(folder / "table.csv", index=False)
    again = load_dataset("clinic", folder.parent).table.set_index("image")["split"]
    assert again.to_dict() == first.table.set_index("image")["split"].to_dict()


def test_guards_serve_own_data(folder):
    run = run_of(folder)
    assert len(open_benchmark(run, "clinic").table) == N  # the distilled train its probes, too
    cell("pairs.csv", 30, "split", "train")(folder)
    with pytest.raises(PacxError, match="1 patients were in the distillation"):
        open_benchmark(run, "clinic")
    about = yaml.safe_load((folder / "dataset.yaml").read_text())
    elsewhere = Path(shutil.copytree(folder, folder.parent / "elsewhere"))
    other = about | {"name": "elsewhere", "hospital": "elsewhere"}
    (elsewhere / "dataset.yaml").write_text(yaml.safe_dump(other))
    run = run_of(folder, leaks="refuse", benchmarks=["elsewhere"])
    assert len(open_benchmark(run, "elsewhere").table) == N  # of another hospital, other people
    (elsewhere / "dataset.yaml").write_text(yaml.safe_dump(other | {"hospital": "own"}))
    with pytest.raises(PacxError, match="21 patients were in the distillation"):
        open_benchmark(run, "elsewhere")
    run = run_of(folder, leaks="remove", benchmarks=["elsewhere"])
    assert set(open_benchmark(run, "elsewhere").table["patient"]) == {*PATIENTS[20:]} - {"p28"}
    audit = audit_overlaps(load_populations(run))
    assert audit.query("split == 'train'")["shared"].tolist() == [21]


def test_patients_of_own_data_are_kept_from_a_page(folder):
    names = pd.read_csv(folder / "table.csv")
    names["patient"] = [f"patient{i + 100}" for i in range(N)]
    names.to_csv(folder / "table.csv", index=False)
    run = run_of(folder)
    assert {"patient100", "patient139"} <= _identifiers(run)
    about = yaml.safe_load((folder / "dataset.yaml").read_text())
    (folder / "dataset.yaml").write_text(yaml.safe_dump(about | {"terms": "open"}))
    assert _identifiers(run) == set()


def test_a_byte_order_mark_blank_lines_and_spaces_do_no_harm(folder):
    before = load_dataset("clinic", folder.parent).table
    text = (
        (folder / "table.csv").read_text().replace(",train", ", train ").replace("\n", "\r\n\r\n")
    )
    (folder / "table.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    after = load_dataset("clinic", folder.parent).table
    assert after.reset_index(drop=True).equals(before.reset_index(drop=True))


def cell(file: str, line: int, column: str, value: object):
    """Change one cell, by its line in the file."""

    def change(root: Path) -> None:
        table = pd.read_csv(root / file, dtype=str, keep_default_na=False)
        table.loc[line - 2, column] = value
        table.to_csv(root / file, index=False)

    return change


def text(file: str, old: str, new: str):
    def change(root: Path) -> None:
        content = (root / file).read_text()
        assert old in content
        (root / file).write_text(content.replace(old, new))

    return change


def yaml_of(**changes):
    def change(root: Path) -> None:
        about = yaml.safe_load((root / "dataset.yaml").read_text())
        (root / "dataset.yaml").write_text(yaml.safe_dump(about | changes))

    return change


def bytes_of(file: str, content: bytes):
    return lambda root: (root / file).write_bytes(content)


def with_masks(column: list[str], spoil):
    """Make it a segmentation data set and then spoil it."""

    def change(root: Path) -> None:
        yaml_of(task="segmentation", labels=[])(root)
        table = pd.read_csv(root / "table.csv")
        if column:
            table["mask"] = column
        table.to_csv(root / "table.csv", index=False)
        spoil(root)

    return change


MASKS = [f"masks/{i}.png" for i in range(N)]
#: What is done to the folder -> words of the one error.
WRONG = {
    "no dataset.yaml": (
        lambda r: (r / "dataset.yaml").unlink(),
        ["describe your own in", "dataset.yaml"],
    ),
    "yaml: unknown key": (yaml_of(label=["a"]), ["dataset.yaml", "label: unknown key", "spelling"]),
    "yaml: unknown task": (yaml_of(task="multi"), ["dataset.yaml", "task", "'multilabel'"]),
    "yaml: unknown terms": (yaml_of(terms="public"), ["dataset.yaml", "terms", "'open'"]),
    "yaml: no YAML": (
        bytes_of("dataset.yaml", b"name: [clinic"),
        ["dataset.yaml is not valid YAML"],
    ),
    "yaml: a key twice": (
        text("dataset.yaml", "name:", "task: binary\nname:"),
        ["task is there twice"],
    ),
    "yaml: other name": (yaml_of(name="cliinc"), ["name is cliinc", "folder is clinic"]),
    "yaml: a public name": (yaml_of(name="tb"), ["tb is a public data set's"]),
    "yaml: a label that is split": (yaml_of(labels=["split"]), ["'split'", "has a meaning"]),
    "yaml: binary with three": (yaml_of(task="binary"), ["binary cannot have 3"]),
    "no table": (
        lambda r: [(r / f).unlink() for f in ("table.csv", "pairs.csv")],
        ["table.csv is missing"],
    ),
    "empty table": (bytes_of("table.csv", b"image,patient,split\n"), ["table.csv is empty"]),
    "missing column": (
        text("table.csv", "patient", "person"),
        ["table.csv lacks the column 'patient'", "person"],
    ),
    "misspelt label": (
        text("table.csv", "congestion", "congestoin"),
        ["lacks the column 'congestion'"],
    ),
    "Split for split": (
        text("table.csv", "split", "Split"),
        ["line 1: column 'Split'", "write split"],
    ),
    "column twice": (text("table.csv", "tube", "congestion"), ["column 'congestion'", "twice"]),
    "semicolons": (text("table.csv", ",", ";"), ["line 1: ';' parts the columns", "commas"]),
    "tabs": (text("table.csv", ",", "\t"), ["parts the columns", "commas"]),
    "UTF-16": (
        bytes_of("table.csv", "image,patient".encode("utf-16")),
        ["table.csv is no UTF-8", "CSV UTF-8"],
    ),
    "a comma too many": (
        text("table.csv", "images/7.png,", "images,/7.png,"),
        ["line 9: 7 cells", "line 1 has 6", "quotes"],
    ),
    "no patient": (cell("table.csv", 5, "patient", ""), ["line 5, column 'patient'", "empty"]),
    "path above the folder": (
        cell("table.csv", 4, "image", "../1.png"),
        ["line 4, column 'image'", "not inside"],
    ),
    "absolute path": (
        cell("table.csv", 4, "image", "/etc/passwd"),
        ["line 4, column 'image'", "not inside"],
    ),
    "Windows path": (
        cell("table.csv", 4, "image", "C:\\x.png"),
        ["line 4, column 'image'", "not inside"],
    ),
    "missing file": (
        cell("table.csv", 6, "image", "images/x.png"),
        ["line 6, column 'image': there is no 'images/x.png'"],
    ),
    "image twice": (
        cell("table.csv", 6, "image", "images/0.png"),
        ["line 6, column 'image'", "earlier line"],
    ),
    "label 2": (
        cell("table.csv", 8, "tube", "2"),
        ["line 8, column 'tube': '2'", "1, 0, or nothing"],
    ),
    "label yes": (
        cell("table.csv", 8, "tube", "yes"),
        ["line 8, column 'tube': 'yes'", "1, 0, or nothing"],
    ),
    "two classes at once": (yaml_of(task="multiclass"), ["table.csv, line", "1 for one class"]),
    "unknown split": (
        cell("table.csv", 9, "split", "training"),
        ["line 9, column 'split': 'training'", "train, val or test"],
    ),
    "no split in a line": (
        cell("table.csv", 9, "split", ""),
        ["line 9, column 'split'", "train, val or test"],
    ),
    "patient in two splits": (
        cell("table.csv", 30, "patient", "p0"),
        ["line 30, column 'split': 'test'", "another split"],
    ),
    "no masks": (with_masks([], lambda r: None), ["lacks the column 'mask'"]),
    "missing mask": (
        with_masks(["x.png", *MASKS[1:]], lambda r: None),
        ["line 2, column 'mask'", "x.png"],
    ),
    "mask of other size": (
        with_masks(MASKS, lambda r: Image.new("L", (SIZE, 9), 255).save(r / "masks" / "3.png")),
        ["table.csv: 1 images or masks are of another shape than their image", "row 5"],
    ),
    "broken image": (
        lambda r: [(r / "pairs.csv").unlink(), bytes_of("images/3.png", b"no image")(r)],
        ["table.csv: 1 images", "cannot be read", "row 5"],
    ),
    "test not a number": (
        cell("pairs.csv", 3, "Sodium", "<120"),
        ["pairs.csv, line 3, column 'Sodium': '<120'", "Write 3.5"],
    ),
    "decimal comma": (
        cell("pairs.csv", 3, "Sodium", "139,5"),
        ["line 3, column 'Sodium': '139,5'", "Write 3.5"],
    ),
    "infinite": (cell("pairs.csv", 3, "Sodium", "inf"), ["line 3, column 'Sodium': 'inf'"]),
    "test without a column": (yaml_of(labs={"CRP": "mg/L"}), ["pairs.csv lacks the column 'CRP'"]),
    "test nobody had": (
        lambda r: [cell("pairs.csv", line, "Sodium", "")(r) for line in range(2, 22)],
        ["pairs.csv, column 'Sodium': no training patient"],
    ),
    "nothing measured": (
        lambda r: [cell("pairs.csv", 4, test, "")(r) for test in TESTS],
        ["pairs.csv, line 4", "any other test", "Delete the row"],
    ),
    "nothing paired": (
        lambda r: (yaml_of(labs={})(r), text("pairs.csv", ",ecg,", ",trace,")(r)),
        ["pairs.csv pairs nothing", "column ecg"],
    ),
    "missing ECG": (
        cell("pairs.csv", 7, "ecg", "ecg/x"),
        ["pairs.csv, line 7, column 'ecg'", "'ecg/x'"],
    ),
    "ECG without rate": (
        text("ecg/4.hea", "4 12 100 1000", "4 12"),
        ["1 ECGs cannot be read", "row 6", "sampling rate"],
    ),
    "short ECG": (
        text("ecg/4.hea", "4 12 100 1000", "4 12 500 1000"),
        ["1 ECGs cannot be read", "row 6", "2.0 s, 10 are needed"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_in_one_way(folder, name):
    spoil, words = WRONG[name]
    spoil(folder)
    try:
        said = check_dataset("clinic", folder.parent).problems
    except PacxError as error:
        said = [str(error)]
    assert len(said) == 1, said
    assert all(word in said[0] for word in words), said[0]
