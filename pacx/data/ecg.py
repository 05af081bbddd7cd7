"""Twelve-lead ECGs: reading WFDB and DICOM files, lead order by name, and ECGFounder's filters."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import lru_cache
from os.path import isfile  # False for names that no disk can hold: `Path.is_file` raises
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import wfdb
from numpy.typing import NDArray
from scipy import ndimage
from scipy import signal as dsp

from pacx.constants import LEADS_ECGFOUNDER
from pacx.data.dicom import is_dicom
from pacx.errors import PacxError

MILLIVOLTS = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3}
#: What the highest value of a record may be, mV: from noise alone to electrodes without a filter.
PEAK = (0.01, 1000)
_CANONICAL = {lead.upper(): lead for lead in LEADS_ECGFOUNDER}


class Ecg(NamedTuple):
    """One recording.

    Attributes:
        signal: (12, T) float64, mV; NaN where the file marks a sample as invalid.
        leads: Names of the rows.
        hz: Sampling rate.
    """

    signal: NDArray[np.float64]
    leads: tuple[str, ...]
    hz: float


def read_ecg(path: str | Path, leads: Sequence[str] = LEADS_ECGFOUNDER) -> Ecg:
    """Read a twelve-lead recording and bring its leads into order, by their names only.

    Args:
        path: A WFDB record (its `.hea`, its signal file, or the name without extension) or a
            DICOM waveform.
        leads: Wanted order.

    Raises:
        PacxError: The file is missing or damaged; it does not hold each of the twelve leads once,
            by name, in a unit of voltage; the rate is impossible; or there is no signal in it.
    """
    path = Path(path)
    read = _read_dicom if isfile(path) and is_dicom(path) else _read_wfdb
    signal, names, units, hz = read(path)
    names = [_lead_name(name, path) for name in names]
    signal = np.stack(
        [row * _millivolts(u, n, path) for row, u, n in zip(signal, units, names, strict=True)]
    )
    _check(signal, hz, str(path))
    peak = np.nanmax(np.abs(signal))
    if not PEAK[0] <= peak <= PEAK[1]:
        raise PacxError(
            f"{path}: its highest value is {peak:.3g} mV, where ECGs have about 1 mV. Correct the "
            "gain or the unit in its header."
        )
    try:
        ordered = reorder(signal, names, leads)
    except PacxError as error:
        raise PacxError(f"{path}: {error}") from error
    return Ecg(ordered, tuple(leads), float(hz))


def reorder(signal: NDArray, from_leads: Sequence[str], to_leads: Sequence[str]) -> NDArray:
    """Permute the lead axis of (..., leads, T) by name.

    MIMIC-IV-ECG stores aVF before aVL, ECGFounder wants aVL before aVF.

    Raises:
        PacxError: A name is given twice, or a wanted lead is missing.
    """
    from_leads = list(from_leads)
    doubled = sorted({lead for lead in from_leads if from_leads.count(lead) > 1})
    if doubled:
        raise PacxError(f"lead {', '.join(doubled)} occurs twice; keep one recording of each lead.")
    missing = [lead for lead in to_leads if lead not in from_leads]
    if missing:
        raise PacxError(
            f"{len(from_leads)} leads, but {', '.join(missing)} is missing; "
            f"needed are {', '.join(to_leads)}."
        )
    return signal[..., [from_leads.index(lead) for lead in to_leads], :]


def resample(signal: NDArray, from_hz: float, to_hz: float) -> NDArray:
    """Resample (..., T) by a rational factor, with an anti-aliasing filter; NaN becomes 0 first.

    Returns:
        (..., T') with T' = ceil(T * to_hz / from_hz), in the input's dtype.
    """
    factor = Fraction(to_hz / from_hz).limit_denominator(1000)
    finite = np.nan_to_num(signal, nan=0.0, posinf=0.0, neginf=0.0)
    # "line": without it the filter sees a step from 0 to the baseline at both ends.
    out = dsp.resample_poly(finite, factor.numerator, factor.denominator, axis=-1, padtype="line")
    return out.astype(signal.dtype, copy=False)


def preprocess(signal: NDArray, hz: float) -> NDArray:
    """ECGFounder's input pipeline: filters on every lead, then one z-score over all leads.

    NaN becomes 0; notch at 50 Hz (Q 30); Butterworth band-pass 0.67-40 Hz of order 4, both forwards
    and backwards (zero phase); minus a 0.4 s running median; then (x - mean) / (std + 1e-8) over
    all leads and samples of a record. The notch stays at 50 Hz although mains hum in the USA is at
    60 Hz, because the published weights were trained so. (ECGFounder, `util.py` and `dataset.py`.)

    No filter edge may lie at half the sampling rate or above: at 100 Hz or less the notch is left
    out, and below 89 Hz the band ends at 0.45 * hz instead of 40 Hz.

    Args:
        signal: (..., 12, T); any number of records, any unit and lead order.
        hz: Sampling rate; the published weights want 500 Hz.

    Returns:
        Array of the same shape and floating dtype; computed in float64.

    Raises:
        PacxError: The rate is impossible, or a record is empty, too short, all zero or all NaN.
    """
    _check(signal, hz, "preprocess")
    z = np.empty(signal.shape, signal.dtype if np.issubdtype(signal.dtype, np.floating) else float)
    records, scores = (a.reshape(-1, *signal.shape[-2:]) for a in (signal, z))

    def score(i: int) -> None:
        x = filter_ecg(records[i], hz)
        scores[i] = (x - x.mean()) / (x.std() + 1e-8)

    # The linear filters release the GIL, the median does not; a record stays in a core's cache.
    with ThreadPoolExecutor() as pool:
        list(pool.map(score, range(len(records))))
    return z


def filter_ecg(signal: NDArray, hz: float) -> NDArray[np.float64]:
    """The filters of `preprocess` without its z-score: (..., T) to (..., T), same unit."""
    x = np.where(np.isfinite(signal), signal, 0).astype(np.float64, copy=False)
    if x.shape[-1] <= _EDGE:
        raise PacxError(f"The ECG has {x.shape[-1]} samples; the filters need more than {_EDGE}.")
    notch, band = _design_filters(hz)
    if notch is not None:
        x = dsp.filtfilt(*notch, x, axis=-1)
    x = dsp.filtfilt(*band, x, axis=-1) if len(band) == 2 else dsp.sosfiltfilt(band, x, axis=-1)
    return x - _running_median(x, int(0.4 * hz) + 1 | 1)


#: Samples that the band-pass mirrors at both ends: three times its nine coefficients.
_EDGE = 27


@lru_cache
def _design_filters(hz: float) -> tuple[tuple | None, tuple | NDArray]:
    """Notch as (b, a), None where it does not exist; band-pass as (b, a) or sections.

    Up to 500 Hz in the polynomial form (b, a), which the reference uses: its rounding errors are
    part of the output there, about 1e-5. Above, so low an edge needs second-order sections.
    """
    notch = dsp.iirnotch(50.0, Q=30.0, fs=hz) if hz > 100 else None
    form = "ba" if hz <= 500 else "sos"
    return notch, dsp.butter(4, [0.67, min(40.0, 0.45 * hz)], "bandpass", fs=hz, output=form)


def _running_median(x: NDArray, window: int) -> NDArray:
    """Median over an odd window along the last axis, zeros beyond the ends.

    All rows in one line, with zeros between them: scipy's fast algorithm is for one dimension.
    """
    half = window // 2
    rows = np.pad(x.reshape(-1, x.shape[-1]), ((0, 0), (half, half)))
    median = ndimage.median_filter(rows.ravel(), size=window, mode="constant").reshape(rows.shape)
    return median[:, half : half + x.shape[-1]].reshape(x.shape)


def _read_wfdb(path: Path) -> tuple[NDArray, list[str], list[str], float]:
    stem = path.with_suffix("") if path.suffix.lower() in (".hea", ".mat", ".dat") else path
    header = stem.parent / f"{stem.name}.hea"
    if not isfile(header):
        raise PacxError(
            f"There is no ECG at {path}: neither the WFDB header {header.name}, in this spelling, "
            "nor a DICOM file."
        )
    _check_header(header)
    try:
        record = wfdb.rdrecord(str(stem))
    except FileNotFoundError as error:
        missing = Path(error.filename or "").name
        raise PacxError(f"{header}: its signal file {missing} is missing.") from error
    except Exception as error:  # wfdb raises whatever its parser stumbles over
        raise PacxError(f"{header} is not a readable WFDB record: {error}.") from error
    if record.p_signal is None or record.p_signal.size == 0:
        raise PacxError(f"{header} holds no samples.")
    return record.p_signal.T, record.sig_name, record.units, record.fs


def _check_header(header: Path) -> None:
    """Refuse what WFDB would guess: 250 Hz without a rate, 200 units a millivolt without a gain."""
    text = header.read_text(encoding="utf-8", errors="replace")
    lines = [line.split() for line in text.splitlines() if line.strip() and line[0] != "#"]
    if not lines or len(lines[0]) < 3 or not re.fullmatch(r"\d+\.?\d*(/.*)?", lines[0][2]):
        raise PacxError(
            f"{header} states no sampling rate. Write it into the first line, behind the number of "
            "signals."
        )
    if "/" in lines[0][0]:  # of several segments, each with a header of its own
        for segment in {fields[0] for fields in lines[1:]} - {"~"}:  # "~": a gap
            if (part := header.with_name(f"{segment}.hea")).is_file() and part != header:
                _check_header(part)
        return
    for number, fields in enumerate(lines[1:]):
        file = header.parent / fields[0]
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise PacxError(f"{header}: its signal file {fields[0]} is no file.")
        number_first = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
        gain = re.match(number_first, fields[2] if len(fields) > 2 else "")
        if gain is None or not 1e-6 <= abs(float(gain.group())) <= 1e12:
            raise PacxError(
                f"{header} states no gain of signal {number} ({fields[-1]}): it is uncalibrated. "
                "Write its units a millivolt into the third field."
            )


def _read_dicom(path: Path) -> tuple[NDArray, list[str], list[str], float]:
    try:
        dataset = pydicom.dcmread(path)
        groups = list(dataset.get("WaveformSequence", []))
        # A file may hold a median beat beside the rhythm: the longest original group is wanted.
        groups.sort(
            key=lambda g: (g.get("WaveformOriginality") == "ORIGINAL", g.NumberOfWaveformSamples)
        )
        if not groups:
            raise PacxError(f"{path} holds no waveform; give an ECG, not an image.")
        group = groups[-1]
        channels = group.ChannelDefinitionSequence
        if not all(c.get("ChannelSensitivity") for c in channels):
            raise PacxError(f"{path}: a channel has no ChannelSensitivity: it is uncalibrated.")
        signal = dataset.waveform_array(list(dataset.WaveformSequence).index(group)).T
        names = [c.get("ChannelLabel") or c.ChannelSourceSequence[0].CodeMeaning for c in channels]
        units = [c.ChannelSensitivityUnitsSequence[0].CodeValue for c in channels]
        return signal, names, units, float(group.SamplingFrequency)
    except PacxError:
        raise
    except Exception as error:  # pydicom raises many kinds for broken headers
        raise PacxError(f"{path} is not a readable DICOM waveform: {error}.") from error


def _lead_name(name: str | None, path: Path) -> str:
    """The name used here of what a file calls "Lead I (Einthoven)", "MDC_ECG_LEAD_I" or "i"."""
    bare = re.sub(r"\(.*?\)|MDC_ECG_|LEAD", "", (name or "").upper()).strip(" _")
    if bare not in _CANONICAL:
        raise PacxError(
            f"{path}: {f'lead {name!r} is unknown' if name else 'a lead has no name'}; "
            f"known are {', '.join(LEADS_ECGFOUNDER)}."
        )
    return _CANONICAL[bare]


def _millivolts(unit: str, lead: str, path: Path) -> float:
    factor = MILLIVOLTS.get((unit or "").strip().lower())
    if factor is None:
        raise PacxError(f"{path}: lead {lead} is in {unit!r}; expected mV, uV or V.")
    return factor


def _check(signal: NDArray, hz: float, where: str) -> None:
    """The rate must be possible, and every record of (..., leads, T) hold a signal."""
    if not 10 <= hz <= 10_000:  # also false for NaN
        raise PacxError(f"{where}: a rate of {hz} Hz is impossible; expected 10 to 10,000 Hz.")
    if signal.ndim < 2 or signal.size == 0:
        raise PacxError(f"{where}: the ECG is empty, its shape is {signal.shape}.")
    records = signal.reshape(-1, signal.shape[-2] * signal.shape[-1])
    peak = np.fmax.reduce(np.abs(records), axis=1)  # fmax passes over NaN
    for what, bad in (("only NaN", np.isnan(peak)), ("only zeros", peak == 0)):
        if bad.any():
            record = f" record {int(bad.argmax())}" if len(records) > 1 else ""
            raise PacxError(f"{where}:{record} holds {what}; leave this ECG out.")
