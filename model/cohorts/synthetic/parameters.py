"""The parameters of the synthetic patients: factors, diseases, measurements and treatments."""

from collections.abc import Mapping
from typing import NamedTuple

# The shift of a sign by a liability, and by a factor; the standard deviation of a patient's noise
# is 1.
DISEASE_SIGNAL = 0.7
FACTOR_SIGNAL = 0.4
# The noise between two measurements of a patient.
JITTER = 0.4
# The probability that a modality is present.
MODALITY_RATES = {"tabular": 0.97, "series": 0.97, "notes": 0.8, "image": 0.5}
# The probability that a note mentions a disease, and that an X-ray shows its sign: if the patient
# has the disease, and if not.
MENTION_RATES = (0.4, 0.06)
SIGN_RATES = (0.75, 0.12)


class Factor(NamedTuple):
    """A latent cause: the signs that it moves (as in `Disease`), and its loading on each task."""

    signs: str
    loadings: Mapping[str, float]


class Disease(NamedTuple):
    """A disease.

    `prevalence`: without the cases that a subset of the disease adds. `signs`: the observables that
    it raises (+) or lowers (-). `phrase`: its words in a note. `clarity`: a factor of
    DISEASE_SIGNAL.
    """

    prevalence: float
    signs: str
    phrase: str
    clarity: float = 1.0


class Measurement(NamedTuple):
    """A measured variable in canonical units.

    `typical` and `spread`: mean and standard deviation; of a skewed variable, median and geometric
    standard deviation.
    """

    typical: float
    spread: float
    per_day: float
    skewed: bool = False


class Treatment(NamedTuple):
    """A treatment: the share of patients who get it, and its rate in canonical units."""

    prevalence: float
    rate: float | None = None


# fmt: off
FACTORS = {
    "infection": Factor("+temperature +white_blood_cells +c_reactive_protein +neutrophils", {
        "sepsis": 0.65, "septic_shock": 0.55, "pneumonia": 0.5, "urinary_tract_infection": 0.5,
        "respiratory_failure": 0.3, "encephalopathy": 0.25, "length_of_stay": 0.3}),
    "cardiac": Factor("+nt_probnp +central_venous_pressure +furosemide", {
        "heart_failure": 0.65, "cardiomyopathy": 0.6, "valve_disease": 0.5,
        "atrial_fibrillation": 0.45, "pleural_effusion": 0.4, "coronary_artery_disease": 0.35,
        "acute_myocardial_infarction": 0.35}),
    "vascular": Factor("+aspirin +statin +troponin_t", {
        "coronary_artery_disease": 0.55, "peripheral_vascular_disease": 0.55,
        "hyperlipidemia": 0.5, "acute_myocardial_infarction": 0.5, "hypertension": 0.45,
        "stroke_or_tia": 0.4}),
    "renal": Factor("+creatinine +blood_urea_nitrogen -urine_output +potassium", {
        "end_stage_renal_disease": 0.65, "chronic_kidney_disease": 0.6,
        "acute_kidney_injury": 0.55, "fluid_electrolyte_disorder": 0.45, "acidosis": 0.4,
        "anemia": 0.3, "hypertension": 0.25}),
    "hepatic": Factor("+bilirubin_total +inr -albumin +alanine_aminotransferase", {
        "liver_disease": 0.65, "coagulopathy": 0.5, "substance_use_disorder": 0.5,
        "gastrointestinal_bleeding": 0.45, "thrombocytopenia": 0.45, "pancreatitis": 0.4,
        "encephalopathy": 0.35}),
    "metabolic": Factor("+glucose +weight_kg +triglycerides", {
        "diabetes": 0.6, "obesity": 0.6, "hyperlipidemia": 0.45, "hypertension": 0.35,
        "hypothyroidism": 0.35, "chronic_kidney_disease": 0.2}),
    "respiratory": Factor("-oxygen_saturation +respiratory_rate +fraction_inspired_oxygen", {
        "copd": 0.6, "respiratory_failure": 0.55, "asthma": 0.5, "pneumonia": 0.45,
        "pleural_effusion": 0.4, "acidosis": 0.25}),
    "neurologic": Factor("-gcs_verbal -gcs_eye -gcs_motor", {
        "seizure": 0.6, "stroke_or_tia": 0.5, "encephalopathy": 0.5, "dementia_or_delirium": 0.4,
        "depression": 0.3, "discharge_disposition": 0.3}),
    "haematologic": Factor("-hemoglobin -platelets +red_cell_distribution_width", {
        "malignancy": 0.55, "thrombocytopenia": 0.5, "anemia": 0.5, "venous_thromboembolism": 0.5,
        "coagulopathy": 0.35, "gastrointestinal_bleeding": 0.3}),
    "frailty": Factor("-albumin -weight_kg +antidepressant", {
        "malnutrition": 0.6, "depression": 0.45, "dementia_or_delirium": 0.4, "malignancy": 0.3,
        "urinary_tract_infection": 0.3, "in_hospital_mortality": 0.3, "length_of_stay": 0.3,
        "discharge_disposition": 0.5}),
    "age": Factor("+age", {
        "dementia_or_delirium": 0.4, "atrial_fibrillation": 0.4, "valve_disease": 0.35,
        "hypertension": 0.3, "in_hospital_mortality": 0.3, "discharge_disposition": 0.4,
        "asthma": -0.3, "substance_use_disorder": -0.4}),
    "severity": Factor("+lactate -systolic_blood_pressure +norepinephrine +heart_rate", {
        "septic_shock": 0.45, "in_hospital_mortality": 0.5, "acidosis": 0.4,
        "respiratory_failure": 0.35, "acute_kidney_injury": 0.35, "length_of_stay": 0.5}),
}

DISEASES = {
    "hypertension": Disease(
        0.40, "+systolic_blood_pressure +ace_inhibitor_or_arb +beta_blocker", "hypertension", 1.1),
    "coronary_artery_disease": Disease(0.22, "+aspirin +statin +clopidogrel", "stable angina", 1.2),
    "atrial_fibrillation": Disease(
        0.20, "+heart_rate +amiodarone +diltiazem +warfarin",
        "an irregularly irregular pulse", 1.1),
    "heart_failure": Disease(
        0.22, "+nt_probnp +furosemide +central_venous_pressure", "orthopnea and leg swelling"),
    "valve_disease": Disease(
        0.08, "+warfarin +central_venous_pressure +nt_probnp", "a loud systolic murmur"),
    "acute_myocardial_infarction": Disease(
        0.08, "+troponin_t +creatine_kinase_mb +heparin", "crushing chest pain", 0.7),
    "cardiomyopathy": Disease(
        0.06, "+dobutamine +nt_probnp -systolic_blood_pressure", "a weak left ventricle", 0.7),
    "peripheral_vascular_disease": Disease(
        0.08, "+clopidogrel +nicardipine +creatine_kinase",
        "leg pain on walking, absent pulses", 1.15),
    "venous_thromboembolism": Disease(
        0.06, "+heparin +enoxaparin +partial_thromboplastin_time", "a swollen, tender calf"),
    "copd": Disease(
        0.16, "+carbon_dioxide_partial_pressure +bicarbonate +bronchodilator", "home oxygen"),
    "asthma": Disease(
        0.08, "+bronchodilator +systemic_glucocorticoid +eosinophils", "wheeze since childhood"),
    "pleural_effusion": Disease(
        0.10, "-albumin +respiratory_rate +lactate_dehydrogenase",
        "dullness at the lung base", 0.9),
    "respiratory_failure": Disease(
        0.28, "+fraction_inspired_oxygen +mechanical_ventilation +respiratory_rate",
        "worsening shortness of breath at rest", 0.7),
    "septic_shock": Disease(
        0.07, "+norepinephrine +vasopressin +lactate", "hypotension after 30 mL/kg of fluid", 0.8),
    "acidosis": Disease(0.16, "-ph -bicarbonate +anion_gap", "deep, rapid breathing", 0.9),
    "sepsis": Disease(0.18, "+temperature +vancomycin +piperacillin_tazobactam", "rigors"),
    "pneumonia": Disease(
        0.20, "+cephalosporin +c_reactive_protein +respiratory_rate",
        "productive cough and fever", 0.75),
    "acute_kidney_injury": Disease(
        0.28, "+creatinine -urine_output +potassium", "very little urine since yesterday", 0.75),
    "chronic_kidney_disease": Disease(
        0.16, "+creatinine +blood_urea_nitrogen +phosphate", "known poor kidney function", 0.65),
    "end_stage_renal_disease": Disease(
        0.06, "+hemodialysis +phosphate -urine_output", "dialysis three times a week", 0.8),
    "fluid_electrolyte_disorder": Disease(
        0.35, "+potassium_replacement +magnesium_replacement -sodium", "thirst and cramps", 1.4),
    "diabetes": Disease(0.30, "+glucose +insulin +hemoglobin_a1c", "insulin at home"),
    "hypothyroidism": Disease(
        0.12, "+thyrotropin +levothyroxine -temperature", "cold intolerance", 1.4),
    "hyperlipidemia": Disease(0.30, "+statin +triglycerides", "high cholesterol"),
    "obesity": Disease(0.14, "+weight_kg +carbon_dioxide_partial_pressure", "a large body habitus"),
    "stroke_or_tia": Disease(
        0.12, "-gcs_verbal -gcs_motor +nicardipine", "sudden weakness of one side"),
    "seizure": Disease(0.07, "+anticonvulsant +lorazepam -gcs_eye", "a witnessed convulsion"),
    "encephalopathy": Disease(
        0.14, "-gcs_verbal -gcs_eye -richmond_agitation_sedation_scale", "drowsiness"),
    "dementia_or_delirium": Disease(
        0.12, "+antipsychotic +age +richmond_agitation_sedation_scale", "memory loss"),
    "gastrointestinal_bleeding": Disease(
        0.09, "+proton_pump_inhibitor +octreotide -hemoglobin", "black, tarry stools"),
    "pancreatitis": Disease(0.03, "+lipase +triglycerides -calcium", "epigastric pain to the back"),
    "liver_disease": Disease(
        0.12, "+bilirubin_total +alanine_aminotransferase +lactulose", "jaundice and ascites", 0.8),
    "anemia": Disease(
        0.35, "-hemoglobin +packed_red_cells +red_cell_distribution_width", "fatigue and pallor"),
    "thrombocytopenia": Disease(0.14, "-platelets +platelet_transfusion", "petechiae", 0.75),
    "coagulopathy": Disease(
        0.10, "+inr +partial_thromboplastin_time +fresh_frozen_plasma",
        "oozing at needle sites", 0.7),
    "malignancy": Disease(
        0.14, "+calcium +alkaline_phosphatase +lactate_dehydrogenase", "chemotherapy last month"),
    "depression": Disease(0.14, "+antidepressant +female", "low mood for months", 1.4),
    "substance_use_disorder": Disease(
        0.15, "+thiamine +lorazepam +mean_corpuscular_volume -age", "a pint of spirits a day"),
    "urinary_tract_infection": Disease(
        0.14, "+female +quinolone +white_blood_cells", "burning on passing urine"),
    "malnutrition": Disease(
        0.08, "-albumin -phosphate +parenteral_nutrition", "weight loss and poor appetite", 1.2),
    "in_hospital_mortality": Disease(
        0.09, "+lactate -gcs_motor +blood_urea_nitrogen",
        "a family meeting on goals of care", 0.85),
}

MEASUREMENTS = {
    "heart_rate": Measurement(86, 16, 24), "respiratory_rate": Measurement(19, 4.5, 24),
    "oxygen_saturation": Measurement(96.5, 2.2, 24),
    "systolic_blood_pressure": Measurement(122, 18, 24), "temperature": Measurement(37, 0.6, 6),
    "gcs_eye": Measurement(3.6, 0.8, 6), "gcs_verbal": Measurement(4.2, 1.2, 6),
    "gcs_motor": Measurement(5.6, 0.8, 6),
    "richmond_agitation_sedation_scale": Measurement(-0.4, 1.2, 6),
    "urine_output": Measurement(80, 1.6, 12, skewed=True),
    "fraction_inspired_oxygen": Measurement(38, 1.35, 5, skewed=True),
    "central_venous_pressure": Measurement(9, 4, 3), "ph": Measurement(7.38, 0.07, 2),
    "carbon_dioxide_partial_pressure": Measurement(41, 1.22, 2, skewed=True),
    "lactate": Measurement(1.7, 1.7, 2, skewed=True), "sodium": Measurement(139, 4.5, 3),
    "potassium": Measurement(4.1, 0.5, 3), "bicarbonate": Measurement(24, 4, 3),
    "anion_gap": Measurement(13, 3.5, 3),
    "blood_urea_nitrogen": Measurement(22, 1.8, 3, skewed=True),
    "creatinine": Measurement(1.1, 1.7, 3, skewed=True),
    "glucose": Measurement(135, 1.35, 5, skewed=True), "calcium": Measurement(8.5, 0.7, 2),
    "magnesium": Measurement(2, 0.3, 2), "phosphate": Measurement(3.5, 1.3, 2, skewed=True),
    "albumin": Measurement(3.2, 0.6, 2),
    "alanine_aminotransferase": Measurement(28, 2.2, 2, skewed=True),
    "alkaline_phosphatase": Measurement(85, 1.6, 2, skewed=True),
    "lactate_dehydrogenase": Measurement(240, 1.6, 2, skewed=True),
    "bilirubin_total": Measurement(0.8, 2, 2, skewed=True),
    "lipase": Measurement(35, 2, 2, skewed=True),
    "creatine_kinase": Measurement(120, 2.5, 2, skewed=True),
    "creatine_kinase_mb": Measurement(4, 2, 2, skewed=True),
    "troponin_t": Measurement(0.03, 3, 2, skewed=True),
    "nt_probnp": Measurement(900, 3.5, 1.5, skewed=True),
    "c_reactive_protein": Measurement(40, 2.8, 2, skewed=True),
    "triglycerides": Measurement(130, 1.6, 1.5, skewed=True),
    "hemoglobin_a1c": Measurement(6.2, 1.2, 1.5, skewed=True),
    "thyrotropin": Measurement(1.9, 2, 2, skewed=True), "hemoglobin": Measurement(10.8, 2, 3),
    "mean_corpuscular_volume": Measurement(90, 6, 2),
    "red_cell_distribution_width": Measurement(14.6, 1.14, 2, skewed=True),
    "platelets": Measurement(205, 1.5, 3, skewed=True),
    "white_blood_cells": Measurement(10.5, 1.5, 3, skewed=True),
    "neutrophils": Measurement(76, 11, 2), "eosinophils": Measurement(1.2, 2, 2, skewed=True),
    "inr": Measurement(1.25, 1.3, 2, skewed=True),
    "partial_thromboplastin_time": Measurement(32, 1.3, 2, skewed=True),
}

TREATMENTS = {
    "norepinephrine": Treatment(0.15, 0.12), "vasopressin": Treatment(0.08, 0.03),
    "dobutamine": Treatment(0.06, 4), "amiodarone": Treatment(0.1, 0.5),
    "diltiazem": Treatment(0.08, 8), "nicardipine": Treatment(0.08),
    "furosemide": Treatment(0.25, 8), "heparin": Treatment(0.2, 900), "insulin": Treatment(0.3, 3),
    "octreotide": Treatment(0.07, 50), "lorazepam": Treatment(0.2, 1),
    "mechanical_ventilation": Treatment(0.3), "hemodialysis": Treatment(0.08),
    "vancomycin": Treatment(0.35), "piperacillin_tazobactam": Treatment(0.25),
    "cephalosporin": Treatment(0.3), "quinolone": Treatment(0.15),
    "ace_inhibitor_or_arb": Treatment(0.3), "beta_blocker": Treatment(0.4),
    "statin": Treatment(0.35), "aspirin": Treatment(0.35), "clopidogrel": Treatment(0.15),
    "warfarin": Treatment(0.12), "enoxaparin": Treatment(0.15), "bronchodilator": Treatment(0.3),
    "systemic_glucocorticoid": Treatment(0.2), "proton_pump_inhibitor": Treatment(0.4),
    "lactulose": Treatment(0.1), "thiamine": Treatment(0.15), "levothyroxine": Treatment(0.12),
    "anticonvulsant": Treatment(0.15), "antipsychotic": Treatment(0.15),
    "antidepressant": Treatment(0.2), "potassium_replacement": Treatment(0.4),
    "magnesium_replacement": Treatment(0.35), "packed_red_cells": Treatment(0.2),
    "platelet_transfusion": Treatment(0.08), "fresh_frozen_plasma": Treatment(0.08),
    "parenteral_nutrition": Treatment(0.06),
}
# fmt: on

# The signs that an X-ray can show, and the diseases of each.
X_RAY_SIGNS = {
    "effusion": ("pleural_effusion",),
    "cloud": ("pneumonia",),
    "emphysema": ("copd",),
    "large_heart": ("heart_failure", "cardiomyopathy"),
    "haze": ("respiratory_failure", "heart_failure"),
}
DISPOSITIONS = (("home", 0.55), ("post_acute", 0.93))

# The order of the graph's rows and columns.
OBSERVABLES = ("age", "weight_kg", "height_cm", "female", *MEASUREMENTS, *TREATMENTS)
TASKS = (*DISEASES, "length_of_stay", "discharge_disposition")


def shared_factors(first: str, second: str) -> tuple[str, ...]:
    """The known edges between two tasks: the factors that load on both."""
    return tuple(f for f, (_, loads) in FACTORS.items() if first in loads and second in loads)
