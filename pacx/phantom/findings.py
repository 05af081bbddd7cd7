"""What radiologists write about phantom X-rays in VinDr-CXR and NIH-14.

A finding is a `Phenotype` of the patient's states and of what only the picture shows: one of
ChestX6's patterns, under the names of `PATTERNS`, or a pneumothorax. As in life, some labels are
plain to see and others hardly leave a trace on the xray.
"""

import numpy as np
import pandas as pd

from pacx.phantom.state import TASK_NOISE, Phenotype, over_threshold

#: Name in the equations below -> pattern of `pacx.phantom.radiograph`.
PATTERNS = {
    "ground_glass": "Covid-19",
    "emphysema": "Emphysema",
    "lobar": "Pneumonia-Bacterial",
    "interstitial": "Pneumonia-Viral",
    "cavity": "Tuberculosis",
}
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


def add_patterns(patients: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Give each patient a `pattern` (half of them "Normal") and its 0/1 columns (`PATTERNS`)."""
    names = ["Normal", *PATTERNS.values()]
    shares = [1 - PATTERN_SHARE * len(PATTERNS), *[PATTERN_SHARE] * len(PATTERNS)]
    pattern = rng.choice(names, len(patients), p=shares)
    facts = {fact: pattern == name for fact, name in PATTERNS.items()}
    return patients.assign(pattern=pattern, **facts)


def draw_findings(
    xrays: pd.DataFrame, findings: dict[str, Phenotype], rng: np.random.Generator
) -> pd.DataFrame:
    """0/1 (int) columns, one a finding: what is truly on each xray.

    Args:
        xrays: Patients with the columns of `add_patterns`, one row a xray.
        findings: `VINDR_FINDINGS` or `NIH_FINDINGS`.
        rng: Draws the noise of the labels.
    """
    columns = {name: over_threshold(xrays, f, TASK_NOISE, rng) for name, f in findings.items()}
    return pd.DataFrame(columns, index=xrays.index).astype(int)
