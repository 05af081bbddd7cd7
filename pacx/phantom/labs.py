"""Blood tests of phantom patients: 50 labs in 11 panels, ordered more often in sicker patients."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from pacx.constants import LABS
from pacx.phantom.state import STATES


class Panel(NamedTuple):
    """Tests ordered together: P(ordered) = sigmoid(intercept + sum(weight * state))."""

    labs: tuple[str, ...]
    intercept: float
    sickness: dict[str, float]


class Analyte(NamedTuple):
    """A measured substance: centre + spread * z, or floor + centre * exp(spread * z) where `log`.

    z = sum(weight * state) + 0.35 * panel factor + rest, about N(0, 1).
    """

    centre: float
    spread: float
    weights: dict[str, float]
    log: bool = False
    floor: float = 0.0


PANELS: dict[str, Panel] = {
    "blood count": Panel(
        ("Hematocrit", "Hemoglobin", "MCH", "MCHC", "MCV", "Platelet Count", "RDW",
         "Red Blood Cells", "White Blood Cells"), 3.2, {"inflammation": 0.5, "anaemia": 0.5},
    ),
    "differential": Panel(
        ("Basophils", "Eosinophils", "Lymphocytes", "Monocytes", "Neutrophils"),
        0.2, {"inflammation": 0.8},
    ),
    "absolute counts": Panel(
        ("Absolute Lymphocyte Count", "Absolute Basophil Count", "Absolute Eosinophil Count",
         "Absolute Monocyte Count", "Absolute Neutrophil Count", "Immature Granulocytes", "RDW-SD"),
        -0.7, {"inflammation": 0.8},
    ),
    "metabolic": Panel(
        ("Anion Gap", "Bicarbonate", "Chloride", "Creatinine", "Glucose", "Potassium", "Sodium",
         "Urea Nitrogen"), 3.4, {"renal": 0.6, "fluid": 0.4},
    ),
    "minerals": Panel(
        ("Calcium, Total", "Magnesium", "Phosphate"), 1.6, {"renal": 0.6, "fluid": 0.4}
    ),
    "coagulation": Panel(("INR(PT)", "PT", "PTT"), 0.9, {"atrial_load": 0.6, "fluid": 0.2}),
    "liver": Panel(
        ("ALT", "AST", "Alkaline Phosphatase", "Bilirubin, Total"), 0.3,
        {"inflammation": 0.5, "fluid": 0.3},
    ),
    "nutrition": Panel(("Albumin",), -0.2, {"inflammation": 0.5, "anaemia": 0.4}),
    "blood gas": Panel(
        ("Base Excess", "Calculated Total CO2", "Lactate", "pCO2", "pH", "pO2"), -0.7,
        {"copd": 0.8, "inflammation": 0.4, "fluid": 0.3},
    ),
    "muscle": Panel(("Creatine Kinase",), -0.9, {"dilation": 0.6, "hypertrophy": 0.3}),
    "serum indices": Panel(("H", "I", "L"), -0.6, {"fluid": 0.3}),
}  # fmt: skip

#: Substances drawn from the states; the labs that follow from them are computed in `_derived`.
ANALYTES: dict[str, Analyte] = {
    "Hemoglobin": Analyte(12.0, 2.1, {"anaemia": -0.85, "fluid": -0.15}),
    "MCV": Analyte(90.0, 5.5, {"anaemia": -0.2}),
    "MCHC": Analyte(33.0, 1.2, {"anaemia": -0.3}),
    "RDW": Analyte(3.0, 0.5, {"anaemia": 0.6, "inflammation": 0.2}, log=True, floor=11.2),
    "Platelet Count": Analyte(220.0, 0.38, {"inflammation": 0.35}, log=True),
    "White Blood Cells": Analyte(8.6, 0.38, {"inflammation": 0.8}, log=True),
    "neutrophil odds": Analyte(2.6, 0.55, {"inflammation": 0.75}, log=True),
    "monocyte share": Analyte(0.075, 0.35, {"inflammation": 0.2}, log=True),
    "eosinophil share": Analyte(0.017, 0.75, {"inflammation": -0.4, "copd": 0.3}, log=True),
    "basophil share": Analyte(0.004, 0.5, {}, log=True),
    "Immature Granulocytes": Analyte(0.45, 0.6, {"inflammation": 0.75}, log=True),
    "Sodium": Analyte(138.5, 3.8, {"fluid": -0.5}),
    "Potassium": Analyte(4.2, 0.55, {"potassium": 0.85}),
    "Bicarbonate": Analyte(25.0, 3.4, {"renal": -0.55, "copd": 0.55}),
    "Anion Gap": Analyte(14.0, 2.8, {"renal": 0.5, "inflammation": 0.35}),
    "Creatinine": Analyte(1.05, 0.52, {"renal": 0.9}, log=True),
    "Urea Nitrogen": Analyte(19.0, 0.55, {"renal": 0.75, "fluid": 0.25}, log=True),
    "Glucose": Analyte(118.0, 0.28, {"bmi": 0.5, "inflammation": 0.25}, log=True),
    "Calcium, Total": Analyte(8.8, 0.6, {"renal": -0.4, "inflammation": -0.3}),
    "Magnesium": Analyte(2.0, 0.28, {"renal": 0.5}),
    "Phosphate": Analyte(3.5, 0.27, {"renal": 0.6, "potassium": 0.25}, log=True),
    "INR(PT)": Analyte(0.27, 0.75, {"atrial_load": 0.55, "fluid": 0.3}, log=True, floor=0.88),
    "PTT": Analyte(9.0, 0.6, {"atrial_load": 0.4}, log=True, floor=21.0),
    "ALT": Analyte(24.0, 0.7, {"fluid": 0.35, "inflammation": 0.3}, log=True),
    "AST": Analyte(28.0, 0.65, {"fluid": 0.4, "inflammation": 0.3}, log=True),
    "Alkaline Phosphatase": Analyte(82.0, 0.4, {"fluid": 0.35, "renal": 0.3}, log=True),
    "Bilirubin, Total": Analyte(0.6, 0.6, {"fluid": 0.5}, log=True),
    "Albumin": Analyte(3.6, 0.58, {"inflammation": -0.55, "renal": -0.25, "fluid": -0.2}),
    "Lactate": Analyte(1.6, 0.45, {"inflammation": 0.5, "fluid": 0.3}, log=True),
    "pCO2": Analyte(41.0, 0.18, {"copd": 0.8, "inflammation": -0.2}, log=True),
    "pO2": Analyte(50.0, 0.55, {"copd": -0.4, "fluid": -0.35}, log=True, floor=35.0),
    "Creatine Kinase": Analyte(95.0, 0.85, {"dilation": 0.3, "hypertrophy": 0.25}, log=True),
    "H": Analyte(8.0, 0.9, {}, log=True),
    "I": Analyte(1.5, 0.6, {"fluid": 0.4}, log=True),
    "L": Analyte(9.0, 0.6, {"bmi": 0.5}, log=True),
}
PANEL_FACTOR = 0.35
PANEL_OF = {lab: name for name, panel in PANELS.items() for lab in panel.labs}


def draw_labs(patients: pd.DataFrame, seed: int) -> np.ndarray:
    """Draws the 50 blood tests of each patient.

    Args:
        patients: Rows of `pacx.phantom.state.sample_patients`.
        seed: Seed of the laboratory's noise and of what was ordered.

    Returns:
        `(N, 50)` float32 in the units of `LABS`, NaN = not ordered; every patient has at least
        one lab. Sicker patients have more panels: what is missing tells something.
    """
    rng = np.random.default_rng([seed, 31])
    n = len(patients)
    states = {name: patients[name].to_numpy(np.float64) for name in STATES}
    factor = {name: rng.standard_normal(n) for name in PANELS}
    substances = {}
    for name, analyte in ANALYTES.items():
        explained = sum((w * states[s] for s, w in analyte.weights.items()), np.zeros(n))
        shared = PANEL_FACTOR * factor[PANEL_OF.get(name, "differential")]
        known = sum(w * w for w in analyte.weights.values()) + PANEL_FACTOR**2
        z = explained + shared + np.sqrt(max(1 - known, 0.04)) * rng.standard_normal(n)
        z = np.clip(z, -3.5, 3.5)
        substances[name] = (
            analyte.floor + analyte.centre * np.exp(analyte.spread * z)
            if analyte.log
            else analyte.centre + analyte.spread * z
        )
    male = (patients["sex"] == "M").to_numpy()
    substances["Hemoglobin"] += np.where(male, 0.6, -0.6)
    substances["Creatinine"] *= np.where(male, 1.1, 0.88)
    values = _derived(substances, rng)
    table = np.stack([values[lab.name] for lab in LABS], axis=1).astype(np.float32)
    return np.where(_ordered(states, rng), table, np.float32(np.nan))


def _derived(a: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Adds the labs that follow from others: red cell indices, differential, electrolytes, gas."""
    noise = lambda sd: sd * rng.standard_normal(len(a["Sodium"]))  # noqa: E731
    v = dict(a)
    v["Hemoglobin"] = np.clip(a["Hemoglobin"], 4.5, 19.0)
    v["Hematocrit"] = 100 * v["Hemoglobin"] / a["MCHC"]
    v["Red Blood Cells"] = 10 * v["Hematocrit"] / a["MCV"]
    v["MCH"] = 10 * v["Hemoglobin"] / v["Red Blood Cells"]
    v["RDW-SD"] = a["RDW"] * a["MCV"] / 29.0 + noise(0.8)
    granulocytes = v["Immature Granulocytes"] / 100
    small = a["monocyte share"] + a["eosinophil share"] + a["basophil share"] + granulocytes
    rest = np.clip(1 - small, 0.3, 1)
    neutrophils = rest * a["neutrophil odds"] / (1 + a["neutrophil odds"])
    shares = {
        "Neutrophils": ("Absolute Neutrophil Count", neutrophils),
        "Lymphocytes": ("Absolute Lymphocyte Count", rest - neutrophils),
        "Monocytes": ("Absolute Monocyte Count", a["monocyte share"]),
        "Eosinophils": ("Absolute Eosinophil Count", a["eosinophil share"]),
        "Basophils": ("Absolute Basophil Count", a["basophil share"]),
    }
    for name, (absolute, share) in shares.items():
        v[name] = 100 * share
        v[absolute] = a["White Blood Cells"] * share
    # MIMIC's anion gap counts potassium
    v["Chloride"] = a["Sodium"] + a["Potassium"] - a["Bicarbonate"] - a["Anion Gap"]
    v["Chloride"] = v["Chloride"] + noise(0.7)
    v["PT"] = 11.2 * a["INR(PT)"] + noise(0.3)
    # Henderson-Hasselbalch; chronic CO2 retention is already part of the bicarbonate
    arterial = a["Bicarbonate"] + 0.25 * (a["pCO2"] - 41) + noise(0.8)
    v["pH"] = np.clip(6.1 + np.log10(np.clip(arterial, 5, None) / (0.0307 * a["pCO2"])), 6.95, 7.65)
    v["Calculated Total CO2"] = arterial + 0.0307 * a["pCO2"]
    v["Base Excess"] = 0.93 * (arterial - 24.4 + 14.8 * (v["pH"] - 7.4))
    return v


def _ordered(states: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Which labs were ordered, `(N, 50)` bool: whole panels, a lost result here and there."""
    n = len(states["age"])
    wish = {}
    for name, panel in PANELS.items():
        sickness = sum(weight * states[state] for state, weight in panel.sickness.items())
        wish[name] = panel.intercept + sickness - np.log(1 / rng.random(n) - 1)
    keenest = np.max(list(wish.values()), axis=0)
    lost = rng.random((n, len(LABS))) < 0.03
    ordered = np.empty((n, len(LABS)), bool)
    for column, lab in enumerate(LABS):
        panel = PANEL_OF[lab.name]
        first = PANELS[panel].labs[0] == lab.name
        certain = (wish[panel] == keenest) & first
        ordered[:, column] = certain | ((wish[panel] > 0) & ~lost[:, column])
    return ordered
