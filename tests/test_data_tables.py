"""The one table: what a reader may return, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from pacx.data.splits import refuse_leaks, split_by_patient
from pacx.data.table import make_dataset, read_csv
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
        ({"image": ["../x.png", "b", "c", "d"]}, "row 0 of the table in .* names a path"),
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
