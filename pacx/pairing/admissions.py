"""Symile-MIMIC's pairing rule: X-ray, ECG and labs of one admission, from the raw MIMIC tables.

The rule is the SQL in `STEPS`; `pair_admissions` runs it out of core. Between two steps Python
looks at what SQL cannot: whether an X-ray's file exists, and whether an ECG holds a signal.
"""

import csv
import gzip
import re
import shutil
import tempfile
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os.path import isfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import duckdb
import numpy as np
import pandas as pd
import wfdb
from tqdm import tqdm

from pacx.constants import LABS
from pacx.errors import PacxError

#: CheXpert findings that Symile-MIMIC keeps in its tables.
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Edema", "Lung Opacity", "No Finding", "Pleural Effusion",
)  # fmt: skip
ITEMS = tuple(str(lab.itemid) for lab in LABS)
_FINDINGS = ",\n       ".join(f'"{finding}"' for finding in FINDINGS)
_TAKEN = "StudyDate || lpad(trunc(StudyTime)::BIGINT::VARCHAR, 6, '0')"
_ITEMS = textwrap.fill(", ".join(ITEMS), 76, subsequent_indent=" " * 8)


class Source(NamedTuple):
    """A table of MIMIC: which download it is in, its file there, and the columns we read."""

    download: str
    file: str
    columns: dict[str, str]


#: Every table is a view of this name in the schema `raw`.
SOURCES = {
    "admissions": Source(
        "MIMIC-IV", "hosp/admissions.csv.gz",
        {"subject_id": "BIGINT", "hadm_id": "BIGINT", "admittime": "TIMESTAMP"},
    ),
    "labevents": Source(
        "MIMIC-IV", "hosp/labevents.csv.gz",
        {"subject_id": "BIGINT", "itemid": "BIGINT", "charttime": "TIMESTAMP",
         "valuenum": "DOUBLE"},
    ),
    "metadata": Source(
        "MIMIC-CXR", "mimic-cxr-2.0.0-metadata.csv.gz",
        {"dicom_id": "VARCHAR", "subject_id": "BIGINT", "study_id": "BIGINT",
         "ViewPosition": "VARCHAR", "StudyDate": "BIGINT", "StudyTime": "DOUBLE"},
    ),
    "chexpert": Source(
        "MIMIC-CXR", "mimic-cxr-2.0.0-chexpert.csv.gz",
        {"study_id": "BIGINT"} | dict.fromkeys(FINDINGS, "DOUBLE"),
    ),
    "record_list": Source(
        "MIMIC-IV-ECG", "record_list.csv",
        {"subject_id": "BIGINT", "study_id": "BIGINT", "ecg_time": "TIMESTAMP", "path": "VARCHAR"},
    ),
}  # fmt: skip

#: The rule, step by step; each makes the table that it is named after.
STEPS = {
    "admissions": """
CREATE TABLE admissions AS
SELECT subject_id, hadm_id, admittime FROM raw.admissions;
""",
    "frontal_xrays": f"""
-- StudyTime is a number such as 2153.875: 00:21:53, the fraction is cut.
CREATE TABLE frontal_xrays AS
SELECT subject_id, study_id, dicom_id,
       strptime({_TAKEN}, '%Y%m%d%H%M%S')
           AS taken,
       concat('files/p', left(subject_id::VARCHAR, 2), '/p', subject_id, '/s', study_id,
              '/', dicom_id, '.jpg') AS cxr_path
FROM raw.metadata
WHERE ViewPosition IN ('AP', 'PA');
""",
    "xrays_in_time": """
-- Of these, Python then deletes those without an image file.
CREATE TABLE xrays_in_time AS
SELECT subject_id, hadm_id, admittime, study_id, dicom_id, cxr_path, taken,
       frontal_xrays.rowid AS row_in_file
FROM admissions JOIN frontal_xrays USING (subject_id)
WHERE taken > admittime + INTERVAL 24 HOURS
  AND taken <= admittime + INTERVAL 72 HOURS;
""",
    "with_xray": f"""
-- The findings are joined after the choice: an admission whose earliest X-ray has none is lost.
CREATE TABLE with_xray AS
WITH earliest AS (
    SELECT * FROM xrays_in_time
    QUALIFY row_number() OVER (PARTITION BY hadm_id ORDER BY taken, row_in_file) = 1
)
SELECT subject_id, hadm_id, admittime, dicom_id AS cxr_dicom_id, study_id AS cxr_study_id,
       cxr_path, {_FINDINGS}
FROM earliest JOIN raw.chexpert USING (study_id);
""",
    "ecgs": """
CREATE TABLE ecgs AS
SELECT subject_id, study_id, ecg_time, path
FROM raw.record_list
WHERE subject_id IN (SELECT subject_id FROM with_xray);
""",
    "ecgs_in_time": """
-- Of these, Python then deletes those that are all zero or hold a NaN.
CREATE TABLE ecgs_in_time AS
SELECT hadm_id, study_id AS ecg_study_id, path AS ecg_path, ecg_time, ecgs.rowid AS row_in_file
FROM with_xray JOIN ecgs USING (subject_id)
WHERE ecg_time BETWEEN admittime - INTERVAL 24 HOURS AND admittime + INTERVAL 24 HOURS;
""",
    "with_ecg": """
CREATE TABLE with_ecg AS
WITH earliest AS (
    SELECT * FROM ecgs_in_time
    QUALIFY row_number() OVER (PARTITION BY hadm_id ORDER BY ecg_time, row_in_file) = 1
)
SELECT with_xray.*, ecg_study_id, ecg_path
FROM with_xray JOIN earliest USING (hadm_id);
""",
    "lab_values": f"""
-- The one pass over labevents, MIMIC's largest table: only what can matter is kept.
CREATE TABLE lab_values AS
SELECT subject_id, itemid, charttime, valuenum
FROM raw.labevents
WHERE itemid IN ({_ITEMS})
  AND isfinite(valuenum)
  AND subject_id IN (SELECT subject_id FROM with_ecg);
""",
    "labs_in_time": """
-- By patient and time alone: a lab's own hadm_id is often empty.
CREATE TABLE labs_in_time AS
SELECT hadm_id, itemid, valuenum
FROM with_ecg JOIN lab_values USING (subject_id)
WHERE charttime BETWEEN admittime - INTERVAL 24 HOURS AND admittime + INTERVAL 24 HOURS
QUALIFY row_number() OVER (
    PARTITION BY hadm_id, itemid ORDER BY charttime, lab_values.rowid
) = 1;
""",
    "pairs": f"""
-- The inner join keeps admissions with at least one lab.
CREATE TABLE pairs AS
WITH labs AS (
    PIVOT labs_in_time ON itemid IN ({_ITEMS}) USING first(valuenum) GROUP BY hadm_id
)
SELECT with_ecg.* EXCLUDE (admittime), labs.* EXCLUDE (hadm_id)
FROM with_ecg JOIN labs USING (hadm_id)
ORDER BY hadm_id;
""",
}


def pair_admissions(
    mimic_iv: Path,
    mimic_cxr: Path,
    mimic_ecg: Path,
    memory: str = "4GB",
    scratch: Path | None = None,
) -> pd.DataFrame:
    """Find the admissions that have an X-ray, an ECG and labs in time.

    The earliest AP or PA X-ray with a file, more than 24 h and at most 72 h after admission; the
    earliest ECG within 24 h before or after, none that is all zero or holds a NaN; the earliest
    value of each lab within 24 h before or after. Of two at the same time the first in the file
    counts. (Saporta et al. 2024, Symile-MIMIC.)

    Args:
        mimic_iv: Folder of MIMIC-IV, with `hosp/`.
        mimic_cxr: Folder of MIMIC-CXR-JPG, with its tables and `files/`.
        mimic_ecg: Folder of MIMIC-IV-ECG, with `record_list.csv` and its records.
        memory: What the whole step may take, such as `4GB`; beyond that the database writes to
            `scratch`.
        scratch: Existing folder for the database's files; the system's temporary one if None.

    Returns:
        One row an admission, sorted by `hadm_id`: subject_id, hadm_id, cxr_dicom_id, cxr_study_id,
        cxr_path, six findings, ecg_study_id, ecg_path, then the labs by item id (NaN = not
        measured) in tensor order.

    Raises:
        PacxError: A folder, file or column is missing; a table cannot be read as UTF-8 CSV or holds
            an impossible value; a path leaves its folder; an ECG is missing or broken; or no
            admission has all three.
    """
    folders = {"MIMIC-IV": mimic_iv, "MIMIC-CXR": mimic_cxr, "MIMIC-IV-ECG": mimic_ecg}
    views = [_view(name, source, folders[source.download]) for name, source in SOURCES.items()]
    checks: dict[str, tuple[str, Callable[[str], bool]]] = {
        "xrays_in_time": ("cxr_path", lambda path: isfile(inside(mimic_cxr, path))),
        "ecgs_in_time": ("ecg_path", lambda path: holds_signal(inside(mimic_ecg, path))),
    }
    with _database(memory, scratch) as database:
        database.execute("CREATE SCHEMA raw;" + "".join(views))
        _check_times(database, mimic_cxr)
        for name, sql in tqdm(STEPS.items(), "pair", unit="step", leave=False):
            database.execute(sql)
            if name in checks:
                _delete_failing(database, name, *checks[name])
        pairs = database.table("pairs").df()
        if pairs.empty:
            counts = ", ".join(
                f"{database.execute(f'SELECT count(*) FROM {name}').fetchone()[0]} in {name}"
                for name in STEPS
            )
            raise PacxError(f"No admission has X-ray, ECG and labs in time. Rows: {counts}.")
    if pairs["hadm_id"].duplicated().any():
        twice = pairs.loc[pairs["hadm_id"].duplicated(), "hadm_id"].iloc[0]
        raise PacxError(
            f"Admission {twice} comes twice: {SOURCES['chexpert'].file} lists its X-ray's study "
            "twice. Remove the second row."
        )
    return pairs


def holds_signal(record: Path) -> bool:
    """Whether a WFDB record (named without extension) has no NaN and anything but zeros.

    Raises:
        PacxError: The record is missing or broken.
    """
    try:
        counts = _plain_counts(record)
        if counts is not None:
            return bool(counts.any()) and not (counts == np.iinfo(np.int16).min).any()
        signal = wfdb.rdrecord(str(record)).p_signal
        return bool(signal.any()) and not np.isnan(signal).any()
    except PacxError as error:
        raise PacxError(f"ECG {record} of record_list.csv: {error}") from error
    except Exception as error:  # wfdb raises whatever its parser stumbles over
        raise PacxError(
            f"ECG {record} of record_list.csv is missing or broken: {error}. Download it again."
        ) from error


def inside(root: Path, name: str) -> Path:
    """`root / name`, for a name out of a table.

    Raises:
        PacxError: The name is absolute or climbs out of `root`.
    """
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or re.match("[A-Za-z]:", name):
        raise PacxError(
            f"'{name}' is not inside {root}, as a path in a table or header must be; correct it."
        )
    return root / relative


#: A signal line of MIMIC-IV-ECG's headers: 16-bit counts, some gain, zero at count 0.
_PLAIN = re.compile(r"(\S+) 16 [1-9]\d*(?:\.\d+)?\(0\)/\S+ 16 0 ")


def _plain_counts(record: Path) -> np.ndarray | None:
    """Samples as stored, where they are stored as MIMIC-IV-ECG does; else None.

    Reading a record through wfdb takes a hundred times as long, and there are 800,000.
    """
    lines = record.parent.joinpath(f"{record.name}.hea").read_text(encoding="utf-8").split("\n")
    shape = re.match(r"\S+ (\d+) \S+ (\d+)", lines[0])
    signals = [_PLAIN.match(line) for line in lines[1 : 1 + int(shape[1])]] if shape else [None]
    if not all(signals) or len({signal[1] for signal in signals}) != 1:
        return None
    counts = np.fromfile(inside(record.parent, signals[0][1]), "<i2")
    if counts.size != int(shape[1]) * int(shape[2]):
        raise ValueError(f"{counts.size} values where the header says {shape[1]} x {shape[2]}")
    return counts


@contextmanager
def _database(memory: str, scratch: Path | None):
    try:
        folder = Path(tempfile.mkdtemp(prefix="pairing-", dir=scratch))
    except OSError as error:
        raise PacxError(f"The database's files cannot be written: {error}.") from error
    try:
        with duckdb.connect(
            folder / "pairing.duckdb",
            config={"memory_limit": _share_of(memory), "temp_directory": str(folder / "spill")},
        ) as database:
            yield database
    except duckdb.Error as error:
        raise PacxError(_first_lines(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _share_of(memory: str) -> str:
    """Three quarters, for the database's buffers: Python needs memory as well."""
    size = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]i?B)", memory)
    if not size:
        raise PacxError(f"A memory of '{memory}' is not known; write it like 4GB or 800MB.")
    return f"{0.75 * float(size[1])}{size[2]}"


def _first_lines(error: duckdb.Error) -> str:
    """What and where; DuckDB's advice about its own options does not help here."""
    text = str(error)
    file = re.search(r"file = (.*)", text)
    what = "; ".join(text.split("\n\n")[0].split("\n")[:3])
    return f"Pairing stopped{f' at {file[1]}' if file else ''}: {what}"


def _view(name: str, source: Source, folder: Path) -> str:
    """SQL of the view `raw.<name>`: the columns we read, typed; the others are never parsed."""
    path = folder / source.file
    if not folder.is_dir():
        raise PacxError(f"The folder of {source.download}, {folder}, is missing.")
    if not path.is_file():
        raise PacxError(f"{path} is missing; {source.download} ships it.")
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise PacxError(f"{path} cannot be read as a UTF-8 CSV table: {error}.") from error
    missing = [column for column in source.columns if column not in header]
    if missing:
        raise PacxError(f"{path} lacks the column(s) {missing}; it has {header[:20]}.")
    types = {column: source.columns.get(column, "VARCHAR") for column in header}
    wanted = ", ".join(f'"{column}"' for column in source.columns)
    return (
        f"CREATE VIEW raw.{name} AS SELECT {wanted} FROM read_csv({_quoted(path)}, "
        f"columns={{{', '.join(f'{_quoted(c)}: {_quoted(t)}' for c, t in types.items())}}}, "
        "header=true, delim=',', quote='\"', escape='\"', auto_detect=false);"
    )


def _check_times(database: duckdb.DuckDBPyConnection, mimic_cxr: Path) -> None:
    """Name the first frontal film taken at an impossible time: DuckDB's own error does not."""
    film = database.execute(f"""
        SELECT dicom_id, StudyDate, StudyTime FROM raw.metadata
        WHERE ViewPosition IN ('AP', 'PA') AND {_TAKEN} IS NOT NULL
          AND try_strptime({_TAKEN}, '%Y%m%d%H%M%S') IS NULL
        LIMIT 1
    """).fetchone()
    if film:
        raise PacxError(
            f"{mimic_cxr / SOURCES['metadata'].file}, the row of dicom_id {film[0]}: StudyDate "
            f"{film[1]} and StudyTime {film[2]} are no time (YYYYMMDD and HHMMSS). Correct that "
            "row, or delete it."
        )


def _quoted(text: object) -> str:
    return "'" + str(text).replace("'", "''") + "'"


def _delete_failing(
    database: duckdb.DuckDBPyConnection, table: str, column: str, holds: Callable[[str], bool]
) -> None:
    rows = database.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall()
    paths = [row[0] or "" for row in rows]
    with ThreadPoolExecutor() as pool:
        good = list(tqdm(pool.map(holds, paths), f"pair: check {column}", len(paths), leave=False))
    failing = [path for path, fine in zip(paths, good, strict=True) if not fine]
    database.execute(f"DELETE FROM {table} WHERE {column} IN (SELECT unnest(?))", [failing])
