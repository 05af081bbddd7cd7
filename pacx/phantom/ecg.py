"""Twelve-lead ECGs of phantom patients: a beating dipole, nine electrodes, twelve leads."""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from pacx.constants import ECG_DIAGNOSES, LEADS_MIMIC

CHUNK = 64

#: Trait of the ECG -> (mean, sd, weights on the states, sd of its own noise in units of sd).
TRAITS: dict[str, tuple[float, float, dict[str, float], float]] = {
    "rate": (76.0, 13.0, {"inflammation": 0.45, "anaemia": 0.35, "fluid": 0.2}, 0.8),  # /min
    "fibrillation": (0.0, 1.0, {"atrial_load": 0.85}, 0.5),
    "p_height": (0.13, 0.025, {"atrial_load": 0.6}, 0.8),  # mV
    "pr": (0.160, 0.024, {"atrial_load": 0.35, "age": 0.25, "potassium": 0.2}, 0.85),  # s
    "qrs": (0.092, 0.012, {"conduction": 0.85, "dilation": 0.2}, 0.45),  # s
    "axis": (35.0, 26.0, {"hypertrophy": -0.35, "conduction": -0.3, "copd": 0.45}, 0.7),  # degrees
    "voltage": (  # log of the QRS's size
        0.0, 0.30,
        {"hypertrophy": 0.6, "dilation": 0.25, "bmi": -0.35, "copd": -0.3, "fluid": -0.15}, 0.6,
    ),
    "st": (0.0, 0.04, {"hypertrophy": -0.5, "dilation": -0.3}, 0.8),  # mV
    "t": (1.0, 0.42, {"hypertrophy": -0.55, "potassium": 0.55, "dilation": -0.3}, 0.5),
    "t_width": (1.0, 0.14, {"potassium": -0.6}, 0.8),
    "rotation": (0.0, 0.28, {"hypertrophy": 0.3, "copd": 0.4}, 0.8),  # rad, transition V1-V6
}  # fmt: skip


class Criterion(NamedTuple):
    """Coded where `trait` is above or below `limit`; with `sinus` not in fibrillation."""

    trait: str
    side: Literal["above", "below"]
    limit: float
    sinus: bool = False


#: SNOMED CT code of `ECG_DIAGNOSES` -> when it is coded; traits and units as in `TRAITS`.
CRITERIA: dict[str, Criterion] = {
    "164889003": Criterion("fibrillation", "above", 1.1),
    "426177001": Criterion("rate", "below", 60, sinus=True),
    "427084000": Criterion("rate", "above", 95, sinus=True),
    "270492004": Criterion("pr", "above", 0.188, sinus=True),
    "698252002": Criterion("qrs", "above", 0.108),
    "39732003": Criterion("axis", "below", 0),
    "164934002": Criterion("t", "below", 0.55),
    "251146004": Criterion("voltage", "below", -0.35),
}
FIBRILLATION = "164889003"

#: Directions of the nine electrodes seen from the heart: x left, y down, z to the back.
ELECTRODES = np.array(
    [
        [-1 / 3, -np.sqrt(3) / 9, 0], [2 / 3, -np.sqrt(3) / 9, 0], [1 / 6, np.sqrt(3) * 7 / 18, 0],
        [-0.45, 0.10, -1.0], [-0.05, 0.15, -1.25], [0.40, 0.25, -1.15],
        [0.85, 0.35, -0.75], [1.05, 0.30, -0.10], [1.00, 0.25, 0.35],
    ],
    np.float32,
)  # fmt: skip


def ecg_traits(patients: pd.DataFrame, seed: int) -> pd.DataFrame:
    """What an ECG's generator needs to know of a patient: each trait = states + own noise.

    Args:
        patients: Rows of `pacx.phantom.state.sample_patients`.
        seed: Seed of the traits' own noise.

    Returns:
        The columns of `TRAITS` (rate in beats/min, durations in s, axis in degrees, st in mV),
        within physiological limits; instead of `fibrillation`, `af` (bool), True in atrial
        fibrillation.
    """
    rng = np.random.default_rng([seed, 21])
    traits = {}
    for name, (mean, sd, weights, noise) in TRAITS.items():
        z = noise * rng.standard_normal(len(patients))
        for state, weight in weights.items():
            z = z + weight * patients[state].to_numpy()
        traits[name] = mean + sd * z
    table = pd.DataFrame(traits, index=patients.index)
    table["af"] = table.pop("fibrillation") > CRITERIA[FIBRILLATION].limit
    table["rate"] = (table["rate"] + 16 * table["af"]).clip(38, 150)
    table["p_height"] = table["p_height"].clip(0.03, 0.3)
    table["pr"] = table["pr"].clip(0.11, 0.30)
    table["qrs"] = table["qrs"].clip(0.07, 0.17)
    table["t_width"] = table["t_width"].clip(0.6, 1.5)
    return table


def diagnoses(patients: pd.DataFrame, seed: int) -> pd.DataFrame:
    """What a cardiologist would code from the same seed's ECG.

    Read off the generator's quantities by `CRITERIA`, never off a task's threshold.

    Args:
        patients: Rows of `pacx.phantom.state.sample_patients`.
        seed: The seed given to `render_ecgs`.

    Returns:
        Bool columns, the SNOMED CT codes of `ECG_DIAGNOSES`.
    """
    traits = ecg_traits(patients, seed)
    coded = {FIBRILLATION: traits["af"]}
    for code in [code for code in ECG_DIAGNOSES if code != FIBRILLATION]:
        trait, side, limit, sinus = CRITERIA[code]
        beyond = traits[trait] > limit if side == "above" else traits[trait] < limit
        coded[code] = beyond & ~(sinus & traits["af"])
    return pd.DataFrame(coded, index=patients.index)[list(ECG_DIAGNOSES)]


def render_ecgs(patients: pd.DataFrame, hz: int, seed: int) -> np.ndarray:
    """Renders one resting 12-lead ECG of ten seconds a patient.

    The noise sits on the nine electrodes and the leads are computed from them, so II = I + III
    and aVR + aVL + aVF = 0 hold up to rounding.

    Args:
        patients: Rows of `pacx.phantom.state.sample_patients`.
        hz: Samples a second.
        seed: Seed of traits, rhythm and noise; the same arguments give the same bytes.

    Returns:
        `(N, 12, T)` float32 in mV, leads in the order of `LEADS_MIMIC`.
    """
    traits = ecg_traits(patients, seed)
    samples = 10 * hz
    leads = np.empty((len(patients), 12, samples), np.float32)
    for number, start in enumerate(range(0, len(patients), CHUNK)):
        rows = slice(start, start + CHUNK)
        chunk = {
            name: column.to_numpy(np.float32)[:, None] for name, column in traits[rows].items()
        }
        leads[rows] = _record(chunk, hz, samples, np.random.default_rng([seed, 22, number]))
    return leads


def _record(t: dict[str, np.ndarray], hz: int, samples: int, rng: np.random.Generator):
    """Leads `(B, 12, T)` of a chunk; traits are `(B, 1)`."""
    time = np.arange(samples, dtype=np.float32) / hz
    since, until, interval = _beats(t, time, hz, rng)
    dipole = np.zeros((len(since), 3, samples), np.float32)
    for tau in (since, -until):  # every sample feels the beat before it and the beat after it
        for vector, centre, width in _waves(t, interval):
            z = (tau - centre) / width
            dipole += vector[:, :, None] * np.exp(-0.5 * z * z)[:, None]
    electrodes = ELECTRODES @ dipole
    electrodes += _fibrillation(t, time, rng)
    electrodes += _noise(time, hz, len(since), rng)
    right, left, foot = electrodes[:, 0], electrodes[:, 1], electrodes[:, 2]
    lead_1, lead_2 = left - right, foot - right
    central = (right + left + foot) / 3
    by_name = {
        "I": lead_1,
        "II": lead_2,
        "III": lead_2 - lead_1,
        "aVR": -(lead_1 + lead_2) / 2,
        "aVL": lead_1 - lead_2 / 2,
        "aVF": lead_2 - lead_1 / 2,
    }
    by_name |= {f"V{k}": electrodes[:, 2 + k] - central for k in range(1, 7)}
    return np.stack([by_name[name] for name in LEADS_MIMIC], axis=1)


def _beats(t, time, hz, rng):
    """Seconds since the last R peak, until the next one, and the interval between: `(B, T)`."""
    most = int(np.ceil(time[-1] * 150 / 60)) + 8
    mean = 60 / t["rate"]
    irregular = (0.02 + 0.16 * t["af"]) * rng.standard_normal((len(mean), most), np.float32)
    breathing = 0.02 * np.sin(np.arange(most) * 1.4 + 6.3 * rng.random((len(mean), 1)))
    interval = (mean * np.clip(1 + irregular + breathing, 0.55, 1.7)).astype(np.float32)
    peaks = np.cumsum(interval, axis=1) - interval[:, :1] * (1 + rng.random((len(mean), 1)))
    last = np.stack([np.searchsorted(row, time, side="right") - 1 for row in peaks])
    last = np.clip(last, 0, most - 2)
    before = np.take_along_axis(peaks, last, axis=1).astype(np.float32)
    after = np.take_along_axis(peaks, last + 1, axis=1).astype(np.float32)
    return time - before, after - time, mean.astype(np.float32)


def _waves(t, interval):
    """The waves of one beat: vector `(B, 3)` in mV, centre and width `(B, 1)` in s from R."""
    axis, turn, size = np.deg2rad(t["axis"]), t["rotation"], np.exp(t["voltage"])
    width = t["qrs"] / 6.5
    axis_x, axis_y = np.cos(axis), np.sin(axis)
    back = 0.55 + np.sin(turn)
    vector = lambda x, y, z: np.concatenate([x, y, z], axis=1).astype(np.float32)  # noqa: E731
    one = np.ones_like(axis)
    sinus = t["p_height"] * (1 - t["af"])
    qt = np.sqrt(interval)
    discordant = np.clip((t["qrs"] - 0.105) / 0.04, 0, 1)
    t_size = 0.28 * (t["t"] - 1.2 * discordant)
    slow = np.clip((t["qrs"] - 0.10) / 0.05, 0, 1) * size
    p_late = 0.35 + 0.5 * np.clip((t["p_height"] - 0.13) / 0.06, 0, 1)
    return (
        (sinus * vector(0.5 * one, 0.9 * one, -0.3 * one), 0.02 - t["pr"], 0.020 * one),
        (sinus * p_late * vector(0.8 * one, 0.6 * one, 0.9 * one), 0.055 - t["pr"], 0.022 * one),
        (size * vector(-0.16 * one, 0.02 * one, -0.30 * one), -1.5 * width, 0.8 * width),
        (1.05 * size * vector(axis_x, axis_y, 0.45 * back), 0 * one, width),
        (size * vector(-0.14 * one, -0.18 * one, 0.62 * back), 1.5 * width, width),
        (0.5 * slow * vector(axis_x, 0.6 * axis_y, 0.8 * one), 2.6 * width, 1.3 * width),
        (vector(t["st"], t["st"] * 0.8, -0.4 * t["st"]), 0.13 + 0 * one, 0.06 * one),
        (t_size * vector(0.8 * one, 0.75 * one, -0.35 * one), 0.29 * qt, 0.045 * t["t_width"] * qt),
    )


def _fibrillation(t, time, rng):
    """Fibrillatory waves on the electrodes `(B, 9, T)`: 5-8 Hz, strongest in V1."""
    b = len(t["rate"])
    hz, phase = 5 + 3 * rng.random((b, 1)), 6.28 * rng.random((b, 1))
    wave = np.sin(6.2832 * hz * time + 1.5 * np.sin(1.9 * time + phase) + phase)
    wave = (0.05 * t["af"] * wave).astype(np.float32)
    strength = np.array([-0.3, -0.2, 0.9, 1.4, 0.9, 0.5, 0.3, 0.2, 0.2], np.float32)
    return strength[None, :, None] * wave[:, None]


def _noise(time, hz, b, rng):
    """Wander, muscle noise and 60 Hz mains hum on each electrode `(B, 9, T)`, mV."""
    knots = max(4, int(time[-1] / 1.6) + 4)
    place = time / time[-1] * (knots - 3) + 1
    weights = np.exp(-((place[None] - np.arange(knots, dtype=np.float32)[:, None]) ** 2) / 0.9)
    size = lambda median: np.exp(  # noqa: E731
        np.log(median) + 0.5 * rng.standard_normal((b, 1, 1), np.float32)
    )
    wander = size(0.045) * (rng.standard_normal((b, 9, knots), np.float32) @ weights)
    muscle = size(0.010) * rng.standard_normal((b, 9, len(time)), np.float32)
    hum = np.sin(6.2832 * 60.0 * time + 6.28 * rng.random((b, 1, 1), np.float32))
    gain = size(0.006) * rng.standard_normal((b, 9, 1), np.float32)
    return wander + muscle + gain * hum.astype(np.float32)
