"""The one table: what a reader may return, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from pacx.data.splits import audit_overlaps, drop_patients, refuse_leaks, split_by_patient
from pacx.data.table import as_ids, files_in, make_dataset, read_csv, read_list
from pacx.errors import PacxError


def table(**changes):
    columns = {
        "patient": ["a", "a", "b", "c"],
        "study": ["1", "2", "3", "4"],
        "split": ["train", "train", "val", "test"],
        "image": ["a/1.png", "a/2.png", "b.png", "c.png"],
        "sick": [1, 0, np.nan, 1],
    }
    return pd.DataFrame({**columns, **changes})


def dataset(tmp_path, name="medmod", **changes):
    return make_dataset(name, "binary", ["sick"], table(**changes), tmp_path)


def test_unknown_labels_stay_unknown(tmp_path):
    data = dataset(tmp_path)
    assert data.table["sick"].isna().tolist() == [False, False, True, False]
    assert len(data.split("train")) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sick": [1, 0, 2, 1]}, "column 'sick', row 2"),
        ({"sick": ["1", "0", "yes", "1"]}, "column 'sick', row 2 is 'yes'"),
        ({"split": ["train", "train", "dev", "test"]}, "unknown split"),
        ({"image": ["../x.png", "b", "c", "d"]}, "the table in .*, row 0: its path is not inside"),
        ({"image": ["a", "b/../../x.png", "c", "d"]}, "row 1"),
        ({"image": ["a", "b", "/etc/passwd", "d"]}, "row 2"),
        ({"image": ["a", "b", "c", "C:\\x.png"]}, "row 3"),
    ],
)
def test_bad_tables_say_where(tmp_path, changes, message):
    with pytest.raises(PacxError, match=message):
        dataset(tmp_path, **changes)


def test_missing_column_and_empty_table(tmp_path):
    with pytest.raises(PacxError, match=r"\['sick'\]"):
        make_dataset("x", "binary", ["sick"], table().drop(columns="sick"), tmp_path)
    with pytest.raises(PacxError, match="no image"):
        make_dataset("x", "binary", ["sick"], table().iloc[:0], tmp_path)
    with pytest.raises(PacxError, match="split 'test' is empty"):
        dataset(tmp_path, split=["train"] * 4).split("test")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00bad"])
def test_csv_that_is_empty_foreign_or_not_utf8(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(PacxError, match=r"t\.csv"):
        read_csv(tmp_path / "t.csv", ["patient"])


def test_split_by_patient_keeps_patients_together_and_shares():
    patients = pd.Series(np.repeat(np.arange(500), 3))
    split = split_by_patient(patients, {"train": 0.7, "val": 0.1, "test": 0.2})
    assert split.groupby(patients).nunique().max() == 1
    assert split.value_counts().to_dict() == {"train": 1050, "val": 150, "test": 300}


def test_leaks_are_refused(tmp_path):
    leaky = dataset(tmp_path, split=["train", "test", "val", "test"])
    assert leaky.patients_in_two_splits == ["a"]
    with pytest.raises(PacxError, match="more than one split"):
        refuse_leaks(pd.DataFrame({"patient": []}), leaky)
    distilled = pd.DataFrame({"patient": ["b", "z"]})
    with pytest.raises(PacxError, match="1 patients were in the distillation"):
        refuse_leaks(distilled, dataset(tmp_path))
    # Equal numbers in another hospital are other people.
    refuse_leaks(distilled, dataset(tmp_path, name="chexchonet"))


#: One patient of MIMIC, as tables come to write the number.
SPELLINGS = [
    10000032, 10000032.0, "10000032.0", " 10000032", "0010000032", "+10000032", "10,000,032",
    "10 000 032", "10.000.032", "10'000'032", "10\u2019000\u2019032", "10_000_032", "'10000032",
    "1.0000032e7", "1.0000032E+07", "1000003.2e1", "\u200b10000032\ufeff", "1000\u00ad0032",
    "10\u00a0000\u2009032", "10000032\x00", "\uff11\uff10000032", "\u0661\u0660000032",
]  # fmt: skip


@pytest.mark.parametrize("there", SPELLINGS, ids=ascii)
def test_leaks_are_found_however_a_patient_is_written(tmp_path, there):
    evaluated = dataset(tmp_path, patient=["a", "a", there, "c"])
    for here in (10000032, 10000032.0, "10000032.0", "10000032 "):
        distilled = pd.DataFrame({"patient": [here, None], "hadm_id": [7, None], "split": "train"})
        with pytest.raises(PacxError, match="1 patients were in the distillation"):
            refuse_leaks(distilled, evaluated)
        assert set(drop_patients(evaluated, distilled["patient"]).table["patient"]) == {"a", "c"}
        stays = evaluated.table.assign(hadm_id=[None, None, "7.0", "8"])
        audit = audit_overlaps({"one": distilled, "two": stays})
        counts = audit[["in_first", "in_second", "shared"]].to_numpy()
        assert counts.tolist() == [[1, 3, 1], [1, 2, 1]]  # patients, admissions


def test_ids_are_text_and_stay_what_they_are():
    given = pd.Series([7, 7.0, "0042", "E1.0", " 12.00 ", None, "  ", "1.5"])
    assert as_ids(given).fillna("none").tolist() == [
        "7", "7", "42", "E1.0", "12", "none", "none", "1.5"
    ]  # fmt: skip
    split = split_by_patient(pd.Series([1.0, None, "1"]), {"train": 0.5, "test": 0.5})
    assert split[0] == split[2]
    assert pd.isna(split[1])


@pytest.mark.parametrize(
    "text",
    ["10000033", "p10000032", "1.0000032e8", "10000032.5", "-10000032", "1,0000032", "10,000,0320",
     "1e99999999999", "10000032e-1", "10000032 10000032", "nan", "inf", "ten"],
)  # fmt: skip
def test_other_ids_stay_others(text):
    assert as_ids(pd.Series([text]))[0] != "10000032"
    assert isinstance(as_ids(pd.Series([text]))[0], str)


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ("E1,a.png,1\nE2,b.png\n", 1),  # cut short
        ("E1,a.png,1\nE2,b.png,0\nE3", 2),
        ("E1,a.png,1\nE2,b, c.png,0\n", 1),  # a comma in a name
        ("E1,a.png,1\n\nE2,b.png,0,,,1\n", 1),
        ('E1,"a\n.png",1\nE2,b.png\n', 1),
    ],
)
def test_rows_that_are_cut_short_or_too_long(tmp_path, rows, row):
    (tmp_path / "t.csv").write_text(f"patient,image,sick\n{rows}")
    with pytest.raises(PacxError, match=rf"t\.csv, row {row} has \d values for 3 columns"):
        read_csv(tmp_path / "t.csv", ["patient", "sick"])


def test_a_row_may_end_behind_the_last_needed_column(tmp_path):
    """Some spreadsheets leave out commas behind a row's last value."""
    (tmp_path / "t.csv").write_text("patient,image,note\nE1,a.png,\nE2,b.png\n")
    assert len(read_csv(tmp_path / "t.csv", ["patient", "image"])) == 2


def test_padded_ids_stay_equal_in_a_large_file(tmp_path):
    """In chunks pandas takes 0042 for a number in one part of a column and for text in another."""
    lines = [f"{i % 100:04d},a{i}" for i in range(300_000)]
    (tmp_path / "t.csv").write_text("\n".join(["patient,image", *lines, "E7,a"]))
    table = read_csv(tmp_path / "t.csv", ["patient", "image"], ["patient"])
    assert table["patient"].nunique() == 101
    assert table["patient"][42] == "0042"


def test_a_comma_at_the_end_of_each_row_shifts_nothing(tmp_path):
    (tmp_path / "t.csv").write_text("patient,image,sick\nE1,a.png,1,\nE2,b.png,0,\n")
    table = read_csv(tmp_path / "t.csv", ["patient"])
    assert table["image"].tolist() == ["a.png", "b.png"]
    assert table["sick"].tolist() == [1, 0]


def test_lists_have_names_with_blanks_and_no_byte_order_mark(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbfa.png\r\n my film.png \r\n\r\n")
    assert read_list(tmp_path / "l.txt") == ["a.png", "my film.png"]


def test_what_operating_systems_leave_is_no_image(tmp_path):
    for name in ("b.png", "a.png", ".DS_Store", "._a.png", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert [f.name for f in files_in(tmp_path)] == ["a.png", "b.png"]
