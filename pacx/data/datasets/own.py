"""Anyone's own data in one tidy layout: `dataset.yaml`, with `table.csv`, `pairs.csv` or both.

The page on own data describes it. Whatever is wrong is one error that names file, line and column.
"""

import csv
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from pacx.data.datasets.symile_mimic import SECONDS, Pairs
from pacx.data.ecg import Ecg, preprocess, read_ecg, resample
from pacx.data.ecg_quality import lead_faults, too_few_leads
from pacx.data.images import load_images
from pacx.data.splits import split_by_patient
from pacx.data.table import (
    SPLITS,
    TERMS,
    Dataset,
    Task,
    Terms,
    as_ids,
    is_outside,
    percentiles_of,
)
from pacx.errors import PacxError
from pacx.files import cached_array, content_of
from pacx.profile import DatasetName, Modality, Settings, read_yaml, validated

ABOUT, TABLE, PAIRS = "dataset.yaml", "table.csv", "pairs.csv"
#: Of the patients, where a table has no column `split`.
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
_COLUMNS = ("image", "patient", "study", "split", "mask", "ecg")


class About(Settings):
    """`dataset.yaml`."""

    name: DatasetName
    task: Task = "pretraining"
    labels: list[str] = Field([], description="columns of table.csv: 1, 0 or empty")
    labs: dict[str, str] = Field({}, description="blood tests, columns of pairs.csv: their units")
    terms: Terms = "credentialed"
    hospital: str = Field("own", description="data sets of one hospital share patient numbers")
    licence: str = ""
    citation: str = ""

    @model_validator(mode="after")
    def _fit_together(self):
        if self.name in TERMS:
            raise ValueError(f"name: {self.name} is a public data set's, choose another")
        named = [*self.labels, *self.labs]
        if wrong := [c for c in named if c in _COLUMNS or named.count(c) > 1]:
            raise ValueError(f"labels or labs: '{wrong[0]}' is there twice, or has a meaning here")
        if self.labels and self.task == "segmentation":
            raise ValueError("labels: segmentation has a column mask instead, remove them")
        fewest = {"binary": 1, "multilabel": 1, "multiclass": 2}.get(self.task, 0)
        if len(self.labels) < fewest or (self.task == "binary" and len(self.labels) > 1):
            raise ValueError(f"labels: {self.task} cannot have {len(self.labels)}")
        return self


def is_own(root: Path) -> bool:
    """Whether a folder holds data in this layout."""
    return (root / ABOUT).is_file()


def read_about(root: Path) -> About:
    """Read `dataset.yaml` of a data set's folder.

    Raises:
        PacxError: It is missing, or a key or value is wrong.
    """
    path = root / ABOUT
    if not path.is_file():
        raise PacxError(f"{path} is missing. Write `name: {root.name}` and what else it needs.")
    about, folder = validated(About, read_yaml(path), str(path)), root.resolve().name
    if about.name != folder:
        raise PacxError(f"{path}: name is {about.name}, but the folder is {folder}. Rename one.")
    return about


def read(root: Path) -> Dataset:
    """Read `table.csv` of a data set's folder.

    Raises:
        PacxError: Anything is not as the layout wants it; the message names line and column.
    """
    about, path = read_about(root), root / TABLE
    masks = ["mask"] if about.task == "segmentation" else []
    table = _read_rows(path, [*masks, *about.labels], ["image", *masks])
    for label in about.labels:
        problem = "Write 1, 0, or nothing where it is unknown."
        table[label] = _numbers(path, table[label], problem, allowed=(0, 1)).astype("float32")
    if about.task == "multiclass":
        several = table[about.labels].sum(axis=1, skipna=False) != 1
        problem = "an image needs 1 for one class and 0 for the others."
        _refuse(path, table[about.labels[0]], several, problem)
    labels = tuple(about.labels)
    return Dataset(about.name, about.task, labels, table, root, about.terms, about.hospital)


def read_pairs(root: Path) -> pd.DataFrame:
    """Read `pairs.csv`: patient, study, split, image, perhaps `ecg`, and blood tests as numbers.

    Raises:
        PacxError: Anything is not as the layout wants it; the message names line and column.
    """
    labs, path = list(read_about(root).labs), root / PAIRS
    table = _read_rows(path, labs, ["image", "ecg"])
    if not labs and "ecg" not in table:
        raise PacxError(f"{path} pairs nothing: it needs a column ecg, or `labs` in {ABOUT}.")
    for lab in labs:
        problem = "Write 3.5, or nothing where it was not measured."
        table[lab] = _numbers(path, table[lab], problem)
        if not table.loc[table["split"] == "train", lab].notna().any():
            raise PacxError(
                f"{path}, column '{lab}': no training patient has a value, so there are no "
                f"percentiles. Take it out of `labs` in {ABOUT}."
            )
    if labs:
        nothing = table[labs].isna().all(axis=1)
        _refuse(path, table[labs[0]], nothing, "nor is any other test measured. Delete the row.")
    return table


def modalities_of(root: Path) -> tuple[Modality, ...]:
    """What is paired with the X-rays."""
    found = ("ecg", "ecg" in _read_csv(root / PAIRS)), ("labs", bool(read_about(root).labs))
    return tuple(name for name, there in found if there)


def read_record(path: Path) -> Ecg:
    """Read an ECG of at least ten seconds; `PacxError` as of `pacx.data.ecg.read_ecg`."""
    record = read_ecg(path)
    if (seconds := record.signal.shape[1] / record.hz) < SECONDS:
        raise PacxError(f"{path} has {seconds:.1f} s, {SECONDS:.0f} are needed. Leave it out.")
    if too_few_leads(lead_faults(record.signal, record.hz)):
        raise PacxError(f"{path}: six leads or more are flat. Leave this ECG out.")
    return record


def load_pairs(root: Path, split: str, size: int, cache: Path, hz: float | None) -> Pairs:
    """Read one split of `pairs.csv` with its files.

    Args:
        root: Folder of the data set.
        split: `train`, `val` or `test`.
        size: Pixels a side of the X-rays that are returned.
        cache: Folder of decoded arrays.
        hz: Rate that the ECGs are resampled to, of which the first ten seconds are taken; None
            reads none.

    Raises:
        PacxError: See `read_pairs`; or a file cannot be read, or an ECG is too short.
    """
    everyone, labs = read_pairs(root), list(read_about(root).labs)
    table = everyone[everyone["split"] == split]
    if table.empty:
        raise PacxError(f"{root / PAIRS}: split '{split}' is empty.")
    values = everyone[labs].to_numpy(float)
    percentiles = percentiles_of(values, values[everyone["split"] == "train"])
    percentiles = percentiles[everyone["split"] == split].astype(np.float32)
    samples = 0 if hz is None or "ecg" not in table else round(SECONDS * hz)
    ecg = np.empty((len(table), 12, 0), np.float32)

    def fill(out: np.ndarray) -> None:
        for row, (line, name) in enumerate(table["ecg"].items()):
            try:
                record = read_record(root / name)
                signal = resample(record.signal, record.hz, hz)
                out[row] = preprocess(signal[:, :samples], hz)
            except PacxError as error:
                raise PacxError(f"{root / PAIRS}, line {line}, column 'ecg': {error}") from error

    if samples:
        files = [file for name in table["ecg"] for file in _files_of(root / name)]
        key = "own ecg", list(table["ecg"]), [content_of(file, cache) for file in files], hz
        ecg = cached_array(cache, key, (len(table), 12, samples), np.float32, fill)
    return Pairs(
        table.reset_index(drop=True),
        load_images(root, list(table["image"]), size, cache),
        ecg,
        np.nan_to_num(percentiles),
        (~np.isnan(percentiles)).astype(np.float32),
    )


def _files_of(record: Path) -> list[Path]:
    """An ECG's files."""
    files = {record, *(record.with_suffix(suffix) for suffix in (".hea", ".dat", ".mat"))}
    return sorted(file for file in files if file.is_file())


def _read_rows(path: Path, needed: list[str], files: list[str]) -> pd.DataFrame:
    """The table, its index the lines of the file, with patients, splits and paths checked."""
    table = _read_csv(path)
    if missing := [c for c in ("image", "patient", *needed) if c not in table]:
        raise PacxError(f"{path} lacks the column '{missing[0]}'; it has {list(table)[:20]}.")
    files = [column for column in files if column in table]
    for column in ["patient", *files]:
        empty = table[column].isna()
        _refuse(path, table[column], empty, "it is empty. Fill it in, or delete the row.")
    for column in files:
        names, folder = table[column], path.parent
        _refuse(path, names, is_outside(names), f"{{}} is not inside {folder}. Move it there.")
        ends = ("", ".hea") if column == "ecg" else ("",)  # of a WFDB record, the bare name
        found = [any(os.path.isfile(folder / f"{n}{end}") for end in ends) for n in names]
        _refuse(
            path,
            names,
            ~pd.Series(found, names.index),
            f"there is no {{}} in {folder}. Add it, or delete the row.",
        )
    twice = table["image"].map(os.path.normpath).duplicated()
    _refuse(path, table["image"], twice, "{} is in an earlier line, too. Keep one.")
    table["patient"] = as_ids(table["patient"])
    table["study"] = as_ids(table.get("study", table["image"])).fillna(table["image"])
    if "split" not in table:
        return table.assign(split=split_by_patient(table["patient"], SHARES))
    split, problem = table["split"], "write train, val or test in all lines, or leave it out."
    _refuse(path, split, ~split.isin(SPLITS), f"{{}} is no split; {problem}")
    other = table.groupby("patient")["split"].transform("first") != split
    _refuse(path, split, other, "{}, but this patient is in another split before. Choose one.")
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    """A UTF-8 table as text, with or without a byte order mark; NaN where a cell is empty."""
    if not path.is_file():
        raise PacxError(f"{path} is missing. The page on own data says what it holds.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            lines = ((reader.line_num, row) for row in reader)
            rows = {line: row for line, row in lines if any(map(str.strip, row))}
    except (UnicodeDecodeError, csv.Error) as error:
        raise PacxError(f"{path} is no UTF-8 table: {error}. Save it as 'CSV UTF-8'.") from error
    if len(header) == 1 and (mark := re.search("[;\t|]", header[0])):
        raise PacxError(f"{path}, line 1: {mark[0]!r} parts the columns. Save it with commas.")
    for name in header:
        if not name or header.count(name) > 1:
            raise PacxError(f"{path}, line 1: column '{name}' has no name, or is there twice.")
        if name not in _COLUMNS and name.lower() in _COLUMNS:
            raise PacxError(f"{path}, line 1: column '{name}' is not read; write {name.lower()}.")
    for line, row in rows.items():
        if len(row) != len(header):
            raise PacxError(
                f"{path}, line {line}: {len(row)} cells, but line 1 has {len(header)}. Put quotes "
                "around a cell that holds a comma."
            )
    if not rows:
        raise PacxError(f"{path} is empty. Write a line of column names, then a line an image.")
    table = pd.DataFrame.from_dict(rows, orient="index", columns=header)
    return table.apply(lambda column: column.str.strip()).replace("", np.nan)


def _numbers(
    path: Path, cells: pd.Series, what_to_do: str, allowed: tuple[float, ...] = ()
) -> pd.Series:
    """Cells as numbers, NaN where there is none."""
    values = pd.to_numeric(cells, errors="coerce")
    fine = values.isin(allowed) if allowed else np.isfinite(values)
    _refuse(path, cells, cells.notna() & ~fine, f"{{}} cannot be read. {what_to_do}")
    return values


def _refuse(path: Path, cells: pd.Series, bad: pd.Series, problem: str) -> None:
    """Raise `PacxError` that names the first line for which `bad` holds, with its cell for `{}`."""
    if bad.any():
        line, said = bad.idxmax(), problem.replace("{}", repr(cells[bad.idxmax()]))
        raise PacxError(f"{path}, line {line}, column '{cells.name}': {said}")
