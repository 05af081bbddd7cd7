from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import REAL
from tiny_ecg import DICOM, tagged, write_wfdb

from pacx.constants import LEADS_ECGFOUNDER, LEADS_MIMIC
from pacx.data.ecg import filter_ecg, preprocess, read_ecg, reorder, resample
from pacx.data.ecg_quality import FAULTS, check_limb_leads, lead_faults, too_few_leads
from pacx.errors import PacxError


def edit_header(record, old, new) -> Path:
    header = record.with_suffix(".hea")
    header.write_text(header.read_text().replace(old, new))
    return record


def write_invalid(folder) -> Path:
    """Every sample is the code that WFDB's format 16 keeps for "invalid"."""
    record = write_wfdb(folder, tagged(), LEADS_MIMIC)
    np.full(12 * 1000, -32768, "<i2").tofile(record.with_suffix(".dat"))
    return record


def test_real_dicom():
    ecg = read_ecg(DICOM)
    assert ecg.signal.shape == (12, 10_000)
    assert ecg.hz == 1000
    assert ecg.leads == LEADS_ECGFOUNDER
    assert 0.2 < np.abs(ecg.signal).max() < 5  # mV, not the file's uV
    check_limb_leads(ecg.signal, ecg.leads, tolerance=0.005)
    mimic = read_ecg(DICOM, LEADS_MIMIC)
    np.testing.assert_array_equal(mimic.signal[4], ecg.signal[5])
    with pytest.raises(PacxError, match="aV"):
        check_limb_leads(ecg.signal, LEADS_MIMIC)  # the right rows under the wrong names


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_a_lead_of_nan_does_not_hide_swapped_leads():
    first, second = np.random.default_rng(0).normal(size=(2, 3, 500))
    good = np.stack(
        [first, second, second - first, -(first + second) / 2, first - second / 2,
         second - first / 2, *[first] * 6], axis=1,
    )  # fmt: skip
    check_limb_leads(good, LEADS_ECGFOUNDER)
    good[0, 4, :100] = np.nan  # a part may be missing
    good[1, 8] = np.nan
    check_limb_leads(good, LEADS_ECGFOUNDER)
    for row, lead in ((0, "I"), (4, "aVL")):
        swapped = good.copy()
        swapped[1, [4, 5]] = swapped[1, [5, 4]]
        swapped[2, row] = np.nan
        with pytest.raises(PacxError, match=f"Lead {lead} holds only NaN"):
            check_limb_leads(swapped, LEADS_ECGFOUNDER)
    good[0, 0, :250], good[0, 4, :250], good[0, 4, 250:] = np.nan, 1, np.nan
    with pytest.raises(PacxError, match="deviates by nan"):
        check_limb_leads(good, LEADS_ECGFOUNDER)
    with pytest.raises(PacxError, match="aVF is missing"):
        check_limb_leads(good[:, :5], LEADS_ECGFOUNDER[:5])


@pytest.mark.real
def test_real_wfdb_records():
    records = sorted((REAL / "ecg").glob("*.hea"))
    if not records:
        pytest.skip(f"no real recordings in {REAL} (set PACX_REAL)")
    for path in records:
        ecg = read_ecg(path)
        assert ecg.signal.shape == (12, 5000)
        assert ecg.hz == 500
        check_limb_leads(ecg.signal, ecg.leads)
        clean = preprocess(ecg.signal, ecg.hz)
        assert clean.std() == pytest.approx(1, abs=1e-6)


BEAT = np.sin(np.arange(1000) / 7) ** 9 + np.sin(np.arange(1000) / 301)
#: What happens to one lead at 100 Hz, and what is said of it.
SPOILT = {
    "whole": (lambda x: x, "whole"),
    "constant": (lambda x: 0 * x + 0.3, "flat"),
    "zeros": (lambda x: 0 * x, "flat"),
    "off for a second": (lambda x: np.where(np.arange(1000) // 100 == 4, 0.2, x), "flat"),
    "off for half a second": (lambda x: np.where(np.arange(1000) // 50 == 4, 0.2, x), "whole"),
    "clipped at the top": (lambda x: np.minimum(x, 0.6), "clipped"),
    "clipped at the bottom": (lambda x: np.maximum(x, -0.6), "clipped"),
    "mostly missing": (lambda x: np.where(np.arange(1000) < 501, np.nan, x), "missing"),
    "partly missing": (lambda x: np.where(np.arange(1000) < 300, np.nan, x), "whole"),
    "all missing": (lambda x: x * np.nan, "missing"),
    "low": (lambda x: x / 50, "whole"),
    "in counts": (lambda x: np.round(1000 * x), "whole"),
}


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_faults_of_leads(name, dtype):
    spoil, fault = SPOILT[name]
    signal = np.stack([BEAT] * 12).astype(dtype)
    signal[7] = spoil(signal[7])
    faults = lead_faults(np.stack([signal, signal]), 100)
    assert [FAULTS[code] for code in faults[1]] == ["whole"] * 7 + [fault] + ["whole"] * 4
    assert not too_few_leads(faults).any()
    signal[:6] = signal[7]
    assert too_few_leads(lead_faults(signal, 100)) == (fault in ("flat", "missing"))


@pytest.mark.real
def test_faults_of_real_leads():
    records = sorted((REAL / "ecg").glob("*.hea"))
    if not records:
        pytest.skip(f"no real recordings in {REAL} (set PACX_REAL)")
    found = {}
    for path in records:
        ecg = read_ecg(path)
        faults = lead_faults(ecg.signal, ecg.hz)
        found |= {path.stem: [ecg.leads[i] for i in faults.nonzero()[0]]} if faults.any() else {}
    # Two of Chapman-Shaoxing's; seen by eye: zeros all along.
    assert found == {"JS20004": ["V2", "V4", "V6"], "JS20008": ["V2", "V4", "V6"]}


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_wfdb_leads_are_ordered_by_name(tmp_path, suffix):
    path = write_wfdb(tmp_path, tagged(), LEADS_MIMIC)
    ecg = read_ecg(f"{path}{suffix}")
    assert np.abs(ecg.signal).max(axis=1) == pytest.approx(np.arange(1, 13), rel=0.01)
    assert read_ecg(path, LEADS_MIMIC).leads == LEADS_MIMIC


def test_names_are_read_whatever_their_case_and_units_converted(tmp_path):
    names = [lead.upper() for lead in LEADS_MIMIC]
    ecg = read_ecg(write_wfdb(tmp_path, 1000 * tagged(), names, units="uV"))
    assert np.abs(ecg.signal).max(axis=1) == pytest.approx(np.arange(1, 13), rel=0.01)


def test_reorder_swaps_only_what_differs():
    batch = np.stack([tagged(), 2 * tagged()])
    ordered = reorder(batch, LEADS_MIMIC, LEADS_ECGFOUNDER)
    expected = tagged(LEADS_ECGFOUNDER)
    np.testing.assert_array_equal(ordered, np.stack([expected, 2 * expected]))
    assert (ordered != batch).any(axis=(0, 2)).nonzero()[0].tolist() == [4, 5]


def dicom_copy(path, change) -> Path:
    dataset = pydicom.dcmread(DICOM)
    change(dataset)
    dataset.save_as(path)
    return path


def unname(dataset):
    channel = dataset.WaveformSequence[0].ChannelDefinitionSequence[3]
    channel.ChannelSourceSequence[0].CodeMeaning = ""


def uncalibrate(dataset, sensitivity):
    for channel in dataset.WaveformSequence[0].ChannelDefinitionSequence:
        channel.ChannelSensitivity = sensitivity


def slow_down(dataset):
    for group in dataset.WaveformSequence:
        group.SamplingFrequency = -1000


BAD_FILES = {
    "missing": (lambda f: f / "nowhere", "no ECG at"),
    "missing_signal": (
        lambda f: (write_wfdb(f, tagged(), LEADS_MIMIC), (f / "record.dat").unlink())[0],
        "record.dat is missing",
    ),
    "eleven_leads": (lambda f: write_wfdb(f, tagged()[:11], LEADS_MIMIC[:11]), "V6 is missing"),
    "duplicate": (
        lambda f: edit_header(write_wfdb(f, tagged(), LEADS_MIMIC), " III\n", " II\n"),
        "II occurs twice",
    ),
    "unknown": (lambda f: write_wfdb(f, tagged(), (*LEADS_MIMIC[:11], "V9")), "'V9' is unknown"),
    "unit": (lambda f: write_wfdb(f, tagged(), LEADS_MIMIC, units="mmHg"), "mmHg"),
    "zeros": (lambda f: write_wfdb(f, 0 * tagged(), LEADS_MIMIC), "only zeros"),
    "nan": (write_invalid, "only NaN"),
    "rate": (lambda f: write_wfdb(f, tagged(), LEADS_MIMIC, hz=1), "1 Hz is impossible"),
    "unnamed_dicom": (lambda f: dicom_copy(f / "x.dcm", unname), "no name"),
    "volts_as_mv": (
        lambda f: write_wfdb(f, tagged() / 1e5, LEADS_MIMIC), "highest value is 0.00012 mV",
    ),
    "microvolts_as_mv": (
        lambda f: write_wfdb(f, tagged() * 1000, LEADS_MIMIC), r"highest value is 1.2e\+04 mV",
    ),
    "uncalibrated_dicom": (
        lambda f: dicom_copy(f / "x.dcm", lambda d: uncalibrate(d, None)), "no ChannelSensitivity",
    ),
    "zero_sensitivity": (
        lambda f: dicom_copy(f / "x.dcm", lambda d: uncalibrate(d, 0)), "no ChannelSensitivity",
    ),
    "negative_rate_dicom": (lambda f: dicom_copy(f / "x.dcm", slow_down), "-1000.0 Hz is impos"),
    "no_waveform": (
        lambda f: dicom_copy(f / "x.dcm", lambda d: d.pop("WaveformSequence")), "no waveform",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_one_clear_error(tmp_path, case):
    make, message = BAD_FILES[case]
    path = make(tmp_path)
    with pytest.raises(PacxError, match=message) as caught:
        read_ecg(path)
    assert str(tmp_path) in str(caught.value)


def test_broken_and_hostile_headers(tmp_path):
    (tmp_path / "text.hea").write_text("this is not a header\n")
    with pytest.raises(PacxError, match=r"text\.hea states no sampling rate"):
        read_ecg(tmp_path / "text")
    path = write_wfdb(tmp_path, tagged(), LEADS_MIMIC)
    edit_header(path, "record.dat", "../record.dat")  # out of the record's folder
    with pytest.raises(PacxError, match="not a readable WFDB record"):
        read_ecg(path)


@pytest.mark.parametrize(
    ("signal", "hz", "message"),
    [
        (np.zeros((12, 5000)), 500, "only zeros"),
        (np.full((12, 5000), np.nan), 500, "only NaN"),
        (np.zeros((12, 0)), 500, "empty"),
        (np.stack([tagged(), 0 * tagged()]), 100, "record 1 holds only zeros"),
        (tagged()[:, :20], 100, "20 samples"),
        (tagged(), 0, "impossible"),
        (tagged(), float("nan"), "impossible"),
        (tagged(), 1e6, "impossible"),
    ],
)
def test_unusable_signals_are_refused(signal, hz, message):
    with pytest.raises(PacxError, match=message):
        preprocess(signal, hz)


@pytest.mark.parametrize("hz", [50, 80, 100, 128, 250, 500, 1000])
def test_every_rate_keeps_the_heartbeat_and_drops_wander(hz):
    t = np.arange(10 * hz) / hz
    beat = np.tile(np.sin(2 * np.pi * 8 * t), (12, 1))
    wander = 3 * np.sin(2 * np.pi * 0.1 * t)
    clean = filter_ecg(beat + wander, hz)[:, 2 * hz : 8 * hz]
    assert np.corrcoef(clean[0], beat[0, 2 * hz : 8 * hz])[0, 1] > 0.98
    if hz > 100:
        hum = filter_ecg(np.tile(np.sin(2 * np.pi * 50 * t), (12, 1)), hz)[:, 2 * hz : 8 * hz]
        assert np.abs(hum).max() < 0.05


def test_records_are_independent_of_each_other():
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(3, 12, 1000)) * np.array([1, 10, 100])[:, None, None]
    together = preprocess(batch, 100)
    for record, clean in zip(batch, together, strict=True):
        np.testing.assert_allclose(preprocess(record, 100), clean, atol=1e-9)
    assert preprocess(batch.astype(np.float32), 100).dtype == np.float32


def test_resampling_keeps_the_wave_and_its_offset():
    t = np.arange(5000) / 500
    signal = np.tile(2 + np.sin(2 * np.pi * 5 * t), (12, 1)).astype(np.float32)
    low = resample(signal, 500, 100)
    assert low.shape == (12, 1000)
    assert low.dtype == np.float32
    np.testing.assert_allclose(low[:, 20:-20], signal[:, ::5][:, 20:-20], atol=0.01)
    assert np.abs(low - signal[:, ::5]).max() < 0.2  # no step at the ends
    np.testing.assert_array_equal(resample(signal, 500, 500), signal)
