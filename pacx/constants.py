"""Names that data, phantom and figures share: leads, labs, findings, phenotypes, tasks."""

from typing import NamedTuple

#: A second test split, of phantoms of another hospital.
SHIFTED = "shifted"

#: Lead order of MIMIC-IV-ECG records: aVF comes before aVL.
LEADS_MIMIC = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")

#: Lead order that ECGFounder was trained on: aVL comes before aVF.
LEADS_ECGFOUNDER = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

#: ImageNet's channel statistics, of grey values in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

#: Of a query in Symile-MIMIC's retrieval test: the true pair and nine others.
CANDIDATES = 10

CHEXPERT_FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip

CHESTX6_CLASSES = (
    "Covid-19", "Emphysema", "Normal", "Pneumonia-Bacterial", "Pneumonia-Viral", "Tuberculosis",
)  # fmt: skip

MEDMOD_PHENOTYPES = (
    "Acute and unspecified renal failure",
    "Acute cerebrovascular disease",
    "Acute myocardial infarction",
    "Cardiac dysrhythmias",
    "Chronic kidney disease",
    "Chronic obstructive pulmonary disease and bronchiectasis",
    "Complications of surgical procedures or medical care",
    "Conduction disorders",
    "Congestive heart failure; nonhypertensive",
    "Coronary atherosclerosis and other heart disease",
    "Diabetes mellitus with complications",
    "Diabetes mellitus without complication",
    "Disorders of lipid metabolism",
    "Essential hypertension",
    "Fluid and electrolyte disorders",
    "Gastrointestinal hemorrhage",
    "Hypertension with complications and secondary hypertension",
    "Other liver diseases",
    "Other lower respiratory disease",
    "Other upper respiratory disease",
    "Pleurisy; pneumothorax; pulmonary collapse",
    "Pneumonia (except that caused by tuberculosis or sexually transmitted disease)",
    "Respiratory failure; insufficiency; arrest (adult)",
    "Septicemia (except in labor)",
    "Shock",
)


class Lab(NamedTuple):
    """A blood test: MIMIC item id, name, unit, and the adult reference range in that unit."""

    itemid: int
    name: str
    unit: str
    low: float
    high: float


#: The 50 blood tests of Symile-MIMIC in tensor order: sorted by item id as a string.
#: Units and adult reference ranges as MIMIC-IV's laboratory prints them (both sexes together);
#: H, L and I are the haemolysis, lipaemia and icterus indices of the serum sample.
LABS = (
    Lab(50802, "Base Excess", "mEq/L", -2.0, 3.0),
    Lab(50804, "Calculated Total CO2", "mEq/L", 21.0, 30.0),
    Lab(50813, "Lactate", "mmol/L", 0.5, 2.0),
    Lab(50818, "pCO2", "mm Hg", 35.0, 45.0),
    Lab(50820, "pH", "units", 7.35, 7.45),
    Lab(50821, "pO2", "mm Hg", 85.0, 105.0),
    Lab(50861, "ALT", "IU/L", 0.0, 40.0),
    Lab(50862, "Albumin", "g/dL", 3.5, 5.2),
    Lab(50863, "Alkaline Phosphatase", "IU/L", 40.0, 130.0),
    Lab(50868, "Anion Gap", "mEq/L", 10.0, 18.0),
    Lab(50878, "AST", "IU/L", 0.0, 40.0),
    Lab(50882, "Bicarbonate", "mEq/L", 22.0, 32.0),
    Lab(50885, "Bilirubin, Total", "mg/dL", 0.0, 1.5),
    Lab(50893, "Calcium, Total", "mg/dL", 8.4, 10.3),
    Lab(50902, "Chloride", "mEq/L", 96.0, 108.0),
    Lab(50910, "Creatine Kinase", "IU/L", 29.0, 321.0),
    Lab(50912, "Creatinine", "mg/dL", 0.4, 1.2),
    Lab(50931, "Glucose", "mg/dL", 70.0, 105.0),
    Lab(50934, "H", "index", 0.0, 40.0),
    Lab(50947, "I", "index", 0.0, 5.0),
    Lab(50960, "Magnesium", "mg/dL", 1.6, 2.6),
    Lab(50970, "Phosphate", "mg/dL", 2.7, 4.5),
    Lab(50971, "Potassium", "mEq/L", 3.3, 5.1),
    Lab(50983, "Sodium", "mEq/L", 133.0, 145.0),
    Lab(51006, "Urea Nitrogen", "mg/dL", 6.0, 20.0),
    Lab(51133, "Absolute Lymphocyte Count", "K/uL", 1.2, 3.7),
    Lab(51146, "Basophils", "%", 0.0, 1.0),
    Lab(51200, "Eosinophils", "%", 1.0, 7.0),
    Lab(51221, "Hematocrit", "%", 36.0, 51.0),
    Lab(51222, "Hemoglobin", "g/dL", 12.0, 17.5),
    Lab(51237, "INR(PT)", "ratio", 0.9, 1.1),
    Lab(51244, "Lymphocytes", "%", 19.0, 53.0),
    Lab(51248, "MCH", "pg", 26.0, 32.0),
    Lab(51249, "MCHC", "g/dL", 32.0, 37.0),
    Lab(51250, "MCV", "fL", 82.0, 98.0),
    Lab(51254, "Monocytes", "%", 5.0, 13.0),
    Lab(51256, "Neutrophils", "%", 34.0, 71.0),
    Lab(51265, "Platelet Count", "K/uL", 150.0, 400.0),
    Lab(51274, "PT", "sec", 9.4, 12.5),
    Lab(51275, "PTT", "sec", 25.0, 36.5),
    Lab(51277, "RDW", "%", 10.5, 15.5),
    Lab(51279, "Red Blood Cells", "m/uL", 3.9, 6.1),
    Lab(51301, "White Blood Cells", "K/uL", 4.0, 10.0),
    Lab(51678, "L", "index", 0.0, 20.0),
    Lab(52069, "Absolute Basophil Count", "K/uL", 0.01, 0.08),
    Lab(52073, "Absolute Eosinophil Count", "K/uL", 0.04, 0.54),
    Lab(52074, "Absolute Monocyte Count", "K/uL", 0.2, 0.8),
    Lab(52075, "Absolute Neutrophil Count", "K/uL", 1.6, 6.1),
    Lab(52135, "Immature Granulocytes", "%", 0.0, 0.6),
    Lab(52172, "RDW-SD", "fL", 35.1, 46.3),
)

#: What the ECG teacher learns to recognise: SNOMED CT code -> name (as in PhysioNet/CinC 2021).
#: None of them is a task below.
ECG_DIAGNOSES = {
    "164889003": "atrial fibrillation",
    "426177001": "sinus bradycardia",
    "427084000": "sinus tachycardia",
    "270492004": "first degree AV block",
    "698252002": "nonspecific intraventricular conduction disorder",
    "39732003": "left axis deviation",
    "164934002": "T wave abnormal",
    "251146004": "low QRS voltages",
}

#: Tasks of the phantom cohort that the heart, the blood or the lungs cause: an ECG or a blood
#: test can carry them too.
PHYSIOLOGY_TASKS = (
    "hypertrophy", "dilation", "congestion", "kidney_disease", "obstructive_lung_disease",
    "anaemia", "inflammation",
)  # fmt: skip

#: Tasks of the phantom cohort that only the picture shows: no teacher knows them.
ANATOMY_TASKS = ("pacemaker", "tube", "rotation", "pneumothorax")
