"""Tiny ECGs whose rows tell their lead."""

from pathlib import Path

import numpy as np
import wfdb
from pydicom.data import get_testdata_file

from pacx.constants import LEADS_ECGFOUNDER, LEADS_MIMIC

DICOM = get_testdata_file("waveform_ecg.dcm")


def tagged(leads=LEADS_MIMIC, n_samples=1000) -> np.ndarray:
    """A signal (12, T) whose rows tell their lead: amplitude = 1 + place in LEADS_ECGFOUNDER."""
    wave = np.sin(np.linspace(0, 20 * np.pi, n_samples))
    return np.stack([(1 + LEADS_ECGFOUNDER.index(lead)) * wave for lead in leads])


def write_wfdb(folder, signal, leads, hz=100, units="mV") -> Path:
    wfdb.wrsamp(
        "record", fs=hz, units=[units] * len(leads), sig_name=list(leads), p_signal=signal.T,
        fmt=["16"] * len(leads), write_dir=str(folder),
    )  # fmt: skip
    return folder / "record"
