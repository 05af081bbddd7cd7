"""Leads of an ECG that hold no whole signal, or another one than their name says."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pacx.data.ecg import reorder
from pacx.errors import PacxError

#: What `lead_faults` may say of a lead; 0 is nothing.
FAULTS = ("whole", "missing", "flat", "clipped")
TOO_MANY = 6  # missing or flat leads: half of the heart's views are gone


def lead_faults(signal: NDArray, hz: float) -> NDArray[np.uint8]:
    """Say which leads hold no whole signal, whatever its unit.

    `missing`: more than half of the samples are NaN. `flat`: one value for a second or longer, in
    which a heart beats. `clipped`: more than 1 % of the samples at the lead's highest value, or at
    its lowest. The features are "flat baseline" and "saturation" of Langley et al. 2011 (Computing
    in Cardiology 38:281-284, for the PhysioNet Challenge on the quality of ECGs). The limits are
    ours: of 40 records of the PhysioNet Challenge 2021 two have dead leads, all others stay below
    0.4 s and 0.4 %.

    Args:
        signal: (..., T), as recorded (before filters).
        hz: Sampling rate.

    Returns:
        (...) index into `FAULTS`.
    """
    high = np.fmax.reduce(signal, axis=-1)[..., None]
    low = np.fmin.reduce(signal, axis=-1)[..., None]
    at_end = np.maximum((signal == high).mean(axis=-1), (signal == low).mean(axis=-1))
    rest = np.apply_along_axis(_longest_rest, -1, np.diff(signal, axis=-1) != 0)
    faults = np.zeros(signal.shape[:-1], np.uint8)
    faults[at_end > 0.01] = FAULTS.index("clipped")
    faults[rest >= hz] = FAULTS.index("flat")
    faults[np.isnan(signal).mean(axis=-1) > 0.5] = FAULTS.index("missing")
    return faults


def too_few_leads(faults: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether six leads or more of records (..., 12) are missing or flat."""
    gone = (faults == FAULTS.index("missing")) | (faults == FAULTS.index("flat"))
    return gone.sum(axis=-1) >= TOO_MANY


def check_limb_leads(signal: NDArray, leads: Sequence[str], tolerance: float = 0.02) -> None:
    """Check the limb leads against each other, which finds swapped or misnamed rows.

    Two of the six limb leads determine the others: III = II - I (Einthoven), aVR = -(I + II) / 2,
    aVL = I - II / 2, aVF = II - I / 2 (Goldberger).

    Args:
        signal: (..., 12, T), mV, as recorded (before filters or scaling).
        leads: Names of the rows.
        tolerance: Largest accepted mean absolute deviation of a record, mV.

    Raises:
        PacxError: A lead deviates more, or a limb lead is missing or holds only NaN.
    """
    limb = ("I", "II", "III", "aVR", "aVL", "aVF")
    recorded = np.moveaxis(reorder(signal, leads, limb), -2, 0)
    for lead, values in zip(limb, recorded, strict=True):
        if np.isnan(values).all(axis=-1).any():
            raise PacxError(f"Lead {lead} holds only NaN; leave this ECG out.")
    lead_1, lead_2 = recorded[:2]
    implied = lead_2 - lead_1, -(lead_1 + lead_2) / 2, lead_1 - lead_2 / 2, lead_2 - lead_1 / 2
    for lead, values, expected in zip(limb[2:], recorded[2:], implied, strict=True):
        deviation = float(np.nanmean(np.abs(values - expected), axis=-1).max())
        if not deviation <= tolerance:  # also true for NaN
            raise PacxError(
                f"Lead {lead} deviates by {deviation:.3f} mV from what leads I and II imply "
                f"(accepted: {tolerance} mV): rows are swapped or misnamed. Check the lead names."
            )


def _longest_rest(changes: NDArray[np.bool_]) -> int:
    """Samples that one value lasts at most, from (T - 1,) whether the next one differs."""
    return int(np.diff(np.flatnonzero(changes), prepend=-1, append=len(changes)).max())
