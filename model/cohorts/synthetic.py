"""Whole synthetic patients: all modalities, all labelled tasks, and a known graph between tasks.

For tests, and for whoever has no data. Nobody's data went into it; nothing learnt from it is
medicine. Every disease has a liability (Falconer 1965): latent factors that it shares with other
diseases, and a part of its own; whoever is above its threshold has it. Factors and liabilities
shift what is measured, given, said and seen. Tasks that share a factor are the edges of the graph
that a TIM score ought to find.

Measured 2026-11-23 on PATIENTS of SEED by `benchmarks/synthetic_cohort.py` (tabular and series, 5
random folds by patient), and frozen before any model was tuned on them. AUROC of a logistic
regression for each binary task: mean .747, .715 to .778, all 41 within .70 to .78. A small network
alone for each task: .727; with one trunk for all: .742, so a multitask gain of .015, each at its
best of nine settings. The signs were balanced on this seed; on seed 45 the regression's mean is
.738, .679 to .802, 35 of 41 within.
"""

import io
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image

from model.cohorts import Outcomes, Record
from schemas.payload import Payload, as_payload
from schemas.tasks import load_tasks
from schemas.variables import load_treatments, load_variables

Floats = npt.NDArray[np.float64]

SOURCE = "synthetic patients, drawn by model/cohorts/synthetic.py"
PATIENTS = 1600
SEED = 44
SITES = 20
AS_OF = datetime(2026, 11, 23, 10, tzinfo=UTC)
PRESENT = {"tabular": 0.97, "series": 0.97, "notes": 0.8, "image": 0.5}

# How far a liability, and how far a factor, moves its signs; the noise of a patient is 1.
DISEASE_SIGNAL = 0.7
FACTOR_SIGNAL = 0.4
# The noise from one measurement of a patient to the next.
JITTER = 0.4
# How often a note speaks of a disease, and an X-ray shows it: if it is there, and if it is not.
SAID = (0.4, 0.06)
SEEN = (0.75, 0.12)


class Factor(NamedTuple):
    """A latent cause: what it moves (signs as in `Disease`), and its loading on each task."""

    signs: str
    loadings: Mapping[str, float]


class Disease(NamedTuple):
    """How common, before those that a child adds; what it raises (+) or lowers (-); its words
    in a note; how clear its signs are, beside DISEASE_SIGNAL.
    """

    share: float
    signs: str
    words: str
    clear: float = 1.0


class Measured(NamedTuple):
    """Canonical units. A skewed variable has a median and a geometric standard deviation."""

    typical: float
    spread: float
    per_day: float
    skewed: bool = False


class Given(NamedTuple):
    share: float
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

MEASURED = {
    "heart_rate": Measured(86, 16, 24), "respiratory_rate": Measured(19, 4.5, 24),
    "oxygen_saturation": Measured(96.5, 2.2, 24), "systolic_blood_pressure": Measured(122, 18, 24),
    "temperature": Measured(37, 0.6, 6), "gcs_eye": Measured(3.6, 0.8, 6),
    "gcs_verbal": Measured(4.2, 1.2, 6), "gcs_motor": Measured(5.6, 0.8, 6),
    "richmond_agitation_sedation_scale": Measured(-0.4, 1.2, 6),
    "urine_output": Measured(80, 1.6, 12, skewed=True),
    "fraction_inspired_oxygen": Measured(38, 1.35, 5, skewed=True),
    "central_venous_pressure": Measured(9, 4, 3), "ph": Measured(7.38, 0.07, 2),
    "carbon_dioxide_partial_pressure": Measured(41, 1.22, 2, skewed=True),
    "lactate": Measured(1.7, 1.7, 2, skewed=True), "sodium": Measured(139, 4.5, 3),
    "potassium": Measured(4.1, 0.5, 3), "bicarbonate": Measured(24, 4, 3),
    "anion_gap": Measured(13, 3.5, 3), "blood_urea_nitrogen": Measured(22, 1.8, 3, skewed=True),
    "creatinine": Measured(1.1, 1.7, 3, skewed=True),
    "glucose": Measured(135, 1.35, 5, skewed=True), "calcium": Measured(8.5, 0.7, 2),
    "magnesium": Measured(2, 0.3, 2), "phosphate": Measured(3.5, 1.3, 2, skewed=True),
    "albumin": Measured(3.2, 0.6, 2), "alanine_aminotransferase": Measured(28, 2.2, 2, skewed=True),
    "alkaline_phosphatase": Measured(85, 1.6, 2, skewed=True),
    "lactate_dehydrogenase": Measured(240, 1.6, 2, skewed=True),
    "bilirubin_total": Measured(0.8, 2, 2, skewed=True), "lipase": Measured(35, 2, 2, skewed=True),
    "creatine_kinase": Measured(120, 2.5, 2, skewed=True),
    "creatine_kinase_mb": Measured(4, 2, 2, skewed=True),
    "troponin_t": Measured(0.03, 3, 2, skewed=True),
    "nt_probnp": Measured(900, 3.5, 1.5, skewed=True),
    "c_reactive_protein": Measured(40, 2.8, 2, skewed=True),
    "triglycerides": Measured(130, 1.6, 1.5, skewed=True),
    "hemoglobin_a1c": Measured(6.2, 1.2, 1.5, skewed=True),
    "thyrotropin": Measured(1.9, 2, 2, skewed=True), "hemoglobin": Measured(10.8, 2, 3),
    "mean_corpuscular_volume": Measured(90, 6, 2),
    "red_cell_distribution_width": Measured(14.6, 1.14, 2, skewed=True),
    "platelets": Measured(205, 1.5, 3, skewed=True),
    "white_blood_cells": Measured(10.5, 1.5, 3, skewed=True), "neutrophils": Measured(76, 11, 2),
    "eosinophils": Measured(1.2, 2, 2, skewed=True), "inr": Measured(1.25, 1.3, 2, skewed=True),
    "partial_thromboplastin_time": Measured(32, 1.3, 2, skewed=True),
}

GIVEN = {
    "norepinephrine": Given(0.15, 0.12), "vasopressin": Given(0.08, 0.03),
    "dobutamine": Given(0.06, 4), "amiodarone": Given(0.1, 0.5), "diltiazem": Given(0.08, 8),
    "nicardipine": Given(0.08), "furosemide": Given(0.25, 8), "heparin": Given(0.2, 900),
    "insulin": Given(0.3, 3), "octreotide": Given(0.07, 50), "lorazepam": Given(0.2, 1),
    "mechanical_ventilation": Given(0.3), "hemodialysis": Given(0.08), "vancomycin": Given(0.35),
    "piperacillin_tazobactam": Given(0.25), "cephalosporin": Given(0.3), "quinolone": Given(0.15),
    "ace_inhibitor_or_arb": Given(0.3), "beta_blocker": Given(0.4), "statin": Given(0.35),
    "aspirin": Given(0.35), "clopidogrel": Given(0.15), "warfarin": Given(0.12),
    "enoxaparin": Given(0.15), "bronchodilator": Given(0.3), "systemic_glucocorticoid": Given(0.2),
    "proton_pump_inhibitor": Given(0.4), "lactulose": Given(0.1), "thiamine": Given(0.15),
    "levothyroxine": Given(0.12), "anticonvulsant": Given(0.15), "antipsychotic": Given(0.15),
    "antidepressant": Given(0.2), "potassium_replacement": Given(0.4),
    "magnesium_replacement": Given(0.35), "packed_red_cells": Given(0.2),
    "platelet_transfusion": Given(0.08), "fresh_frozen_plasma": Given(0.08),
    "parenteral_nutrition": Given(0.06),
}
# fmt: on

# What an X-ray can show, and of which diseases it is the picture.
PICTURED = {
    "effusion": ("pleural_effusion",),
    "cloud": ("pneumonia",),
    "emphysema": ("copd",),
    "large_heart": ("heart_failure", "cardiomyopathy"),
    "haze": ("respiratory_failure", "heart_failure"),
}
DISPOSITIONS = (("home", 0.55), ("post_acute", 0.93))

_NORMAL = NormalDist()
_PEOPLE = ("age", "weight_kg", "height_cm", "female")
# The order of the graph's rows and columns.
OBSERVED = (*_PEOPLE, *MEASURED, *GIVEN)
TASKS = (*DISEASES, "length_of_stay", "discharge_disposition")
_QUARTERS = 96
# Of one day, from the oldest to the moment before `as_of`.
_TIMES = np.array([AS_OF - timedelta(minutes=15 * k) for k in range(_QUARTERS, 0, -1)])
_PLACES = {
    "admission_source": ("emergency", "operating_room", "ward", "other_hospital"),
    "unit_type": ("medical_icu", "surgical_icu", "mixed_icu", "cardiac_icu", "neuro_icu"),
}


def shared_factors(one: str, other: str) -> tuple[str, ...]:
    """The known edges between two tasks: the factors that load on both."""
    return tuple(f for f, (_, loads) in FACTORS.items() if one in loads and other in loads)


def read(data: Path) -> Iterator[Record]:  # noqa: ARG001 (every reader takes a folder)
    """The synthetic cohort; needs no data."""
    return patients(PATIENTS, SEED)


def patients(count: int, seed: int) -> Iterator[Record]:
    """Patients drawn from `seed`, each read once, 24 h after admission.

    A patient depends on the seed and its own number only, never on how many are drawn.
    """
    for number in range(count):
        yield _patient(number, np.random.Generator(np.random.PCG64([seed, number])))


class Graph(NamedTuple):
    """[factors, tasks] loadings, [tasks] own parts, and what moves an observable, scaled so that
    each has variance 1: [factors, observables], [tasks, observables], noise [observables].
    """

    loadings: Floats
    own: Floats
    from_factors: Floats
    from_tasks: Floats
    noise: Floats


@cache
def graph() -> Graph:
    """What all patients are drawn from: tasks in the order of TASKS, observables of OBSERVED."""
    loadings = np.array([[f.loadings.get(t, 0.0) for t in TASKS] for f in FACTORS.values()])
    own = np.sqrt(1 - (loadings**2).sum(axis=0))
    signs = [DISEASES[t].signs if t in DISEASES else "" for t in TASKS]
    from_factors = FACTOR_SIGNAL * _directions([f.signs for f in FACTORS.values()])
    clear = [DISEASES[t].clear if t in DISEASES else 0.0 for t in TASKS]
    from_tasks = DISEASE_SIGNAL * np.array(clear)[:, None] * _directions(signs)
    variance = ((from_factors + loadings @ from_tasks) ** 2).sum(axis=0)
    variance += ((own[:, None] * from_tasks) ** 2).sum(axis=0) + 1
    scale = 1 / np.sqrt(variance)
    return Graph(loadings, own, from_factors * scale, from_tasks * scale, scale)


def _directions(signs: list[str]) -> Floats:
    """[rows, observables]; a row has length 1 whatever the number of its signs."""
    rows = np.zeros((len(signs), len(OBSERVED)))
    for row, text in zip(rows, signs, strict=True):
        for sign in text.split():
            row[OBSERVED.index(sign[1:])] = 1 if sign[0] == "+" else -1
    length = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return rows / np.maximum(length, 1)


def _patient(number: int, draw: np.random.Generator) -> Record:
    known = graph()
    factors = draw.normal(size=len(FACTORS))
    liability = factors @ known.loadings + draw.normal(size=len(TASKS)) * known.own
    shift = factors @ known.from_factors + liability @ known.from_tasks
    shift += draw.normal(size=len(OBSERVED)) * known.noise
    outcomes = _outcomes(dict(zip(TASKS, liability.tolist(), strict=True)))
    payload = _payload(number, outcomes, dict(zip(OBSERVED, shift.tolist(), strict=True)), draw)
    name = f"{number:04}"
    site = f"hospital-{number % SITES:02}"
    return Record(payload, outcomes, patient=name, site=site, stay=name, landmark_hours=24.0)


def _outcomes(liability: Mapping[str, float]) -> Outcomes:
    found: dict[str, bool | float | str] = {
        name: liability[name] > _NORMAL.inv_cdf(1 - disease.share)
        for name, disease in DISEASES.items()
    }
    for task in load_tasks():
        if task.subset_of is not None and found[task.name]:
            found[task.subset_of] = True
    found["length_of_stay"] = round(float(np.exp(1.6 + 0.7 * liability["length_of_stay"])), 2)
    rank = _NORMAL.cdf(liability["discharge_disposition"])
    home = next((place for place, up_to in DISPOSITIONS if rank < up_to), "other_facility")
    found["discharge_disposition"] = "died" if found["in_hospital_mortality"] else home
    return found


def _payload(
    number: int, outcomes: Outcomes, shift: Mapping[str, float], draw: np.random.Generator
) -> Payload:
    age = int(np.clip(64 + 15 * shift["age"], 18, 95))
    sex = "female" if shift["female"] > 0 else "male"
    known: dict[str, Any] = {"patient_id": f"synthetic-{number:04}", "as_of": AS_OF}
    there = [m for m, share in PRESENT.items() if draw.random() < share] or ["tabular"]
    if "tabular" in there:
        known["tabular"] = {
            "age": float(age),
            "sex": sex,
            "height_cm": float(round(172 + 8 * shift["height_cm"] - 12 * (sex == "female"))),
            "weight_kg": round(80 * 1.22 ** shift["weight_kg"], 1),
            "admitted_at": AS_OF - timedelta(days=1),
            **{field: str(draw.choice(kinds)) for field, kinds in _PLACES.items()},
        }
    if "series" in there:
        known["series"] = _series(shift, draw)
        known["treatments"] = _treatments(shift, draw)
    if "notes" in there:
        known["notes"] = [_note(age, sex, outcomes, draw)]
    if "image" in there:
        known["images"] = [_image(outcomes, draw)]
    return as_payload(known)


def _series(shift: Mapping[str, float], draw: np.random.Generator) -> list[dict[str, Any]]:
    out = []
    variables = {variable.name: variable for variable in load_variables()}
    for name, known in MEASURED.items():
        variable = variables[name]
        count = min(draw.poisson(known.per_day), _QUARTERS)
        when = np.sort(draw.choice(_QUARTERS, count, replace=False))
        z = (shift[name] + JITTER * draw.normal(size=count)) / np.hypot(1, JITTER)
        typical, spread = known.typical, known.spread
        value = typical * spread**z if known.skewed else typical + spread * z
        # Scores are whole; of the others, three digits of a typical value are shown.
        digits = 0 if variable.unit == "{score}" else 2 - int(np.floor(np.log10(typical)))
        value = np.round(np.clip(value, *variable.plausible), digits)
        if count:
            series = {"times": _TIMES[when].tolist(), "values": value.tolist()}
            out.append({"variable": name, "unit": variable.unit, **series})
    return out


def _treatments(shift: Mapping[str, float], draw: np.random.Generator) -> list[dict[str, Any]]:
    out = []
    units = {treatment.name: treatment.unit for treatment in load_treatments()}
    for name, known in GIVEN.items():
        start, end = np.sort(draw.integers(_QUARTERS, size=2))
        runs, pace = draw.random() < 0.7, float(np.exp(0.4 * draw.normal()))
        if shift[name] > _NORMAL.inv_cdf(1 - known.share):
            given: dict[str, Any] = {"name": name, "start": _TIMES[start]}
            given["end"] = None if runs else _TIMES[end]
            if known.rate is not None:
                given |= {"rate": float(f"{known.rate * pace:.2g}"), "unit": units[name]}
            out.append(given)
    return out


def _note(age: int, sex: str, outcomes: Outcomes, draw: np.random.Generator) -> dict[str, Any]:
    names = draw.permutation(list(DISEASES)).tolist()
    said = [n for n in names if draw.random() < SAID[0 if outcomes[n] else 1]]
    absent = [n for n in names if not outcomes[n] and n not in said][:2]
    found, not_found = (", ".join(DISEASES[n].words for n in some) for some in (said, absent))
    text = (
        f"{age}-year-old {'woman' if sex == 'female' else 'man'}, admitted yesterday. "
        f"History and findings: {found or 'nothing of note'}. Not found: {not_found}. "
        "Monitoring, laboratory tests and treatment as ordered."
    )
    return {"kind": "admission", "time": AS_OF - timedelta(hours=20), "text": text}


def _image(outcomes: Outcomes, draw: np.random.Generator) -> dict[str, Any]:
    ill = {sign: any(outcomes[name] for name in names) for sign, names in PICTURED.items()}
    seen = {sign for sign in PICTURED if draw.random() < SEEN[0 if ill[sign] else 1]}
    data = chest_xray(seen, draw)
    time = AS_OF - timedelta(hours=3)
    return {"time": time, "view": "AP", "media_type": "image/png", "data": data}


def chest_xray(
    signs: set[str], draw: np.random.Generator, side: int = 128, grain: float = 0.05
) -> bytes:
    """A PNG of a chest with the given signs of PICTURED: drawn shapes, in no way anatomy."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j] + 0.04 * draw.normal(size=(2, 1, 1))
    across = np.abs(x) - 0.42
    worse = np.sign(x) == draw.choice((-1, 1))
    wide = "emphysema" in signs
    floor = (0.62 if wide else 0.4) + (1 if wide else 2) * across**2
    if "effusion" in signs:
        floor = np.where(worse, 0.1 - 0.5 * across, floor)
    lung = _disc(across, y + 0.05, 0.36, 0.8) / (1 + np.exp(30 * (y - floor)))
    ribs = np.cos(17 * (y - 0.5 * across - across**2)) ** 4
    grey = 0.75 * _disc(x, y - 0.3, 1, 1.4) - lung * ((0.56 if wide else 0.42) - 0.1 * ribs)
    grey = np.maximum(grey, 0.8 * np.exp(-((x / 0.1) ** 2)))
    if "haze" in signs:
        grey += 0.22 * lung * np.exp(-(((across + 0.2) / 0.2) ** 2))
    if "cloud" in signs:
        far = np.hypot(across, y - draw.uniform(-0.4, 0.2))
        grey += 0.4 * lung * worse * np.exp(-((far / 0.25) ** 2))
    heart = _disc(x - 0.1, y - 0.25, 0.45 if "large_heart" in signs else 0.3, 0.4)
    grey = np.maximum(grey, 0.82 * heart) * draw.uniform(0.85, 1.1)
    grey += grain * draw.normal(size=grey.shape)
    # Thirty-two greys are enough, and keep the file small.
    pixels = (np.clip(grey, 0, 1) * 31).astype(np.uint8) * 8
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _disc(x: Floats, y: Floats, rx: float, ry: float) -> Floats:
    """1 inside an ellipse around the origin, 0 outside, soft between."""
    disc: Floats = 1 / (1 + np.exp(14 * (np.hypot(x / rx, y / ry) - 1)))
    return disc


def examples() -> dict[str, Payload]:
    """Requests composed by hand, by the names of their files in `examples/`. Nobody's data."""
    draw = np.random.Generator(np.random.PCG64(SEED))
    septic_shock = {
        "tabular": {
            "age": 71.0,
            "sex": "female",
            "height_cm": 163.0,
            "weight_kg": 68.5,
            "admission_source": "emergency",
            "unit_type": "medical_icu",
            "admitted_at": _ago(14),
        },
        "series": [
            _every(2, "loinc:8867-4", "/min", 104, 118, 126, 124, 119, 112, 108),
            _every(2, "loinc:9279-1", "/min", 24, 28, 30, 28, 26, 24, 22),
            _every(2, "oxygen_saturation", "%", 93, 90, 91, 94, 95, 95, 96),
            _every(2, "systolic_blood_pressure", "mm[Hg]", 102, 88, 79, 84, 92, 98, 104),
            _every(2, "mean_arterial_pressure", "kPa", 9.5, 7.9, 7.2, 7.7, 8.4, 8.9, 9.1),
            _every(4, "loinc:8310-5", "[degF]", 102.6, 103.1, 101.8, 100.9),
            _every(2, "urine_output", "mL", 60, 25, 15, 20, 30, 40, 45),
            _every(6, "gcs_verbal", "{score}", 5, 4, 4),
            _every(6, "fraction_inspired_oxygen", "1", 0.4, 0.5, 0.45),
            _every(4, "lactate", "mg/dL", 52, 58, 37, 26),
            _every(6, "ph", None, 7.27, 7.29, 7.33),
            _every(6, "bicarbonate", "mmol/L", 16, 17, 19),
            _every(6, "loinc:2160-0", "umol/L", 132, 168, 181),
            _every(4, "glucose", "mmol/L", 9.8, 11.2, 10.1, 8.9),
            _every(8, "white_blood_cells", "10*9/L", 19.4, 22.8),
            _every(8, "platelets", "10*3/uL", 141, 118),
            _every(8, "bilirubin_total", "umol/L", 31, 38),
            _every(8, "inr", None, 1.5, 1.7),
            _every(8, "c_reactive_protein", "mg/L", 244),
        ],
        "treatments": [
            {"name": "norepinephrine", "start": _ago(10), "end": _ago(4)}
            | {"rate": 0.22, "unit": "ug/kg/min"},
            {"name": "norepinephrine", "start": _ago(4), "end": None}
            | {"rate": 9.0, "unit": "ug/min"},
            {"name": "vasopressin", "start": _ago(9), "end": _ago(3), "rate": 1.8, "unit": "U/h"},
            {"name": "vancomycin", "start": _ago(12), "end": _ago(11)},
            {"name": "piperacillin_tazobactam", "start": _ago(12.5), "end": None},
            {"name": "oxygen_therapy", "start": _ago(14), "end": None},
        ],
        "notes": [
            {"kind": "admission", "time": _ago(13), "text": _SEPTIC_SHOCK_ADMISSION},
            {"kind": "nursing", "time": _ago(3), "text": _SEPTIC_SHOCK_NURSING},
        ],
        "images": [_example_image(11, chest_xray({"cloud"}, draw, grain=0.03))],
    }
    heart_failure = {
        "tabular": {
            "age": 78.0,
            "sex": "male",
            "height_cm": 176.0,
            "weight_kg": 93.0,
            "admission_source": "ward",
            "unit_type": "cardiac_icu",
            "admitted_at": _ago(26),
        },
        "series": [
            _every(4, "heart_rate", "/min", 134, 128, 121, 109, 98, 94),
            _every(4, "systolic_blood_pressure", "mm[Hg]", 158, 151, 142, 131, 126, 122),
            _every(4, "respiratory_rate", "/min", 30, 28, 24, 22, 20, 19),
            _every(4, "oxygen_saturation", "%", 87, 91, 93, 94, 95, 96),
            _every(6, "urine_output", "mL", 140, 620, 840, 710),
            _every(12, "body_weight", "kg", 93.0, 91.4),
            _every(12, "nt_probnp", "pmol/L", 1020),
            _every(12, "troponin_t", "ng/L", 48, 52),
            _every(12, "creatinine", "mg/dL", 1.6, 1.5),
            _every(12, "sodium", "mmol/L", 131, 133),
            _every(12, "potassium", "mmol/L", 4.9, 4.1),
            _every(12, "hemoglobin", "g/L", 118, 121),
        ],
        "treatments": [
            {"name": "furosemide", "start": _ago(24), "end": None, "rate": 10.0, "unit": "mg/h"},
            {"name": "noninvasive_ventilation", "start": _ago(25), "end": _ago(15)},
            {"name": "beta_blocker", "start": _ago(20), "end": None},
            {"name": "warfarin", "start": _ago(26), "end": None},
        ],
        "notes": [{"kind": "progress", "time": _ago(22), "text": _HEART_FAILURE}],
    }
    vitals_only = {
        "series": [
            _every(1, "heart_rate", "/min", 88, 92, 90, 97, 103, 101),
            _every(1, "respiratory_rate", "/min", 16, 18, 18, 20, 21, 22),
            _every(1, "oxygen_saturation", "%", 97, 97, 96, 95, 95, 94),
            _every(1, "systolic_blood_pressure", "mm[Hg]", 128, 124, 121, 117, 112, 108),
            _every(3, "temperature", "Cel", 37.4, 38.3),
        ]
    }
    image = _example_image(1, chest_xray({"effusion", "large_heart"}, draw, grain=0.03))
    cases: dict[str, dict[str, Any]] = {
        "septic_shock": septic_shock,
        "heart_failure": heart_failure,
        "chest_xray_only": {"images": [image]},
        "vitals_only": vitals_only,
        "minimal": {"tabular": {"age": 64.0, "sex": "male"}},
    }
    return {
        name: as_payload({"patient_id": f"synthetic-{i:03}", "as_of": AS_OF, **case})
        for i, (name, case) in enumerate(cases.items(), start=1)
    }


def write_examples(folder: Path) -> None:
    """Writes the examples as the JSON that a hospital would send."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, payload in examples().items():
        text = payload.model_dump_json(indent=1, exclude_unset=True)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


_SEPTIC_SHOCK_ADMISSION = (
    "71-year-old woman brought from home by ambulance after two days of productive cough, rigors "
    "and increasing confusion. Past history: hypertension, type 2 diabetes on metformin. No known "
    "kidney disease. On arrival febrile, flushed, BP 88/46, HR 118. Crackles over the right base. "
    "Lactate raised. 30 mL/kg crystalloid given; still hypotensive, so norepinephrine was started "
    "through a central line. Impression: pneumonia with septic shock, early kidney injury. Plan: "
    "blood cultures, broad antibiotics within the hour, target MAP 65, hourly urine output."
)
_SEPTIC_SHOCK_NURSING = (
    "Vasopressin off at 07:00, norepinephrine weaning. Drowsy but rousable, answers in words. "
    "Urine slowly picking up. Sputum thick and yellow, 4 L/min by mask. Family updated."
)
_HEART_FAILURE = (
    "78-year-old man moved from the ward with sudden breathlessness before dawn, upright, pink "
    "frothy sputum. Known ischaemic cardiomyopathy (EF 30%), permanent AF on warfarin, CKD 3. "
    "Stopped his water tablets last week because of cramps. JVP raised, crackles to mid zones, "
    "pitting oedema to the knees, irregular pulse. No chest pain, afebrile. CPAP and furosemide "
    "infusion started with good diuresis. Hold the ACE inhibitor until creatinine settles."
)


def _ago(hours: float) -> datetime:
    return AS_OF - timedelta(hours=hours)


def _every(hours: int, variable: str, unit: str | None, *values: float) -> dict[str, Any]:
    """Values so many hours apart, the last of them a quarter of an hour ago."""
    times = [_ago(hours * k + 0.25) for k in reversed(range(len(values)))]
    series: dict[str, Any] = {"times": times, "values": [float(v) for v in values]}
    return {"variable": variable} | ({} if unit is None else {"unit": unit}) | series


def _example_image(hours: float, data: bytes) -> dict[str, Any]:
    return {"view": "AP", "time": _ago(hours), "media_type": "image/png", "data": data}


if __name__ == "__main__":
    write_examples(Path("examples"))
