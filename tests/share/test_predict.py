"""What `pacx predict` writes and warns about, and how often its range check is wrong."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from sklearn.metrics import brier_score_loss
from typer.testing import CliRunner

from pacx.cli import app
from pacx.data.images import normalise, read_image
from pacx.data.table import make_dataset
from pacx.errors import PacxError
from pacx.evaluation.features import extract_features, images_of
from pacx.evaluation.subgroups import subgroups
from pacx.evaluation.transfer import probe_scores, train_probes
from pacx.models.encoder import build_encoder, encode
from pacx.phantom.dicom import write_dicom
from pacx.phantom.radiograph import render_radiographs
from pacx.phantom.state import sample_patients
from pacx.profile import load_profile
from pacx.run import open_run
from pacx.share.calibration import CalibratedProbe, calibration, train_calibrated_probe
from pacx.share.export import export_encoder, load_exported
from pacx.share.predict import Predictor, predict
from pacx.share.training_range import FALSE_ALARMS, TrainingRange, fit_range, load_range

SIZE = 32


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    return render_radiographs(sample_patients(240, seed=0), SIZE, seed=0)[0]


@pytest.fixture(scope="module")
def exported(films, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "encoder"
    torch.manual_seed(0)
    encoder = build_encoder(SIZE, 8, 48, 2, 3).eval()
    export_encoder(encoder, folder)
    fit_range(tokens_of(encoder, films[:200])).save(folder)
    weight = np.random.default_rng(0).normal(size=(48, 2)).astype(np.float32)
    measured = {"Brier, calibrated": [0.1, 0.05, 0.2]}
    probe = CalibratedProbe(
        "own", ("a", "b"), False, weight, np.zeros(2, np.float32), 1.5, measured
    )
    probe.save(folder / "probes" / "own.safetensors")
    return folder


@torch.inference_mode()
def tokens_of(encoder, films: np.ndarray) -> np.ndarray:
    cls, patches = encode(encoder, normalise(torch.from_numpy(films)))
    return torch.cat([cls, patches.mean(1)], dim=1).numpy()


@pytest.fixture
def folder(films, tmp_path) -> Path:
    folder = tmp_path / "x-rays"
    (folder / "more").mkdir(parents=True)
    Image.fromarray(films[200]).save(folder / "a.png")
    Image.fromarray(films[201]).save(folder / "b.jpg", quality=95)
    write_dicom(films[202], folder / "more" / f"{'0' * 23}1.dcm")
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_tables_embeddings_and_overlays(exported, folder, tmp_path):
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "more" / f"{'0' * 23}1.dcm").rename(folder / "more" / "1.2.840.1")
    (folder / "more" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    table = predict([folder], exported, tmp_path / "out", probes=["own"], overlay=True)
    names = [Path(image).name for image in table["image"]]
    assert names == ["a.png", "b.jpg", "broken.png", "1.2.840.1", "noise.png"]
    assert list(table) == ["image", "distance", "limit", "own: a", "own: b", "warning"]
    written = pd.read_csv(tmp_path / "out" / "predictions.csv", keep_default_na=False)
    assert written["warning"].tolist() == table["warning"].tolist()
    embeddings = pd.read_parquet(tmp_path / "out" / "embeddings.parquet")
    assert [Path(image).name for image in embeddings["image"]] == [
        n for n in names if n != "broken.png"
    ]
    pictures = np.stack([read_image(image) for image in embeddings["image"]])
    expected = tokens_of(load_exported(exported), pictures)[:, :48]
    np.testing.assert_allclose(embeddings.drop(columns="image"), expected, atol=1e-4)
    overlays = sorted(f.name for f in (tmp_path / "out" / "overlays").iterdir())
    assert overlays == ["00000-a.png", "00001-b.png", "00003-1.2.840.png", "00004-noise.png"]
    with Image.open(tmp_path / "out" / "overlays" / "00000-a.png") as picture:
        assert picture.width > 600
    warned = dict(zip(names, table["warning"], strict=True))
    assert "not a readable image" in warned["broken.png"]
    assert "Far from the training images" in warned["noise.png"]
    assert warned["a.png"] == ""


def test_the_command_warns_and_scores_a_probe_s_probabilities(exported, folder, tmp_path):
    arguments = ["predict", str(folder), "--encoder", str(exported)]
    out = ["--probe", "own", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, *out])
    assert done.exit_code == 0
    assert "4 images, 1 with a warning" in done.output
    assert "own: Brier score 0.100 [0.050, 0.200]" in done.output
    assert pd.read_parquet(tmp_path / "out" / "embeddings.parquet").shape == (4, 1 + 48)
    assert not list((tmp_path / "out").glob("overlays/*"))


def test_an_image_named_twice_counts_once(exported, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    twice = [folder / "b.jpg", folder, "a.png", "more/../b.jpg"]
    table = predict(twice, exported, tmp_path / "out")
    assert sorted(Path(image).name for image in table["image"][1:]) == [
        f"{'0' * 23}1.dcm", "a.png", "noise.png",
    ]  # fmt: skip
    assert Path(table["image"][0]).name == "b.jpg"
    pictures = np.stack([read_image(image) for image in table["image"]])
    expected = tokens_of(load_exported(exported), pictures)[:, :48]
    embeddings = pd.read_parquet(tmp_path / "out" / "embeddings.parquet")
    assert embeddings["image"].tolist() == table["image"].tolist()
    np.testing.assert_allclose(embeddings.drop(columns="image"), expected, atol=1e-4)


@pytest.fixture
def many(films, tmp_path) -> Path:
    """Ten X-rays, of which one is none, and a batch of three."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(10):
        Image.fromarray(films[i]).save(folder / f"{i}.png")
    (folder / "4.png").write_bytes(b"no image")
    return folder


def test_a_stopped_command_goes_on_where_it_was(exported, many, tmp_path, monkeypatch):
    monkeypatch.setattr("pacx.share.predict.BATCH", 3)
    whole, out = tmp_path / "whole", tmp_path / "out"
    expected = predict([many], exported, whole, probes=["own"], overlay=True)

    def stopped_at_8(path):
        if Path(path).stem == "8":
            raise KeyboardInterrupt
        return read_image(path)

    monkeypatch.setattr("pacx.share.predict.read_image", stopped_at_8)
    with pytest.raises(KeyboardInterrupt):
        predict([many], exported, out, probes=["own"], overlay=True)
    table = out / "predictions.csv"
    assert len(pd.read_csv(table)) == 6  # whole batches, as they came
    with table.open("a") as file:  # a disk was full, or the power was off
        file.write('"7.png",1')
    with pytest.raises(PacxError, match="exists"):
        predict([many], exported, out, probes=[], overlay=True)

    again = []

    def counted(path):
        again.append(Path(path).stem)
        return read_image(path)

    monkeypatch.setattr("pacx.share.predict.read_image", counted)
    pd.testing.assert_frame_equal(
        predict([many], exported, out, probes=["own"], overlay=True), expected
    )
    assert sorted(again) == ["6", "7", "8", "9"]
    assert table.read_bytes() == (whole / table.name).read_bytes()
    pd.testing.assert_frame_equal(
        *(pd.read_parquet(at / "embeddings.parquet") for at in (out, whole))
    )
    for at in (out, whole):
        assert {f.name for f in at.iterdir()} == {
            "predictions.csv", "embeddings.parquet", "overlays"
        }  # fmt: skip
        assert len(list((at / "overlays").iterdir())) == 9
    with pytest.raises(PacxError, match="exists"):
        predict([many], exported, out, probes=["own"], overlay=True)


def test_no_more_than_the_next_batch_is_in_memory(exported, many, tmp_path, monkeypatch):
    monkeypatch.setattr("pacx.share.predict.BATCH", 2)
    read, ahead = [], []

    def counted(path):
        read.append(path)
        return read_image(path)

    call = Predictor.__call__

    def watched(self, films):
        ahead.append(len(read))
        return call(self, films)

    monkeypatch.setattr("pacx.share.predict.read_image", counted)
    monkeypatch.setattr(Predictor, "__call__", watched)
    predict([many], exported, tmp_path / "out")
    assert len(ahead) == 5
    assert all(seen <= 2 * (k + 2) for k, seen in enumerate(ahead))


def test_whatever_one_file_does_costs_one_row(exported, many, tmp_path, monkeypatch):
    faults = {"1": MemoryError(), "3": RecursionError("too deep"), "5": OSError(36, "too long")}

    def broken(path):
        if (stem := Path(path).stem) in faults:
            raise faults[stem]
        return read_image(path)

    monkeypatch.setattr("pacx.share.predict.read_image", broken)
    table = predict([many], exported, tmp_path / "out", probes=["own"])
    stems = table["image"].map(lambda image: Path(image).stem)
    unread = table[table["own: a"].isna()]
    assert stems[unread.index].tolist() == ["1", "3", "4", "5"]
    for word, warning in zip(
        ("MemoryError", "too deep", "not a readable image", "too long"), unread["warning"],
        strict=True,
    ):  # fmt: skip
        assert word in warning
    assert len(pd.read_parquet(tmp_path / "out" / "embeddings.parquet")) == 6


def test_names_command_neither_a_terminal_nor_a_spreadsheet(exported, films, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [
        "=cmd().png", "+1.png", "@SUM(A1).png", "-1.png", "\x1b[31mred.png", "\u202egnp.exe",
        "two\nlines.png", "a,b;c\".png", os.fsdecode(b"\xff.png"), "n" * 251 + ".png",
        "胸" * 80 + ".png",
    ]  # fmt: skip
    for i, name in enumerate(names):
        Image.fromarray(films[i]).save(name, "PNG")
    Path("=broken.png").write_bytes(b"no image")
    arguments = ["--encoder", str(exported), "--out", "out", "--overlays", "--", *names]
    done = CliRunner().invoke(app, ["predict", *arguments, "=broken.png"])
    assert done.exit_code == 0, done.exception
    assert all(line.isprintable() for line in done.output.splitlines())
    with open("out/predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [
        "'=cmd().png", "'+1.png", "'@SUM(A1).png", "'-1.png", r"\x1b[31mred.png",
        r"\u202egnp.exe", r"two\nlines.png", 'a,b;c".png', r"\udcff.png", "n" * 251 + ".png",
        "胸" * 80 + ".png", "'=broken.png",
    ]  # fmt: skip
    assert rows[-1]["warning"].startswith("'=broken.png is not")
    assert len(list(Path("out/overlays").iterdir())) == len(names)
    embedded = pd.read_parquet("out/embeddings.parquet")["image"]
    assert embedded.tolist() == [row["image"] for row in rows[:-1]]


@pytest.mark.parametrize("what", ["distance", "probability"])
def test_numbers_that_are_not_finite_are_warned_about(
    exported, folder, tmp_path, monkeypatch, what
):
    if what == "distance":
        monkeypatch.setattr(TrainingRange, "distance", lambda self, t: np.full(len(t), np.nan))
    else:
        monkeypatch.setattr(CalibratedProbe, "logits", lambda self, cls: cls[:, :2] * np.nan)
    table = predict([folder], exported, tmp_path / "out", probes=["own"])
    assert table["warning"].str.contains("not finite").all()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"limit": np.zeros(1)}, "limit is 0"),
        ({"limit": np.full(1, np.nan)}, "not finite"),
        ({"mean": np.full(96, np.inf)}, "not finite"),
        ({"precision": np.eye(95)}, "does not fit 48 channels"),
        ({"mean": np.zeros(94), "precision": np.eye(94)}, "does not fit 48 channels"),
    ],
)
def test_a_range_that_cannot_be_is_refused(exported, folder, tmp_path, spoil, said):
    spoilt = shutil.copytree(exported, tmp_path / "spoilt")
    facts = {"mean": np.zeros(96), "precision": np.eye(96), "limit": np.ones(1)} | spoil
    save_file({k: v.astype(np.float32) for k, v in facts.items()}, spoilt / "range.safetensors")
    with pytest.raises(PacxError, match=said):
        predict([folder], spoilt, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": [Path("nothing.png")]}, r"nothing\.png is missing"),
        ({"images": []}, "There is no image"),
        ({"probes": ["other"]}, "has no probe other. It has: own"),
        ({"out": Path()}, "exists"),
        ({"encoder": Path()}, "holds no config"),
    ],
)
def test_bad_input_leaves_nothing_behind(exported, folder, tmp_path, change, said):
    given = {"images": [folder], "encoder": exported, "out": tmp_path / "out"} | change
    images, encoder, out = given.pop("images"), given.pop("encoder"), given.pop("out")
    with pytest.raises(PacxError, match=said):
        predict(images, encoder, out, **given)
    assert [f.name for f in tmp_path.iterdir()] == ["x-rays"]


def test_without_a_range_nothing_is_checked(exported, folder, tmp_path):
    plain = shutil.copytree(exported, tmp_path / "plain")
    (plain / "range.safetensors").unlink()
    table = predict([folder / "noise.png"], plain, tmp_path / "out")
    assert list(table) == ["image", "warning"]
    assert table["warning"][0] == ""
    (plain / "range.safetensors").write_bytes(b"nothing")
    with pytest.raises(PacxError, match="is damaged"):
        load_range(plain)


def test_false_alarms_are_as_rare_as_said_whatever_the_distribution():
    rates = []
    for seed in range(20):
        draws = np.random.default_rng(seed).standard_t(4, (2400, 6))
        known = fit_range(draws[:400])
        rates.append((known.distance(draws[400:]) > known.limit).mean())
    assert np.mean(rates) < 1.5 * FALSE_ALARMS


def test_the_distance_is_mahalanobis():
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    known = TrainingRange(np.array([1.0, -1.0]), precision, 1.0)
    away = np.array([3.0, 4.0])
    assert known.distance(away[None] + known.mean)[0] == pytest.approx(
        np.sqrt(away @ precision @ away)
    )


@pytest.fixture
def run(tmp_path):
    small = load_profile("smoke").model_copy(update={"data_root": tmp_path / "data"})
    return open_run(small, tmp_path / "runs")


def benchmark(run, task: str, labels: list[str]):
    """Films of 64 px whose brightness carries the labels, with somebody's sex and age."""
    n, rng = 180, np.random.default_rng(0)
    root = run.data_root / "own"
    root.mkdir(parents=True)
    kind = rng.integers(0, len(labels) if task == "multiclass" else 2, n)
    for i in range(n):
        film = np.clip(rng.normal(60 + 40 * kind[i], 25, (64, 64)), 0, 255).astype(np.uint8)
        Image.fromarray(film).save(root / f"{i}.png")
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(n)], "Sex": ["F", "M"] * (n // 2)})
    table["age"] = rng.integers(20, 90, n)
    for c, label in enumerate(labels):
        table[label] = (kind == c).astype(float)
    table["patient"] = table["study"] = table["image"]
    table["split"] = ["train"] * 60 + ["val"] * 40 + ["test"] * 80
    return make_dataset("own", task, labels, table, root)


@pytest.mark.parametrize(
    ("task", "labels"), [("multilabel", ["dark", "bright"]), ("multiclass", ["a", "b", "c"])]
)
def test_the_saved_probe_is_the_probe_of_the_results(run, task, labels):
    dataset = benchmark(run, task, labels)
    probe = train_calibrated_probe(run, dataset, "random")
    features = extract_features(run, "random", images_of(run, dataset, "test")).cls
    scores = np.asarray(probe_scores(run, dataset, "random")[0])
    plain = CalibratedProbe(
        "own", dataset.labels, probe.multiclass, probe.weight, probe.bias, 1, {}
    )
    np.testing.assert_allclose(plain.probabilities(features), scores, atol=1e-5)
    converged = train_probes(run, dataset, "random", probe="converged", pooling="cls")
    np.testing.assert_array_equal(probe.weight, converged.weight[0])
    np.testing.assert_array_equal(probe.bias, converged.bias[0, 0])
    assert set(probe.measured) == {"Brier", "Brier, calibrated"}
    table = calibration(run, dataset, "random")
    truth = dataset.split("test")[labels].to_numpy()
    for metric, probabilities in (
        ("Brier", scores), ("Brier, calibrated", probe.probabilities(features))
    ):  # fmt: skip
        values = table[table["metric"] == metric].set_index("task")["value"]
        for c, label in enumerate(labels):
            expected = brier_score_loss(truth[:, c], probabilities[:, c])
            assert values[label] == pytest.approx(expected, abs=1e-5)
        assert values["macro"] == pytest.approx(values[labels].mean())
    assert table["task"].tolist() == [*labels, "macro"] * 2
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert table["temperature"].nunique() == 1

    groups = subgroups(run, dataset, "random")
    assert groups["group"][0] == "all"
    assert groups["patients"][0] == 80
    assert {"sex: F", "sex: M"} <= set(groups["group"])
    assert (groups["patients"] >= 30).all()
