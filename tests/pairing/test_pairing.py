"""Pairing: the files it writes, and what it says to bad input."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import PROJECT, pacx

from pacx.constants import LEADS_MIMIC
from pacx.data.datasets.symile_mimic import load_pairs
from pacx.data.ecg import read_ecg
from pacx.data.images import read_image
from pacx.errors import PacxError
from pacx.pairing import files as pair_files
from pacx.pairing.admissions import STEPS, holds_signal, pair_admissions
from pacx.pairing.files import ITEMS, PERCENTILES, SIZES, pair

RAW = PROJECT / "tests" / "golden" / "symile_pairing" / "raw"


def write_ecg(record: Path, samples: int = 1000, value: int | None = None) -> None:
    """A WFDB record as MIMIC-IV-ECG stores it; `value` makes it constant."""
    counts = np.random.default_rng(3).integers(-200, 200, (samples, 12)).astype("<i2")
    if value is not None:
        counts[:] = value
    counts.tofile(record.with_name(f"{record.name}.dat"))
    lines = [f"{record.name} 12 500 {samples}"]
    lines += [
        f"{record.name}.dat 16 200.0(0)/mV 16 0 {counts[0, 0]} 0 0 {lead}" for lead in LEADS_MIMIC
    ]
    record.with_name(f"{record.name}.hea").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def raw(tmp_path) -> Path:
    """The golden tables, free to be spoiled."""
    return Path(shutil.copytree(RAW, tmp_path / "raw"))


def run(raw: Path, out: Path, **options) -> None:
    pair(raw, raw / "cxr", raw / "ecg", out, **options)


def edit(path: Path, change) -> None:
    """Rewrite a table, of text cells."""
    change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Path]:
    """Tables with ECGs of ten seconds, and what `pair` makes of them."""
    root = tmp_path_factory.mktemp("pairing")
    raw = Path(shutil.copytree(RAW, root / "raw"))
    for header in (raw / "ecg").rglob("*.hea"):
        if holds_signal(header.with_suffix("")):
            write_ecg(header.with_suffix(""))
    run(raw, root / "data" / "symile-mimic")
    return raw, root / "data"


# ---------------------------------------- what is written
def test_no_patient_is_in_two_splits_and_no_pair_is_lost(written):
    root = written[1] / "symile-mimic"
    everyone = pd.read_csv(root / "symile_mimic_data.csv")
    splits = {name: pd.read_csv(root / f"{name}.csv") for name in SIZES}
    patients = [set(table["subject_id"]) for table in splits.values()]
    assert sum(map(len, patients)) == everyone["subject_id"].nunique()
    members = pd.concat(splits.values())["hadm_id"]
    assert sorted(members.unique()) == sorted(everyone["hadm_id"])


@pytest.mark.parametrize("split", ["test", "val_retrieval"])
def test_every_query_has_ten_candidates(written, split):
    table = pd.read_csv(written[1] / "symile-mimic" / f"{split}.csv")
    assert (table.groupby("label_hadm_id")["label"].sum() == 1).all()
    assert (table.groupby("label_hadm_id")["hadm_id"].nunique() == 10).all()
    assert ((table["hadm_id"] == table["label_hadm_id"]) == (table["label"] == 1)).all()


def test_the_reader_takes_what_was_written(written, tmp_path):
    for split in SIZES:
        pairs = load_pairs(written[1], split, 64, tmp_path)
        table = pd.read_csv(written[1] / "symile-mimic" / f"{split}.csv")
        table = table[table.get("label", 1) == 1] if "label" in table else table
        assert pairs.table["study"].tolist() == table["hadm_id"].astype(str).tolist()
        percentiles = table[list(PERCENTILES)].to_numpy()
        np.testing.assert_array_equal(pairs.observed, ~np.isnan(percentiles))
        np.testing.assert_allclose(pairs.percentiles, np.nan_to_num(percentiles), rtol=1e-6)
        assert pairs.cxr.shape == (len(table), 64, 64)
        assert pairs.ecg.shape == (len(table), 12, 1000)


@pytest.mark.parametrize("split", ["train", "val", "val_retrieval", "test"])
def test_arrays_are_the_files_that_the_table_names(written, split):
    raw, root = written[0], written[1] / "symile-mimic"
    table = pd.read_csv(root / f"{split}.csv")
    arrays = {
        file.stem.removesuffix(f"_{split}"): np.load(file, mmap_mode="r")
        for file in (root / "data_npy" / split).iterdir()
    }
    labels = {"label", "label_hadm_id"} if split in ("test", "val_retrieval") else set()
    assert set(arrays) == labels | {
        "cxr", "ecg", "labs_percentiles", "labs_missingness", "hadm_id"
    }  # fmt: skip
    for name in labels | {"hadm_id"}:
        np.testing.assert_array_equal(arrays[name], table[name])
    assert arrays["cxr"].shape == (len(table), 3, 320, 320)
    assert arrays["ecg"].shape == (len(table), 1, 1000, 12)
    assert {a.dtype.name for n, a in arrays.items() if n not in ("cxr", "ecg")} == {
        "float32", "int64"
    }  # fmt: skip
    for row in (0, len(table) - 1):
        signal = read_ecg(raw / "ecg" / table["ecg_path"][row], LEADS_MIMIC).signal.T
        scaled = 2 * (signal - signal.min()) / (signal.max() - signal.min()) - 1
        np.testing.assert_allclose(arrays["ecg"][row, 0], scaled, atol=1e-6)
        grey = read_image(raw / "cxr" / table["cxr_path"][row])
        film = arrays["cxr"][row, 0] * 0.229 + 0.485  # the first channel's ImageNet statistics
        assert film.mean() * 255 == pytest.approx(grey.mean(), abs=1)


def test_percentiles_are_the_training_splits_cdf(written):
    root = written[1] / "symile-mimic"
    train, val = (pd.read_csv(root / f"{name}.csv") for name in ("train", "val"))
    ranked = 0
    for item in ITEMS:
        known = train[item].dropna().to_numpy()
        for table in (train, val):
            seen = table[item].notna()
            expected = [(known <= v).mean() if len(known) else np.nan for v in table[item][seen]]
            np.testing.assert_allclose(table.loc[seen, f"{item}_percentile"], expected)
            assert table.loc[~seen, f"{item}_percentile"].isna().all()
            ranked += int(seen.sum())
    assert ranked > 0
    filled = np.load(root / "data_npy" / "val" / "labs_percentiles_val.npy")
    observed = np.load(root / "data_npy" / "val" / "labs_missingness_val.npy")
    mean = train[list(PERCENTILES)].mean().fillna(0).to_numpy()
    np.testing.assert_allclose(filled[observed == 0], np.tile(mean, (len(val), 1))[observed == 0])


def test_landscape_film_is_cropped_at_the_centre(tmp_path):
    from PIL import Image

    pixels = np.zeros((400, 800), np.uint8)
    pixels[:, 200:600] = 255  # exactly what a centre crop keeps
    Image.fromarray(pixels).save(tmp_path / "film.png")
    film = pair_files._film(tmp_path / "film.png").numpy()
    assert film.shape == (1, 3, 320, 320)
    np.testing.assert_allclose(film[0, :, 160, 160], (1 - np.array([0.485, 0.456, 0.406]))
                               / np.array([0.229, 0.224, 0.225]), rtol=1e-5)  # fmt: skip
    assert (film[0, 0, :, 3:-3] == film[0, 0, 160, 160]).all()


def test_same_seed_same_division_other_seed_another(written):
    pairs = pd.read_csv(written[1] / "symile-mimic" / "symile_mimic_data.csv")
    first, again, other = (pair_files.split_patients(pairs, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_steps_are_named_after_their_tables():
    assert all(f"CREATE TABLE {name} AS" in sql for name, sql in STEPS.items())


def test_command_pairs(written, tmp_path):
    raw = written[0]
    done = pacx(
        "pair", "--mimic-iv", str(raw), "--mimic-cxr", str(raw / "cxr"),
        "--mimic-ecg", str(raw / "ecg"), "--out", str(tmp_path / "s"), "--memory", "500MB",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = (
        (root / "train.csv").read_bytes() for root in (tmp_path / "s", written[1] / "symile-mimic")
    )
    assert one == two


# ---------------------------------------- bad input
def _gz(table: str) -> str:
    return {
        "admissions": "hosp/admissions.csv.gz",
        "labevents": "hosp/labevents.csv.gz",
        "metadata": "cxr/mimic-cxr-2.0.0-metadata.csv.gz",
        "chexpert": "cxr/mimic-cxr-2.0.0-chexpert.csv.gz",
        "record_list": "ecg/record_list.csv",
    }[table]


def _drop(table, column):
    return lambda raw: edit(raw / _gz(table), lambda t: t.drop(columns=column))


def _set(table, column, value):
    return lambda raw: edit(raw / _gz(table), lambda t: t.assign(**{column: value}))


def _set_one(table, column, value):
    def change(t):
        t.loc[5, column] = value
        return t

    return lambda raw: edit(raw / _gz(table), change)


def _study_twice(raw):
    edit(raw / _gz("chexpert"), lambda t: pd.concat([t, t]))


def _latin1(raw):
    path = raw / _gz("admissions")
    text = gzip.decompress(path.read_bytes()).replace(b"20011001", b"2001\xe9001")
    path.write_bytes(gzip.compress(text))


def _utf16(raw):
    path = raw / _gz("record_list")
    path.write_text(path.read_text("utf-8"), encoding="utf-16")


def _truncated(raw):
    path = raw / _gz("labevents")
    path.write_bytes(path.read_bytes()[:-2000])


def _no_signal_file(raw):
    next(iter((raw / "ecg").rglob("40011012.dat"))).unlink()


def _no_record(raw):
    shutil.rmtree(next(iter((raw / "ecg").rglob("s40011012"))))


def _short_signal(raw):
    path = next(iter((raw / "ecg").rglob("40011012.dat")))
    path.write_bytes(path.read_bytes()[:-10])


def _climbing_header(raw):
    path = next(iter((raw / "ecg").rglob("40011012.hea")))
    path.write_text(path.read_text().replace("40011012.dat", "../x.dat"))


def _constant_ecg(raw):
    write_ecg(next(iter((raw / "ecg").rglob("40011012.hea"))).with_suffix(""), 40, value=7)


def _longer_ecg(raw):
    write_ecg(next(iter((raw / "ecg").rglob("40011013.hea"))).with_suffix(""), 41)


def _broken_film(raw):
    for path in (raw / "cxr").rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:100])


BAD = {
    "missing folder": (lambda raw: shutil.rmtree(raw / "ecg"), "folder of MIMIC-IV-ECG"),
    "missing table": (lambda raw: (raw / _gz("labevents")).unlink(), "labevents.csv.gz is missing"),
    "missing column": (_drop("metadata", "StudyTime"), r"metadata.csv.gz lacks.*StudyTime"),
    "missing lab column": (_drop("labevents", "valuenum"), r"labevents.csv.gz lacks.*valuenum"),
    "nothing pairs": (_set("metadata", "ViewPosition", "LATERAL"), r"No admission.*0 in with_xray"),
    "empty table": (lambda raw: edit(raw / _gz("admissions"), lambda t: t[:0]), "No admission"),
    "not a number": (_set_one("labevents", "valuenum", "high"), r"labevents.*Line: 7.*high"),
    "not a time": (_set_one("admissions", "admittime", "yesterday"), r"admissions.*yesterday"),
    "impossible StudyTime": (
        _set_one("metadata", "StudyTime", "246000.0"),
        r"metadata.csv.gz, the row of.*246000",
    ),
    "impossible StudyDate": (
        _set_one("metadata", "StudyDate", "20201301"),
        r"metadata.csv.gz, the row of.*20201301",
    ),
    "ECG header climbs": (
        _climbing_header,
        r"40011012 of record_list.csv: '\.\./x.dat' is not inside",
    ),
    "not UTF-8": (_latin1, r"admissions.*(?i:utf-8)"),
    "UTF-16": (_utf16, r"record_list.*UTF-8"),
    "truncated table": (_truncated, "labevents"),
    "ECG path climbs": (_set("record_list", "path", "../../x"), r"'\.\./\.\./x'.*not inside"),
    "ECG path absolute": (_set("record_list", "path", "/etc/passwd"), "/etc/passwd"),
    "X-ray path climbs": (_set("metadata", "dicom_id", "../../../x"), "not inside"),
    "no ECG path": (_set("record_list", "path", ""), "missing or broken"),
    "missing signal file": (_no_signal_file, "40011012.*missing or broken"),
    "missing record": (_no_record, "40011012.*missing or broken"),
    "short signal": (_short_signal, "40011012.*475 values.*12 x 40"),
    "constant ECG": (_constant_ecg, "40011012 is constant"),
    "another length": (_longer_ecg, "40011013 has 41 samples"),
    "broken film": (_broken_film, "jpg is not a readable image"),
    "study twice": (_study_twice, "comes twice"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_error_and_leaves_nothing(raw, tmp_path, spoil, message):
    spoil(raw)
    before = sorted(p for p in tmp_path.iterdir())
    with pytest.raises(PacxError, match=f"(?s){message}"):
        run(raw, tmp_path / "out")
    assert sorted(p for p in tmp_path.iterdir()) == before


def test_too_few_pairs(raw, tmp_path):
    edit(raw / _gz("admissions"), lambda t: t[:30])
    with pytest.raises(PacxError, match="too few"):
        run(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folder_in_use_is_kept(raw, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(PacxError, match="not an empty folder"):
        run(raw, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_places_that_cannot_be_written(raw, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PacxError, match="out cannot be written"):
        run(raw, tmp_path / "file" / "out")
    with pytest.raises(PacxError, match="nowhere"):
        pair_admissions(raw, raw / "cxr", raw / "ecg", scratch=tmp_path / "nowhere")


def test_memory_must_be_an_amount(tmp_path):
    with pytest.raises(PacxError, match=r"(?i)memory"):
        pair_admissions(RAW, RAW / "cxr", RAW / "ecg", memory="lots", scratch=tmp_path)
    assert not list(tmp_path.iterdir())


# ---------------------------------------- ECG check
@pytest.mark.parametrize("fmt", ["16", "212"])
def test_holds_signal_agrees_with_wfdb(tmp_path, fmt):
    """Format 16 is read without wfdb, every other format with it."""
    import wfdb

    good = np.random.default_rng(0).normal(size=(100, 12))
    flat_lead, zero, nan = good.copy(), np.zeros_like(good), good.copy()
    flat_lead[:, 5], nan[50, 3] = 0, np.nan
    for name, signal, fine in (
        ("good", good, True), ("flat", flat_lead, True), ("zero", zero, False), ("nan", nan, False)
    ):  # fmt: skip
        wfdb.wrsamp(
            name, 500, ["mV"] * 12, list(LEADS_MIMIC), signal, fmt=[fmt] * 12,
            adc_gain=[200.0] * 12, baseline=[0] * 12, write_dir=str(tmp_path),
        )  # fmt: skip
        assert holds_signal(tmp_path / name) is fine, name
