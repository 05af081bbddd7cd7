"""Who the phantom patients are: a linear structural causal model, and the labels it implies.

Every latent state is roughly standard normal. `EQUATIONS` is the only place where causes are
written down: it samples patients, and chapter 01 draws and prints it.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from pacx.constants import ANATOMY_TASKS, PHYSIOLOGY_TASKS


class Equation(NamedTuple):
    """One state: what it stands for, its direct causes with their weights, its noise's sd."""

    meaning: str
    parents: dict[str, float]
    noise: float


#: Structural equations in causal order: state = sum(weight * parent) + noise * N(0, 1).
EQUATIONS: dict[str, Equation] = {
    "age": Equation("age", {}, 1.0),
    "bmi": Equation("body mass index", {}, 1.0),
    "hypertension": Equation("long-standing high blood pressure", {"age": 0.45, "bmi": 0.3}, 0.84),
    "hypertrophy": Equation(
        "thickness of the left ventricle's wall", {"hypertension": 0.6, "age": 0.1}, 0.76
    ),
    "renal": Equation("loss of kidney function", {"hypertension": 0.35, "age": 0.3}, 0.83),
    "dilation": Equation(
        "size of the left ventricle's cavity", {"hypertrophy": 0.45, "age": 0.1}, 0.87
    ),
    "copd": Equation("chronic obstructive lung disease", {"age": 0.3, "bmi": -0.15}, 0.94),
    "atrial_load": Equation("stretch of the left atrium", {"age": 0.35, "dilation": 0.4}, 0.81),
    "fluid": Equation("fluid overload", {"dilation": 0.45, "renal": 0.4, "atrial_load": 0.12}, 0.7),
    "anaemia": Equation("lack of red blood cells", {"renal": 0.45, "age": 0.1}, 0.87),
    "inflammation": Equation("infection and inflammation", {"copd": 0.15}, 0.98),
    "potassium": Equation("serum potassium", {"renal": 0.55}, 0.83),
    "conduction": Equation("delay of conduction in the ventricles", {"dilation": 0.4}, 0.91),
}
STATES = tuple(EQUATIONS)

#: Task -> the state it is read from.
TASK_STATES = {
    "hypertrophy": "hypertrophy",
    "dilation": "dilation",
    "congestion": "fluid",
    "kidney_disease": "renal",
    "obstructive_lung_disease": "copd",
    "anaemia": "anaemia",
    "inflammation": "inflammation",
}
TASK_PREVALENCE = 0.19
TASK_NOISE = 0.35
ROTATION_THRESHOLD = 1.3


class Phenotype(NamedTuple):
    """A label = sum(weight * column) + N(0, noise), over a threshold; see `over_threshold`.

    `prevalence` is what comes out where all columns are states. Facts with weights below 3 come on
    top: more patients have the label than that. Facts with weights of 3 or more decide alone, and
    `prevalence` is then a note of how many patients have one of them, which nothing reads.
    """

    prevalence: float
    weights: dict[str, float]


#: What the picture shows besides the states -> share of the patients, and how much more often in
#: sicker ones (weights in a probit). Sicker patients lie down for their X-ray and carry devices: a
#: shortcut that a probe can fall for.
FACTS: dict[str, tuple[float, dict[str, float]]] = {
    "pacemaker": (0.18, {"atrial_load": 0.4, "age": 0.2}),  # not conduction: no picture shows it
    "tube": (0.20, {"inflammation": 0.4, "fluid": 0.3}),
    "pneumothorax": (0.18, {}),
    "ap_view": (0.50, {"fluid": 0.5, "inflammation": 0.3}),
}

#: Name in the equations of findings and in the picture -> class of ChestX6.
PATTERNS = {
    "ground_glass": "Covid-19",
    "emphysema": "Emphysema",
    "lobar": "Pneumonia-Bacterial",
    "interstitial": "Pneumonia-Viral",
    "cavity": "Tuberculosis",
}

#: States that change from one day to the next.
ACUTE = ("fluid", "inflammation", "potassium", "anaemia")


def sample_patients(n: int, seed: int, confounding: float = 1.0) -> pd.DataFrame:
    """Draws patients from the causal model.

    Args:
        n: Number of patients.
        seed: The same arguments give the same patients.
        confounding: How much view and devices depend on the states; 0 = not at all.

    Returns:
        One row a patient: the states of `EQUATIONS` (about N(0, 1)); `sex` ("F", "M"),
        `age_years` (18-90), `bmi_value` (kg/m2); and what only the picture shows: `rotation`
        (about N(0, 1), sign = direction), `pacemaker`, `tube`, `pneumothorax`, `ap_view` (bool).
    """
    rng = np.random.default_rng([seed, 1])
    states: dict[str, np.ndarray] = {}
    for name, equation in EQUATIONS.items():
        value = equation.noise * rng.standard_normal(n)
        for parent, weight in equation.parents.items():
            value = value + weight * states[parent]
        states[name] = value
    patients = pd.DataFrame(states).astype(np.float32)
    patients["sex"] = np.where(rng.random(n) < 0.47, "F", "M")
    patients["age_years"] = np.clip(np.rint(58 + 16 * states["age"]), 18, 90).astype(int)
    patients["bmi_value"] = np.round(27.5 * np.exp(0.2 * states["bmi"]), 1)
    patients["rotation"] = rng.standard_normal(n).astype(np.float32)
    for fact, (share, weights) in FACTS.items():
        score, spread = _score(patients, {s: confounding * w for s, w in weights.items()})
        patients[fact] = rng.random(n) < norm.cdf(norm.ppf(share) * np.hypot(1, spread) + score)
    return patients


def move_on(
    patients: pd.DataFrame, days: np.ndarray, drift: float, rng: np.random.Generator
) -> pd.DataFrame:
    """The same patients some days later: acute states keep exp(-drift * days), the rest is new.

    Args:
        patients: Rows of `sample_patients`.
        days: (N,) since then.
        drift: Per day; 0 = nothing changes.
        rng: Draws what is new.
    """
    kept = np.exp(-drift * days)
    fresh = {s: rng.standard_normal(len(patients)) * np.sqrt(1 - kept**2) for s in ACUTE}
    moved = {s: (kept * patients[s] + fresh[s]).astype(np.float32) for s in ACUTE}
    return patients.assign(**moved)


def residual_states(states: pd.DataFrame) -> pd.DataFrame:
    """What of each state the other states do not predict, in units of its standard deviation.

    Exact for `EQUATIONS`: with the precision matrix P, what is left of state k is (P x)_k / P_kk,
    of variance 1 / P_kk.

    Args:
        states: (N, S) columns `STATES`.
    """
    precision = np.linalg.inv(state_covariance().to_numpy())
    values = states[list(STATES)].to_numpy() @ precision / np.sqrt(np.diag(precision))
    return pd.DataFrame(values, index=states.index, columns=STATES)


def task_labels(patients: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Downstream labels: state + N(0, 0.35) over a fixed threshold, or a fact of the picture.

    Args:
        patients: Rows of `sample_patients`.
        seed: Seed of the labels' noise.

    Returns:
        0/1 (int) columns `PHYSIOLOGY_TASKS` + `ANATOMY_TASKS`, the patients' index.
    """
    rng = np.random.default_rng([seed, 2])
    tasks = {
        task: over_threshold(
            patients, Phenotype(TASK_PREVALENCE, {TASK_STATES[task]: 1.0}), TASK_NOISE, rng
        )
        for task in PHYSIOLOGY_TASKS
    }
    facts = {
        "pacemaker": patients["pacemaker"],
        "tube": patients["tube"],
        "rotation": patients["rotation"].abs() > ROTATION_THRESHOLD,
        "pneumothorax": patients["pneumothorax"],
    }
    tasks |= {task: facts[task] for task in ANATOMY_TASKS}
    return pd.DataFrame(tasks, index=patients.index).astype(int)


def echo_labels(patients: pd.DataFrame, seed: int) -> pd.DataFrame:
    """CheXchoNet's echocardiogram: wall and cavity in cm, and the labels read off them.

    Returns:
        `ivsd` (septum), `lvpwd` (posterior wall), `lvidd` (cavity), all cm in diastole; `slvh`,
        `dlv`, `composite_slvh_dlv` (0/1).
    """
    rng = np.random.default_rng([seed, 5])
    n = len(patients)
    wall = patients["hypertrophy"].to_numpy() + TASK_NOISE * rng.standard_normal(n)
    cavity = patients["dilation"].to_numpy() + TASK_NOISE * rng.standard_normal(n)
    male = (patients["sex"] == "M").to_numpy()
    slvh, dlv = wall > 1.2, cavity > 1.3
    return pd.DataFrame(
        {
            "ivsd": np.round(1.02 + 0.17 * wall + 0.05 * male, 2),
            "lvpwd": np.round(0.98 + 0.16 * wall + 0.05 * male, 2),
            "lvidd": np.round(4.4 + 0.6 * cavity + 0.35 * male, 2),
            "slvh": slvh.astype(int),
            "dlv": dlv.astype(int),
            "composite_slvh_dlv": (slvh | dlv).astype(int),
        },
        index=patients.index,
    )


def state_covariance() -> pd.DataFrame:
    """Covariance of the states that `EQUATIONS` implies: (I - B)^-1 D (I - B)^-T."""
    weights = pd.DataFrame(0.0, index=STATES, columns=STATES)
    for name, equation in EQUATIONS.items():
        for parent, weight in equation.parents.items():
            weights.loc[name, parent] = weight
    total = np.linalg.inv(np.eye(len(STATES)) - weights.to_numpy())
    noise = np.diag([equation.noise**2 for equation in EQUATIONS.values()])
    return pd.DataFrame(total @ noise @ total.T, index=STATES, columns=STATES)


def over_threshold(
    patients: pd.DataFrame, label: Phenotype, noise: float, rng: np.random.Generator
) -> np.ndarray:
    """Where score + noise passes a threshold fixed by the model, not by these patients.

    The threshold leaves `label.prevalence` of a population over it by its states and noise; facts
    do not count there, so that a fact with a positive weight below 3 raises the share. With
    weights of 3 or more a fact decides alone: the share is then that of patients with any of them.
    """
    score, spread = _score(patients, label.weights)
    facts = [weight for name, weight in label.weights.items() if name not in STATES]
    if facts and min(facts) >= 3:  # a fact that decides alone: half-way is the threshold
        threshold = min(facts) / 2
    else:
        threshold = np.hypot(spread, noise) * norm.ppf(1 - label.prevalence)
    return score + noise * rng.standard_normal(len(patients)) > threshold


def _score(patients: pd.DataFrame, weights: dict[str, float]) -> tuple[np.ndarray, float]:
    """Weighted sum (N,) of columns, and the standard deviation that its states give it."""
    values = pd.Series(weights, dtype=float)
    score = (patients[list(values.index)].astype(float) * values).sum(axis=1).to_numpy()
    states = values[values.index.isin(STATES)]
    covariance = state_covariance().loc[states.index, states.index].to_numpy()
    return score, float(np.sqrt(states.to_numpy() @ covariance @ states.to_numpy()))
