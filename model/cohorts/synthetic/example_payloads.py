"""Example requests: hand-written patients in the format of a hospital. They are not real data."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from model.cohorts.synthetic.generator import AS_OF, SEED
from model.cohorts.synthetic.x_ray import chest_xray
from schemas.payload import Payload, as_payload

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


def examples() -> dict[str, Payload]:
    """The example requests, by the names of their files in `examples/`."""
    draw = np.random.Generator(np.random.PCG64(SEED))
    cases: dict[str, dict[str, Any]] = {
        "septic_shock": _septic_shock(chest_xray({"cloud"}, draw, grain=0.03)),
        "heart_failure": _heart_failure(),
        "chest_xray_only": {
            "images": [_image(1, chest_xray({"effusion", "large_heart"}, draw, grain=0.03))]
        },
        "vitals_only": _vitals_only(),
        "minimal": {"tabular": {"age": 64.0, "sex": "male"}},
    }
    return {
        name: as_payload({"patient_id": f"synthetic-{i:03}", "as_of": AS_OF, **case})
        for i, (name, case) in enumerate(cases.items(), start=1)
    }


def write_examples(folder: Path) -> None:
    """Writes the examples to `folder` as JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, payload in examples().items():
        text = payload.model_dump_json(indent=1, exclude_unset=True)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _septic_shock(image: bytes) -> dict[str, Any]:
    return {
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
            _series(2, "loinc:8867-4", "/min", 104, 118, 126, 124, 119, 112, 108),
            _series(2, "loinc:9279-1", "/min", 24, 28, 30, 28, 26, 24, 22),
            _series(2, "oxygen_saturation", "%", 93, 90, 91, 94, 95, 95, 96),
            _series(2, "systolic_blood_pressure", "mm[Hg]", 102, 88, 79, 84, 92, 98, 104),
            _series(2, "mean_arterial_pressure", "kPa", 9.5, 7.9, 7.2, 7.7, 8.4, 8.9, 9.1),
            _series(4, "loinc:8310-5", "[degF]", 102.6, 103.1, 101.8, 100.9),
            _series(2, "urine_output", "mL", 60, 25, 15, 20, 30, 40, 45),
            _series(6, "gcs_verbal", "{score}", 5, 4, 4),
            _series(6, "fraction_inspired_oxygen", "1", 0.4, 0.5, 0.45),
            _series(4, "lactate", "mg/dL", 52, 58, 37, 26),
            _series(6, "ph", None, 7.27, 7.29, 7.33),
            _series(6, "bicarbonate", "mmol/L", 16, 17, 19),
            _series(6, "loinc:2160-0", "umol/L", 132, 168, 181),
            _series(4, "glucose", "mmol/L", 9.8, 11.2, 10.1, 8.9),
            _series(8, "white_blood_cells", "10*9/L", 19.4, 22.8),
            _series(8, "platelets", "10*3/uL", 141, 118),
            _series(8, "bilirubin_total", "umol/L", 31, 38),
            _series(8, "inr", None, 1.5, 1.7),
            _series(8, "c_reactive_protein", "mg/L", 244),
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
        "images": [_image(11, image)],
    }


def _heart_failure() -> dict[str, Any]:
    return {
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
            _series(4, "heart_rate", "/min", 134, 128, 121, 109, 98, 94),
            _series(4, "systolic_blood_pressure", "mm[Hg]", 158, 151, 142, 131, 126, 122),
            _series(4, "respiratory_rate", "/min", 30, 28, 24, 22, 20, 19),
            _series(4, "oxygen_saturation", "%", 87, 91, 93, 94, 95, 96),
            _series(6, "urine_output", "mL", 140, 620, 840, 710),
            _series(12, "body_weight", "kg", 93.0, 91.4),
            _series(12, "nt_probnp", "pmol/L", 1020),
            _series(12, "troponin_t", "ng/L", 48, 52),
            _series(12, "creatinine", "mg/dL", 1.6, 1.5),
            _series(12, "sodium", "mmol/L", 131, 133),
            _series(12, "potassium", "mmol/L", 4.9, 4.1),
            _series(12, "hemoglobin", "g/L", 118, 121),
        ],
        "treatments": [
            {"name": "furosemide", "start": _ago(24), "end": None, "rate": 10.0, "unit": "mg/h"},
            {"name": "noninvasive_ventilation", "start": _ago(25), "end": _ago(15)},
            {"name": "beta_blocker", "start": _ago(20), "end": None},
            {"name": "warfarin", "start": _ago(26), "end": None},
        ],
        "notes": [{"kind": "progress", "time": _ago(22), "text": _HEART_FAILURE}],
    }


def _vitals_only() -> dict[str, Any]:
    return {
        "series": [
            _series(1, "heart_rate", "/min", 88, 92, 90, 97, 103, 101),
            _series(1, "respiratory_rate", "/min", 16, 18, 18, 20, 21, 22),
            _series(1, "oxygen_saturation", "%", 97, 97, 96, 95, 95, 94),
            _series(1, "systolic_blood_pressure", "mm[Hg]", 128, 124, 121, 117, 112, 108),
            _series(3, "temperature", "Cel", 37.4, 38.3),
        ]
    }


def _ago(hours: float) -> datetime:
    return AS_OF - timedelta(hours=hours)


def _series(hours: int, variable: str, unit: str | None, *values: float) -> dict[str, Any]:
    """Values that are `hours` apart; the last is a quarter of an hour old."""
    times = [_ago(hours * k + 0.25) for k in reversed(range(len(values)))]
    series: dict[str, Any] = {"times": times, "values": [float(v) for v in values]}
    return {"variable": variable} | ({} if unit is None else {"unit": unit}) | series


def _image(hours: float, data: bytes) -> dict[str, Any]:
    return {"view": "AP", "time": _ago(hours), "media_type": "image/png", "data": data}
