"""What is written about phantom patients: radiologists' findings, and MedMod's phenotypes.

A finding is a `Phenotype` of the patient's states and of what only the picture shows: one of
ChestX6's patterns, under the names of `PATTERNS`, or a pneumothorax. As in life, some labels are
plain to see and others hardly leave a trace on the xray.
"""

import numpy as np
import pandas as pd

from pacx.constants import CHEXPERT_FINDINGS, MEDMOD_PHENOTYPES
from pacx.phantom.state import PATTERNS, TASK_NOISE, Phenotype, over_threshold

PATTERN_SHARE = 0.1  # of the patients, each

#: The 27 labels of VinDr-CXR besides "No finding", as `image_labels_train.csv` spells them.
VINDR_FINDINGS: dict[str, Phenotype] = {
    "Aortic enlargement": Phenotype(0.20, {"age": 0.6, "hypertension": 0.6}),
    "Atelectasis": Phenotype(0.08, {"bmi": 0.6, "fluid": 0.3}),
    "Calcification": Phenotype(0.08, {"age": 0.6}),
    "Cardiomegaly": Phenotype(0.16, {"dilation": 0.9, "hypertrophy": 0.4}),
    "Clavicle fracture": Phenotype(0.01, {"age": 0.2}),
    "Consolidation": Phenotype(PATTERN_SHARE, {"lobar": 3.0}),
    "Edema": Phenotype(0.02, {"fluid": 1.0}),
    "Emphysema": Phenotype(PATTERN_SHARE, {"emphysema": 3.0}),
    "Enlarged PA": Phenotype(0.02, {"copd": 0.5, "atrial_load": 0.3}),
    "ILD": Phenotype(PATTERN_SHARE, {"interstitial": 3.0}),
    "Infiltration": Phenotype(0.12, {"inflammation": 1.0, "ground_glass": 1.0}),
    "Lung Opacity": Phenotype(0.15, {"inflammation": 0.7, "fluid": 0.6, "ground_glass": 1.5}),
    "Lung cavity": Phenotype(0.02, {"cavity": 1.0}),
    "Lung cyst": Phenotype(0.01, {"copd": 0.5}),
    "Mediastinal shift": Phenotype(0.06, {"copd": 0.2, "pneumothorax": 0.8}),
    "Nodule/Mass": Phenotype(0.08, {"age": 0.3, "cavity": 1.0}),
    "Pleural effusion": Phenotype(0.14, {"fluid": 0.9, "renal": 0.3}),
    "Pleural thickening": Phenotype(0.10, {"age": 0.4, "inflammation": 0.3}),
    "Pneumothorax": Phenotype(0.18, {"pneumothorax": 3.0}),
    "Pulmonary fibrosis": Phenotype(0.10, {"age": 0.4, "interstitial": 1.2}),
    "Rib fracture": Phenotype(0.02, {"age": 0.4, "bmi": -0.2}),
    "Other lesion": Phenotype(0.08, {"age": 0.3}),
    "COPD": Phenotype(0.05, {"copd": 1.0, "emphysema": 1.0}),
    "Lung tumor": Phenotype(0.06, {"age": 0.4, "cavity": 0.4}),
    "Pneumonia": Phenotype(0.08, {"inflammation": 0.8, "lobar": 1.5}),
    "Tuberculosis": Phenotype(PATTERN_SHARE, {"cavity": 3.0}),
    "Other diseases": Phenotype(0.15, {"bmi": 0.3, "age": 0.3}),
}

#: NIH-14's findings, as `Data_Entry_2017.csv` spells them.
NIH_FINDINGS: dict[str, Phenotype] = {
    "Atelectasis": Phenotype(0.11, {"bmi": 0.6, "fluid": 0.3}),
    "Cardiomegaly": Phenotype(0.12, {"dilation": 0.9, "hypertrophy": 0.4}),
    "Effusion": Phenotype(0.14, {"fluid": 0.9, "renal": 0.3}),
    "Infiltration": Phenotype(0.18, {"inflammation": 0.9, "fluid": 0.3, "ground_glass": 1.0}),
    "Mass": Phenotype(PATTERN_SHARE, {"cavity": 3.0}),
    "Nodule": Phenotype(0.08, {"age": 0.3, "cavity": 0.6}),
    "Pneumonia": Phenotype(0.06, {"inflammation": 0.8, "lobar": 1.0}),
    "Pneumothorax": Phenotype(0.18, {"pneumothorax": 3.0}),
    "Consolidation": Phenotype(PATTERN_SHARE, {"lobar": 3.0}),
    "Edema": Phenotype(0.10, {"fluid": 1.0}),
    "Emphysema": Phenotype(PATTERN_SHARE, {"emphysema": 3.0}),
    "Fibrosis": Phenotype(0.06, {"age": 0.4, "interstitial": 1.2}),
    "Pleural_Thickening": Phenotype(0.08, {"age": 0.4, "inflammation": 0.3}),
    "Hernia": Phenotype(0.03, {"age": 0.6, "bmi": 0.5}),
}

#: MedMod's phenotypes as combinations of states (and of facts seen in the picture).
PHENOTYPES: dict[str, Phenotype] = dict(
    zip(
        MEDMOD_PHENOTYPES,
        (
            Phenotype(0.25, {"renal": 0.8, "inflammation": 0.3, "fluid": 0.3}),
            Phenotype(0.07, {"hypertension": 0.5, "age": 0.4, "atrial_load": 0.4}),
            Phenotype(0.09, {"age": 0.4, "hypertension": 0.3, "dilation": 0.5}),
            Phenotype(0.33, {"atrial_load": 0.9, "potassium": 0.2}),
            Phenotype(0.22, {"renal": 1.0}),
            Phenotype(0.16, {"copd": 1.0}),
            Phenotype(0.20, {"inflammation": 0.3, "bmi": 0.2}),
            Phenotype(0.11, {"conduction": 1.0}),
            Phenotype(0.28, {"dilation": 0.6, "fluid": 0.7}),
            Phenotype(0.33, {"age": 0.5, "hypertension": 0.5, "hypertrophy": 0.2}),
            Phenotype(0.11, {"bmi": 0.5, "renal": 0.5}),
            Phenotype(0.20, {"bmi": 0.7, "age": 0.2}),
            Phenotype(0.38, {"bmi": 0.4, "age": 0.5}),
            Phenotype(0.40, {"hypertension": 1.0, "renal": -0.4}),
            Phenotype(0.38, {"potassium": 0.4, "fluid": 0.6}),
            Phenotype(0.08, {"anaemia": 0.9}),
            Phenotype(0.20, {"hypertension": 0.6, "renal": 0.7}),
            Phenotype(0.12, {"fluid": 0.3, "bmi": 0.3, "inflammation": 0.2}),
            Phenotype(0.12, {"copd": 0.4, "inflammation": 0.5}),
            Phenotype(0.05, {"inflammation": 0.5}),
            Phenotype(0.14, {"pneumothorax": 0.9, "fluid": 0.5}),
            Phenotype(0.16, {"inflammation": 1.0, "copd": 0.2}),
            Phenotype(0.24, {"copd": 0.5, "fluid": 0.5, "inflammation": 0.4}),
            Phenotype(0.20, {"inflammation": 1.0, "renal": 0.2}),
            Phenotype(0.10, {"inflammation": 0.7, "dilation": 0.5}),
        ),
        strict=True,
    )
)

#: CheXpert's findings (all but "No Finding") as a radiologist would read them off the xray.
FINDINGS: dict[str, Phenotype] = {
    "Enlarged Cardiomediastinum": Phenotype(0.10, {"fluid": 0.6, "age": 0.4}),
    "Cardiomegaly": Phenotype(0.16, {"dilation": 0.9, "hypertrophy": 0.4}),
    "Lung Opacity": Phenotype(0.40, {"fluid": 0.6, "inflammation": 0.7}),
    "Lung Lesion": Phenotype(0.05, {"age": 0.2}),
    "Edema": Phenotype(0.25, {"fluid": 1.0}),
    "Consolidation": Phenotype(0.12, {"inflammation": 1.0}),
    "Pneumonia": Phenotype(0.08, {"inflammation": 0.9, "copd": 0.2}),
    "Atelectasis": Phenotype(0.16, {"bmi": 0.6, "fluid": 0.3}),
    "Pneumothorax": Phenotype(0.14, {"pneumothorax": 3.0}),
    "Pleural Effusion": Phenotype(0.36, {"fluid": 0.9, "renal": 0.3}),
    "Pleural Other": Phenotype(0.05, {"age": 0.3}),
    "Fracture": Phenotype(0.05, {"age": 0.4, "bmi": -0.2}),
    "Support Devices": Phenotype(0.40, {"pacemaker": 3.0, "tube": 3.0}),
}


def add_patterns(patients: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Give each patient a `pattern` (half of them "Normal") and its 0/1 columns (`PATTERNS`)."""
    names = ["Normal", *PATTERNS.values()]
    shares = [1 - PATTERN_SHARE * len(PATTERNS), *[PATTERN_SHARE] * len(PATTERNS)]
    pattern = rng.choice(names, len(patients), p=shares)
    facts = {fact: pattern == name for fact, name in PATTERNS.items()}
    return patients.assign(pattern=pattern, **facts)


def phenotype_labels(patients: pd.DataFrame, seed: int) -> pd.DataFrame:
    """MedMod's 25 phenotypes as 0/1 columns (see `PHENOTYPES`)."""
    return draw_findings(patients, PHENOTYPES, np.random.default_rng([seed, 3]), noise=0.6)


def chexpert_findings(patients: pd.DataFrame, seed: int, certain: bool = False) -> pd.DataFrame:
    """CheXpert's 14 findings as a report labeller writes them: 1, 0, -1 (uncertain) or NaN.

    Args:
        patients: Rows of `pacx.phantom.state.sample_patients`.
        seed: Seed of the reader's noise and wording.
        certain: True = 0 or 1 only, as in CheXpert's `valid.csv`.

    Returns:
        Float columns `CHEXPERT_FINDINGS`.
    """
    rng = np.random.default_rng([seed, 4])
    present = draw_findings(patients, FINDINGS, rng)
    present["No Finding"] = present.drop(columns="Support Devices").sum(axis=1) == 0
    present = present[list(CHEXPERT_FINDINGS)].astype(float)
    if certain:
        return present
    wording = rng.random(present.shape)
    absent = np.where(wording < 0.15, 0.0, np.where(wording < 0.18, -1.0, np.nan))
    found = np.where(wording < 0.12, -1.0, 1.0)
    findings = present.where(present == 0, found).where(present == 1, absent)
    findings["No Finding"] = present["No Finding"].replace(0.0, np.nan)
    return findings


def draw_findings(
    patients: pd.DataFrame,
    findings: dict[str, Phenotype],
    rng: np.random.Generator,
    noise: float = TASK_NOISE,
) -> pd.DataFrame:
    """0/1 (int) columns, one a finding: what is truly on each row's X-ray.

    The rows have the columns of `add_patterns` where the findings weigh them.
    """
    columns = {name: over_threshold(patients, f, noise, rng) for name, f in findings.items()}
    return pd.DataFrame(columns, index=patients.index).astype(int)
