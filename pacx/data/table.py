"""The one table that every data set's reader returns."""

import csv
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from pacx.constants import SHIFTED
from pacx.errors import PacxError

Task = Literal["pretraining", "binary", "multilabel", "multiclass", "segmentation"]
Terms = Literal["open", "registered", "credentialed"]
SPLITS = ("train", "val", "test")

#: Under which terms a data set is given out. Only patients of open ones may be shown.
TERMS: dict[str, Terms] = {
    "chexpert": "registered", "symile-mimic": "credentialed", "ecg-archive": "open",
    "tb": "open", "chexchonet": "credentialed", "chestx6": "registered",
    "vindr-cxr": "credentialed", "nih-14": "open", "medmod": "credentialed",
    "covid-qu-ex": "registered", "qata-cov19": "registered", "cxl-seg": "credentialed",
    "actualmed": "open", "phantom-truth": "open",
}  # fmt: skip
#: Hospital of a data set, where equal numbers mean the same person; any other is its own.
HOSPITALS = {"symile-mimic": "mimic", "medmod": "mimic", "cxl-seg": "mimic"}


@dataclass(frozen=True)
class Dataset:
    """A validated table of images.

    Attributes:
        name: Folder name under `data_root`.
        task: What its labels are for.
        labels: Label columns of `table`: 1, 0, or NaN where it is unknown.
        table: One row an image: `patient`, `study`, `split`, `image` and, for segmentation,
            `mask` (paths relative to `root`), then the label columns.
        root: Folder that every path is relative to.
        terms: Under which it is given out.
        hospital: Data sets of one hospital share patient numbers.
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    table: pd.DataFrame
    root: Path
    terms: Terms
    hospital: str

    def split(self, name: str) -> pd.DataFrame:
        """Rows of one split, index reset.

        Raises:
            PacxError: The split is empty.
        """
        rows = self.table[self.table["split"] == name].reset_index(drop=True)
        if rows.empty:
            raise PacxError(f"{self.name}: split '{name}' is empty in {self.root}.")
        return rows

    @property
    def patients_in_two_splits(self) -> list[str]:
        """Patients who are in more than one split, sorted: what a split by image leaks."""
        splits = self.table.groupby("patient")["split"].nunique()
        return sorted(splits.index[splits > 1])


def make_dataset(
    name: str, task: Task, labels: list[str] | tuple[str, ...], table: pd.DataFrame, root: Path
) -> Dataset:
    """Check a reader's table and wrap it.

    Raises:
        PacxError: A column is missing, the table is empty, a patient, study, image or mask has no
            name, a split or label has an unknown value, or a path is not inside `root`.
    """
    columns = ["patient", "study", "split", "image", *labels]
    columns += ["mask"] if task == "segmentation" else []
    require_columns(table, columns, root)
    if table.empty:
        raise PacxError(f"{name}: {root} lists no image.")
    table = table.reset_index(drop=True)
    table = table.assign(patient=as_ids(table["patient"]), study=as_ids(table["study"]))
    here = f"{name}: the table in {root}"
    for column in [c for c in columns if c not in labels]:
        refuse_rows(table[column].isna(), here, f"it names no {column}.")
    for column in {"image", "mask"} & set(table):
        outside = is_outside(table[column].astype(str))
        refuse_rows(outside, here, "its path is not inside that folder. Give one relative to it.")
    unknown = set(table["split"]) - {*SPLITS, SHIFTED}
    if unknown:
        raise PacxError(f"{name}: unknown split {sorted(map(str, unknown))} in {root}.")
    for label in labels:
        values = pd.to_numeric(table[label], errors="coerce")
        bad = table[label].notna() & ~values.isin([0, 1])
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise PacxError(
                f"{name}: column '{label}', row {row} is {table[label].iloc[row]!r}; "
                "labels are 1, 0 or empty."
            )
        table[label] = values.astype("float32")
    terms, hospital = TERMS.get(name, "credentialed"), HOSPITALS.get(name, name)
    return Dataset(name, task, tuple(labels), table, root, terms, hospital)


def is_outside(paths: pd.Series) -> pd.Series:
    """Which of (N,) paths could reach out of the folder that they are relative to."""
    paths = paths.str.replace("\\", "/", regex=False)
    return paths.str.contains(r"^/|(?:^|/)\.\.(?:/|$)|^[A-Za-z]:")


def as_ids(values: pd.Series) -> pd.Series:
    """Ids as text that is equal where the ids are: whole numbers as such, however they are written.

    10000032 is also 0010000032, 10,000,032, 1.0000032e7, what a merge in pandas makes of it
    (10000032.0), what Excel does ('10000032) and what a word processor leaves (invisible blanks).

    Args:
        values: (N,) numbers or text.

    Returns:
        (N,) text; NaN where there is none.
    """
    return values.astype(object).map(_as_id, na_action="ignore")


_GROUPS = re.compile(r"\d{1,3}(?:[,_' ]\d{3})+|\d{1,3}(?:\.\d{3}){2,}")
_NUMBER = re.compile(r"\+?\d+(?:\.\d*)?(?:[eE][+-]?\d{1,2})?")


def _as_id(value: object) -> str | float:
    text = str(value)
    if text.isascii() and text.isdigit() and text[0] != "0":  # nearly all
        return text
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFKC", text)  # other digits and blanks
        text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc"))
    text = text.strip().lstrip("'").replace("\u2019", "'")
    if _GROUPS.fullmatch(text):
        text = re.sub(r"\D", "", text)
    if _NUMBER.fullmatch(text) and (number := Decimal(text)) == number.to_integral_value():
        return str(int(number))
    return text or np.nan


def percentiles_of(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Share of the training values that are at most as high, for each column.

    Args:
        values: (N, L), NaN = not measured.
        train: (M, L) values of the training split.

    Returns:
        (N, L) in [0, 1]; NaN where not measured.
    """
    percentiles = np.full(values.shape, np.nan)
    for column in range(values.shape[1]):
        measured = np.sort(train[~np.isnan(train[:, column]), column])
        seen = ~np.isnan(values[:, column])
        rank = np.searchsorted(measured, values[seen, column], side="right")
        percentiles[seen, column] = rank / max(len(measured), 1)
    return percentiles


def read_csv(path: Path, columns: list[str], ids: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV file that must have certain columns.

    Args:
        path: Of the file.
        columns: Needed columns.
        ids: Those that hold ids or file names: kept as text, so that 0042 stays 0042.

    Raises:
        PacxError: The file is missing, empty, not UTF-8, or lacks a column; or a row is cut short
            before a needed one, or has values beyond the last.
    """
    if not path.is_file():
        raise PacxError(f"{path} is missing. Check data_root, or the data set's own download.")
    try:
        _check_rows(path, columns)
        # Without index_col a comma at the end of each row would shift all columns.
        table = pd.read_csv(path, dtype=dict.fromkeys(ids, str), index_col=False, low_memory=False)
    except (
        UnicodeDecodeError,
        csv.Error,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
    ) as error:
        raise PacxError(f"{path} cannot be read as a UTF-8 CSV table: {error}") from error
    require_columns(table, columns, path)
    return table


def _check_rows(path: Path, columns: list[str]) -> None:
    """Refuse rows that pandas would fill up without a word, or name less well."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = filter(None, csv.reader(file))
        header = next(rows, [])
        last = max((header.index(column) for column in columns if column in header), default=-1)
        for number, row in enumerate(rows):
            if len(row) <= last or any(row[len(header) :]):
                raise PacxError(
                    f"{path}, row {number} has {len(row)} values for {len(header)} columns: it is "
                    "cut short, or a comma in it is not quoted."
                )


def read_list(path: Path) -> list[str]:
    """Lines of a text file, without blanks around them; empty ones are left out.

    Raises:
        PacxError: The file is missing, or not UTF-8.
    """
    if not path.is_file():
        raise PacxError(f"{path} is missing. Check data_root, or the data set's own download.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise PacxError(f"{path} cannot be read as UTF-8 text: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def files_in(folder: Path) -> list[Path]:
    """Files of a folder, sorted, without those that macOS and Windows leave there."""
    files = (f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    return sorted(f for f in files if f.name not in ("Thumbs.db", "desktop.ini"))


def refuse_rows(bad: pd.Series, where: str | Path, problem: str) -> None:
    """Raise `PacxError` that names the first row for which `bad` (N,) holds."""
    if bad.any():
        raise PacxError(f"{where}, row {int(np.flatnonzero(bad)[0])}: {problem}")


def require_columns(table: pd.DataFrame, columns: list[str], where: Path) -> None:
    """Raise `PacxError` unless every column is there."""
    missing = [c for c in columns if c not in table]
    if missing:
        raise PacxError(f"{where} lacks the column(s) {missing}; it has {list(table)[:20]}.")
