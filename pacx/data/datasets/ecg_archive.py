"""An archive of diagnosed 12-lead ECGs, in the layout of the PhysioNet/CinC Challenge 2021."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pacx.constants import ECG_DIAGNOSES
from pacx.data.ecg import preprocess, read_ecg
from pacx.data.ecg_quality import lead_faults, too_few_leads
from pacx.data.table import read_list
from pacx.errors import PacxError
from pacx.files import cached_array, fingerprint


class DiagnosedEcgs(NamedTuple):
    """ECGs and what was diagnosed on them.

    Attributes:
        records: (N,) record names.
        ecg: (N, 12, T) float32, preprocessed, leads in ECGFounder's order.
        diagnoses: (N, K) float32, 1 = diagnosed; columns in the order of `ECG_DIAGNOSES`.
        hz: Sampling rate.
    """

    records: list[str]
    ecg: np.ndarray
    diagnoses: np.ndarray
    hz: float


def archive_rate(data_root: Path) -> float | None:
    """Sampling rate of `data_root/ecg-archive`, Hz; None where there is no such archive."""
    first = min((data_root / "ecg-archive").rglob("*.hea"), default=None)
    return None if first is None else read_ecg(first).hz


def load_ecg_archive(data_root: Path, cache: Path) -> DiagnosedEcgs:
    """Read every record of `data_root/ecg-archive`.

    Raises:
        PacxError: The folder or a record is missing or broken, half of a record's leads are flat,
            a header has no `Dx` line or an upper-case suffix, or the records differ in rate or
            length.
    """
    root = data_root / "ecg-archive"
    headers = find_headers(root)
    first = read_ecg(headers[0])
    hz, length = first.hz, first.signal.shape[1]
    diagnoses = np.stack([read_diagnoses(header) for header in headers])

    def fill(array: np.ndarray) -> None:
        for i, header in enumerate(tqdm(headers, "read ECGs", leave=False)):
            record = read_ecg(header)
            if record.hz != hz or record.signal.shape[1] != length:
                raise PacxError(
                    f"{header}: {record.signal.shape[1]} samples at {record.hz} Hz; the archive's "
                    f"first record has {length} at {hz} Hz. Resample the archive to one rate."
                )
            if too_few_leads(lead_faults(record.signal, hz)):
                raise PacxError(f"{header}: six leads or more are flat. Leave this ECG out.")
            array[i] = preprocess(record.signal, hz)

    facts = [(f.relative_to(root).as_posix(), fingerprint(f)) for f in _files(root)]
    key = "ecg archive", facts
    ecg = cached_array(cache, key, (len(headers), 12, length), np.float32, fill)
    return DiagnosedEcgs([h.stem for h in headers], ecg, diagnoses, hz)


def find_headers(root: Path) -> list[Path]:
    """Headers of all records below a folder, sorted.

    Raises:
        PacxError: There is none, or one's suffix is in upper case.
    """
    headers = [f for f in _files(root) if f.suffix.lower() == ".hea"]
    if foreign := [h for h in headers if h.suffix != ".hea"]:
        raise PacxError(f"{foreign[0]}: WFDB wants .hea in lower case; rename this file.")
    if not headers:
        raise PacxError(
            f"{root} holds no .hea file. Put 12-lead WFDB records there, or make phantoms: "
            f"pacx phantom --out {root.parent}"
        )
    return headers


def _files(root: Path) -> list[Path]:
    return sorted(f for f in root.rglob("*") if f.is_file() and not f.name.startswith("."))


def read_diagnoses(header: Path) -> np.ndarray:
    """(K,) float32: 1 where a record's header lists that of `ECG_DIAGNOSES`."""
    for line in read_list(header):
        if line.replace(" ", "").startswith("#Dx:"):
            codes = set(line.split(":", 1)[1].replace(" ", "").split(","))
            return np.array([code in codes for code in ECG_DIAGNOSES], np.float32)
    raise PacxError(f"{header} has no '# Dx:' line with SNOMED codes.")
