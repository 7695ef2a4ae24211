"""Records of the challenge: each stay at each landmark."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from model.cohorts import LANDMARKS_HOURS, Outcomes, Record
from model.cohorts.cinc2012.stays import Event, Stay, read_stays
from schemas.payload import as_payload
from schemas.tasks import MORTALITY
from schemas.variables import load_variables

_ADMITTED = datetime(2005, 1, 1, tzinfo=UTC)
_SEX = {0.0: "female", 1.0: "male"}
_UNIT_TYPE = {
    1.0: "cardiac_icu",
    2.0: "cardiac_surgery_icu",
    3.0: "medical_icu",
    4.0: "surgical_icu",
}

# Variable and unit of each parameter, as on the challenge's page, except for magnesium: that page
# has mmol/L, but the median of 2.0 is normal in mg/dL only (normal range: 0.7 to 1.1 mmol/L).
VARIABLES: Mapping[str, tuple[str, str]] = {
    "ALP": ("alkaline_phosphatase", "[IU]/L"),
    "ALT": ("alanine_aminotransferase", "[IU]/L"),
    "AST": ("aspartate_aminotransferase", "[IU]/L"),
    "Albumin": ("albumin", "g/dL"),
    "BUN": ("blood_urea_nitrogen", "mg/dL"),
    "Bilirubin": ("bilirubin_total", "mg/dL"),
    "Creatinine": ("creatinine", "mg/dL"),
    "DiasABP": ("diastolic_blood_pressure", "mm[Hg]"),
    "FiO2": ("fraction_inspired_oxygen", "1"),
    "Glucose": ("glucose", "mg/dL"),
    "HCO3": ("bicarbonate", "mmol/L"),
    "HCT": ("hematocrit", "%"),
    "HR": ("heart_rate", "/min"),
    "K": ("potassium", "meq/L"),
    "Lactate": ("lactate", "mmol/L"),
    "MAP": ("mean_arterial_pressure", "mm[Hg]"),
    "Mg": ("magnesium", "mg/dL"),
    "NIDiasABP": ("diastolic_blood_pressure", "mm[Hg]"),
    "NIMAP": ("mean_arterial_pressure", "mm[Hg]"),
    "NISysABP": ("systolic_blood_pressure", "mm[Hg]"),
    "Na": ("sodium", "meq/L"),
    "PaCO2": ("carbon_dioxide_partial_pressure", "mm[Hg]"),
    "PaO2": ("oxygen_partial_pressure", "mm[Hg]"),
    "Platelets": ("platelets", "10*3/uL"),
    "RespRate": ("respiratory_rate", "/min"),
    "SaO2": ("blood_gas_oxygen_saturation", "%"),
    "SysABP": ("systolic_blood_pressure", "mm[Hg]"),
    "Temp": ("temperature", "Cel"),
    "TroponinT": ("troponin_t", "ng/mL"),
    "Urine": ("urine_output", "mL"),
    "WBC": ("white_blood_cells", "10*3/uL"),
    "Weight": ("body_weight", "kg"),
    "pH": ("ph", "[pH]"),
}
_INVASIVE = {"NISysABP": "SysABP", "NIDiasABP": "DiasABP", "NIMAP": "MAP"}
GCS, VENTILATION = "GCS", "MechVent"
# Parameters without a variable.
NOT_READ = ("Cholesterol", "TroponinI")

# Eye, verbal and motor response of each total of the Glasgow Coma Scale. A rising total lowers no
# part. In MIMIC-IV's demo, of the same hospital, 78 % of 3,244 scores have exactly these parts.
GCS_PARTS: Mapping[int, tuple[int, int, int]] = {
    3: (1, 1, 1),
    4: (1, 1, 2),
    5: (1, 1, 3),
    6: (1, 1, 4),
    7: (2, 1, 4),
    8: (2, 1, 5),
    9: (3, 1, 5),
    10: (3, 1, 6),
    11: (4, 1, 6),
    12: (4, 2, 6),
    13: (4, 3, 6),
    14: (4, 4, 6),
    15: (4, 5, 6),
}
_GCS_VARIABLES = ("gcs_eye", "gcs_verbal", "gcs_motor")
# Charts of ventilation at most so far apart belong to one course.
_COURSE_MINUTES = 8 * 60


def read(data: Path) -> Iterator[Record]:
    """Each stay at each landmark.

    Raises DataMissing if files are missing, DataError if a file is damaged.
    """
    for stay in read_stays(data):
        for landmark in LANDMARKS_HOURS:
            yield _record(stay, landmark)


def _record(stay: Stay, landmark: int) -> Record:
    until = landmark * 60
    known = {
        parameter: [event for event in events if event[0] <= until]
        for parameter, events in stay.events.items()
    }
    return Record(
        payload=as_payload(
            {
                "as_of": _clock(until),
                "tabular": _tabular(stay.descriptors),
                "series": list(_series(known)),
                "treatments": list(_ventilation(known.get(VENTILATION, ()), until)),
            }
        ),
        outcomes=_outcomes(stay.outcomes, landmark),
        patient=stay.record_id,
        site="cinc2012",
        stay=stay.record_id,
        landmark_hours=float(landmark),
        groups={"years": "2001-2008"},
    )


def _clock(minute: int) -> datetime:
    return _ADMITTED + timedelta(minutes=minute)


def _tabular(descriptors: Mapping[str, float]) -> dict[str, Any]:
    return {
        "age": descriptors.get("Age"),
        "sex": _SEX.get(descriptors.get("Gender", -1.0)),
        "height_cm": descriptors.get("Height"),
        "weight_kg": descriptors.get("Weight"),
        "unit_type": _UNIT_TYPE.get(descriptors.get("ICUType", -1.0)),
        "admitted_at": _ADMITTED,
    }


def _series(known: Mapping[str, list[Event]]) -> Iterator[dict[str, Any]]:
    """The series of a payload. Invasive and non-invasive pressures are series of one variable."""
    for parameter in sorted(known.keys() & VARIABLES.keys()):
        variable, unit = VARIABLES[parameter]
        off = _sensor_off().get(variable)
        invasive = {minute for minute, _ in known.get(_INVASIVE.get(parameter, ""), ())}
        events = [
            (minute, value)
            for minute, value in known[parameter]
            if value != off and minute not in invasive
        ]
        if events:
            yield _one_series(variable, unit, events)
    scores = [(m, GCS_PARTS[int(v)]) for m, v in known.get(GCS, ()) if v in GCS_PARTS]
    for i, variable in enumerate(_GCS_VARIABLES if scores else ()):
        yield _one_series(variable, "{score}", [(m, float(parts[i])) for m, parts in scores])


def _one_series(variable: str, unit: str, events: list[Event]) -> dict[str, Any]:
    return {
        "variable": variable,
        "unit": unit,
        "times": [_clock(minute) for minute, _ in events],
        "values": [value for _, value in events],
    }


@cache
def _sensor_off() -> dict[str, float]:
    """The value of a detached sensor, by variable."""
    return {v.name: v.sensor_off for v in load_variables() if v.sensor_off is not None}


def _ventilation(charts: list[Event] | tuple[()], until: int) -> Iterator[dict[str, Any]]:
    """The courses of mechanical ventilation. A course runs if it may have a later chart."""
    courses: list[tuple[int, int]] = []
    for minute, _ in charts:
        if courses and minute - courses[-1][1] <= _COURSE_MINUTES:
            courses[-1] = (courses[-1][0], minute)
        else:
            courses.append((minute, minute))
    for start, last in courses:
        runs = until - last <= _COURSE_MINUTES
        yield {
            "name": "mechanical_ventilation",
            "start": _clock(start),
            "end": None if runs else _clock(last),
        }


def _outcomes(outcomes: Mapping[str, float], landmark: int) -> Outcomes:
    """Death in hospital, and the remaining days of a stay that lies ahead."""
    labels: dict[str, bool | float | str] = {}
    if "In-hospital_death" in outcomes:
        labels[MORTALITY] = outcomes["In-hospital_death"] == 1
    remaining = outcomes.get("Length_of_stay", 0.0) - landmark / 24
    if remaining > 0:
        labels["length_of_stay"] = remaining
    return labels
