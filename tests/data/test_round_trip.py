"""What is read of each data set is what the phantom hospital knows to be true."""

import csv
import gzip
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_hospital import SIZE, SIZES, WITH_IMAGES, cohort, hospital, truth

from pacx.constants import CHESTX6_CLASSES, CHEXPERT_FINDINGS, LABS, MEDMOD_PHENOTYPES
from pacx.data.datasets import SPLIT_BY_IMAGE_IN_PAPER, load_dataset, load_populations
from pacx.data.datasets.nih_14 import FINDINGS, parse_findings
from pacx.data.datasets.symile_mimic import load_pairs
from pacx.data.datasets.vindr_cxr import LABELS
from pacx.data.images import read_image, read_mask
from pacx.data.splits import audit_overlaps, refuse_leaks
from pacx.errors import PacxError
from pacx.phantom.cohort import seed_of
from pacx.phantom.findings import NIH_FINDINGS, VINDR_FINDINGS, phenotype_labels
from pacx.phantom.state import echo_labels
from pacx.profile import load_profile
from pacx.run import Run


def read(name, split="patient"):
    return load_dataset(name, hospital(), split)


def stretched(image):
    """How 16-bit images are read: the first and last percentile become black and white."""
    low, high = np.percentile(image, (1, 99))
    return np.round(np.clip((image - low) / (high - low), 0, 1) * 255)


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_every_image_is_there_and_nobody_is_in_two_splits(name):
    data = read(name)
    assert data.patients_in_two_splits == []
    shipped = "test" in SIZES[name] or "val" in SIZES[name]
    assert shipped or set(data.table["split"]) == {"train", "val", "test"}
    for path in data.table["image"]:
        assert read_image(data.root / path).shape == (SIZE, SIZE)
    assert data.table["patient"].nunique() == sum(SIZES[name].values()) or name == "qata-cov19"


def test_chexpert():
    data, expected = read("chexpert"), {}
    for file in ("train.csv", "valid.csv"):
        with open(hospital() / "chexpert" / file, newline="") as rows:
            expected |= {row["Path"]: row for row in csv.DictReader(rows)}
    lateral = {path for path, row in expected.items() if row["Frontal/Lateral"] == "Lateral"}
    assert lateral
    assert set(data.table["Path"]) == set(expected) - lateral
    for _, row in data.table.iterrows():
        for finding in CHEXPERT_FINDINGS:
            text = expected[row["Path"]][finding]
            known = text not in ("", "-1.0")
            assert row[finding] == float(text) if known else np.isnan(row[finding])
    assert data.table.groupby("split")["patient"].nunique().to_dict() == SIZES["chexpert"]


def test_symile_mimic(tmp_path):
    source = cohort("symile-mimic")
    patients = source.patients()
    for split, count in SIZES["symile-mimic"].items():
        pairs = load_pairs(hospital(), split, SIZE * 10 // 7, tmp_path)
        base = hospital() / "symile-mimic"
        known = pd.read_csv(base / "data_npy" / split / "truth.csv")[:count]
        table = pd.read_csv(base / f"{split}.csv")[:count]
        assert pairs.table["study"].tolist() == known["hadm_id"].astype(str).tolist()
        labs = table[[str(lab.itemid) for lab in LABS]].notna().to_numpy()
        assert np.array_equal(pairs.observed == 1, labs)
        percentiles = table[[f"{lab.itemid}_percentile" for lab in LABS]].fillna(0)
        assert np.allclose(pairs.percentiles, percentiles, atol=1e-6)
        own = replace(source, seed=seed_of(source.seed, split))
        (_, images, _), *_ = own.xrays(patients[patients["split"] == split], SIZE * 10 // 7)
        assert np.array_equal(pairs.cxr, images)
        assert pairs.ecg.shape == (count, 12, 1000)


def test_tb():
    data = read("tb").table
    known = truth("tb").set_index("study_id").loc[data["study_id"]]
    assert data["tuberculosis"].tolist() == known["tuberculosis"].tolist()
    (rows, images, _), *_ = cohort("tb").xrays(_with_truth("tb"), SIZE)
    for row, image in zip(rows, images, strict=True):
        got = read_image(hospital() / "tb" / data["image"][row])
        assert np.abs(got - (stretched(image) if row % 8 == 0 else image)).max() <= 1


def _with_truth(name):
    """The patients of a data set of class folders, as they were rendered."""
    from pacx.phantom.cohort import otherwise_well

    known = truth(name)["tuberculosis"] == 1
    pattern = np.where(known, "Tuberculosis", "Normal")
    return otherwise_well(cohort(name).patients().assign(pattern=pattern))


def test_chexchonet():
    data, source = read("chexchonet").table, cohort("chexchonet")
    labels = echo_labels(source.patients(), source.seed)["composite_slvh_dlv"]
    number = data["patient"].str[1:].astype(int)
    assert data["composite_slvh_dlv"].tolist() == labels.loc[number].tolist()
    assert len(data) > data["patient"].nunique()


def test_chestx6():
    data = read("chestx6")
    counts = data.table.groupby("split").size().to_dict()
    assert counts == SIZES["chestx6"]
    truth = np.resize(CHESTX6_CLASSES, len(data.table))  # the n-th patient's, in the file's name
    order = data.table["image"].str.extract(r"-(\d+)\.jpg")[0].astype(int)
    got = data.table[list(CHESTX6_CLASSES)].to_numpy()
    assert np.array_equal(np.array(CHESTX6_CLASSES)[got.argmax(axis=1)], truth[order])
    assert (got.sum(axis=1) == 1).all()


def test_vindr_cxr():
    assert len(LABELS) == 19
    assert set(LABELS) < set(VINDR_FINDINGS)
    data = read("vindr-cxr").table
    known = truth("vindr-cxr").set_index("image_id").loc[data["image_id"]]
    test = (data["split"] == "test").to_numpy()
    votes = known[[f"{label} votes" for label in LABELS]].to_numpy()
    got = data[list(LABELS)].to_numpy()
    assert np.array_equal(got[~test], votes[~test] >= 2)
    assert np.array_equal(got[test], known[list(LABELS)].to_numpy()[test])
    assert data["split"].value_counts().to_dict() == {"train": 54, "test": 30, "val": 6}
    assert set(votes[~test].ravel()) == {0, 1, 2, 3}  # radiologists disagree
    first = read_image(hospital() / "vindr-cxr" / data["image"][0])
    assert first.min() == 0
    assert 150 < first.max() <= 255  # shown in the detector's window, not stretched


def test_inverted_dicom_is_white_where_dense():
    """Whatever the photometric interpretation, the air around the patient is dark."""
    data = read("vindr-cxr")
    for path in data.table["image"]:
        image = read_image(data.root / path)
        assert image[:4, :4].mean() < image[SIZE // 2 - 4 : SIZE // 2 + 4, 12:20].mean() + 60


def test_nih_14():
    assert set(FINDINGS) == set(NIH_FINDINGS)
    data = read("nih-14").table
    known = truth("nih-14").set_index("Image Index").loc[data["Image Index"]]
    assert np.array_equal(data[list(FINDINGS)], known[list(FINDINGS)])
    official = known["split"].to_numpy() == "test"
    assert np.array_equal(data["split"] == "test", official)
    shares = data[~official].drop_duplicates("patient")["split"].value_counts(normalize=True)
    assert shares["val"] == pytest.approx(0.15, abs=0.01)
    assert len(data) > data["patient"].nunique()


def test_medmod():
    data, source = read("medmod").table, cohort("medmod")
    truth = phenotype_labels(source.patients(), source.seed)
    assert np.array_equal(data[list(MEDMOD_PHENOTYPES)], truth[list(MEDMOD_PHENOTYPES)])


def test_covid_qu_ex():
    from pacx.phantom.cohort import otherwise_well

    data, source = read("covid-qu-ex"), cohort("covid-qu-ex")
    assert data.table["split"].value_counts().to_dict() == SIZES["covid-qu-ex"]
    patients = source.patients()
    patterns = ["Covid-19", "Pneumonia-Bacterial", "Normal"]
    patients["pattern"] = np.resize(patterns, len(patients))
    (_, _, masks), *_ = source.xrays(otherwise_well(patients), SIZE, masks=True)
    for _, row in data.table.iterrows():
        number = int(row["image"].rsplit("_", 1)[1].removesuffix(".png"))
        assert np.array_equal(read_mask(data.root / row["mask"]), masks["lungs"][number])


def test_qata_cov19():
    data = read("qata-cov19")
    known = truth("qata-cov19").set_index("image").loc[data.table["study"]]
    area = [read_mask(data.root / mask).sum() for mask in data.table["mask"]]
    assert area == known["mask_pixels"].tolist()
    assert np.array_equal(data.table["split"] == "test", known["split"] == "test")
    named = data.table["patient"].str.startswith("sub-S").to_numpy()
    subject = data.table["patient"][named].str[5:].astype(int)
    assert subject.tolist() == known["subject"][named].tolist()


def test_cxl_seg():
    data = read("cxl-seg")
    known = truth("cxl-seg").set_index("dicom_id").loc[data.table["dicom_id"]]
    assert data.table["split"].tolist() == known["split"].tolist()
    area = np.array([read_mask(data.root / mask).sum() for mask in data.table["mask"]])
    assert np.abs(area / known["mask_pixels"] - 1).max() < 0.03  # JPEG blurs a mask's edge


def test_actualmed():
    data = read("actualmed").table
    known = truth("actualmed").set_index("image").loc[data["image"].str.removeprefix("images/")]
    certain = data["COVID-19"].notna().to_numpy()
    assert 0 < (~certain).sum() < len(data) / 2
    assert data["COVID-19"][certain].tolist() == known["covid"][certain].tolist()


@pytest.mark.parametrize(
    ("name", "shares", "label", "leaks"),
    [
        ("tb", {"train": 0.68, "val": 0.12, "test": 0.20}, "tuberculosis", False),
        ("chexchonet", {"train": 0.72, "val": 0.08, "test": 0.20}, "composite_slvh_dlv", True),
        ("medmod", {"train": 0.7, "val": 0.1, "test": 0.2}, MEDMOD_PHENOTYPES[19], False),
    ],
)
def test_paper_splits_by_image_with_equal_prevalence(name, shares, label, leaks):
    data = read(name, "paper")
    counts = data.table["split"].value_counts(normalize=True)
    assert counts.to_dict() == pytest.approx(shares, abs=0.02)
    groups = data.table.groupby("split")[label]
    expected = groups.size() * data.table[label].mean()
    assert (groups.sum() - expected).abs().max() <= 1
    assert bool(data.patients_in_two_splits) == leaks
    assert data.table["split"].equals(read(name, "paper").table["split"])
    assert set(data.table["image"]) == set(read(name).table["image"])


@pytest.mark.parametrize("name", ["nih-14", "qata-cov19"])
def test_paper_validates_by_image_within_the_official_training_set(name):
    ours, paper = read(name), read(name, "paper")
    assert paper.patients_in_two_splits
    assert (ours.table["split"] == "test").equals(paper.table["split"] == "test")


def test_leaks_are_refused_unless_waived(capsys):
    nobody = pd.DataFrame({"patient": []})
    leaky = read("chexchonet", "paper")
    with pytest.raises(PacxError, match=f"{len(leaky.patients_in_two_splits)} patients"):
        refuse_leaks(nobody, leaky)
    refuse_leaks(nobody, leaky, allow=True)
    assert "WAIVED" in capsys.readouterr().out
    refuse_leaks(nobody, read("chexchonet"), allow=True)
    assert capsys.readouterr().out == ""
    with pytest.raises(PacxError, match="'image'"):
        read("chexchonet", "image")
    assert all(len(read(name, "paper").table) for name in SPLIT_BY_IMAGE_IN_PAPER)


def test_phantom_hospitals_overlap_nowhere_and_planted_overlaps_are_found():
    populations = load_populations(Run(load_profile("smoke", data_root=hospital())))
    assert list(populations) == ["symile-mimic", "medmod", "cxl-seg"]
    table = audit_overlaps(populations)
    assert (table["shared"] == 0).all()
    assert (table["in_first"] > 0).all()
    assert set(table["by"]) == {"subject", "admission"}
    planted = populations["medmod"].copy()
    planted.loc[:2, "patient"] = populations["symile-mimic"]["patient"][:3].to_numpy()
    planted.loc[0, "hadm_id"] = populations["symile-mimic"]["hadm_id"][0]
    found = audit_overlaps(populations | {"medmod": planted}).query("shared > 0")
    assert found[["first", "split", "second"]].drop_duplicates().to_numpy().tolist() == [
        ["symile-mimic", "train", "medmod"]
    ]
    assert found.set_index("by")["shared"].to_dict() == {"subject": 3, "admission": 1}


def torchxrayvision_table(name, tmp_path, target):
    spec = find_spec("torchxrayvision")
    if spec is None:
        pytest.skip("torchxrayvision, which ships the real label tables, is not installed")
    content = gzip.decompress((Path(spec.origin).parent / "data" / name).read_bytes())
    (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / target).write_bytes(content)
    return list(csv.DictReader(content.decode().splitlines()))


def test_real_nih_labels(tmp_path):
    rows = torchxrayvision_table(
        "Data_Entry_2017_v2020.csv.gz", tmp_path, "nih-14/Data_Entry_2017.csv"
    )
    assert len(rows) == 112_120
    names = [row["Image Index"] for row in rows]
    (tmp_path / "nih-14" / "train_val_list.txt").write_text("\n".join(names[:-25_596]))
    (tmp_path / "nih-14" / "test_list.txt").write_text("\n".join(names[-25_596:]))
    data = load_dataset("nih-14", tmp_path)
    assert len(data.table) == 112_120
    assert data.table["patient"].nunique() == 30_805
    for finding in FINDINGS:
        there = sum(finding in row["Finding Labels"].split("|") for row in rows)
        assert data.table[finding].sum() == there > 0
    assert data.table["Hernia"].sum() == 227


def test_real_chexpert_labels(tmp_path):
    rows = torchxrayvision_table("chexpert_train.csv.gz", tmp_path, "chexpert/train.csv")
    assert len(rows) == 223_414
    few = (tmp_path / "chexpert" / "train.csv").read_text().splitlines()[:3]
    (tmp_path / "chexpert" / "valid.csv").write_text("\n".join(few))
    table = load_dataset("chexpert", tmp_path).split("train")
    frontal = [row for row in rows if row["Frontal/Lateral"] == "Frontal"]
    assert len(table) == len(frontal) == 191_027
    for finding in CHEXPERT_FINDINGS:
        texts = [row[finding] for row in frontal]
        assert (table[finding] == 1).sum() == texts.count("1.0")
        assert (table[finding] == 0).sum() == texts.count("0.0")
        assert table[finding].isna().sum() == texts.count("") + texts.count("-1.0")


def test_findings_of_nih_are_parsed():
    parsed = parse_findings(pd.Series(["No Finding", "Mass|Hernia", "Hernia"]), Path("x.csv"))
    assert list(parsed) == list(FINDINGS)
    assert parsed.sum().sum() == 3
    assert parsed["Hernia"].tolist() == [0, 1, 1]
