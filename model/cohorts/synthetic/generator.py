"""Draws the synthetic patients."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from model.cohorts import Outcomes, Record
from model.cohorts.synthetic.graph import causal_graph
from model.cohorts.synthetic.parameters import (
    DISEASES,
    DISPOSITIONS,
    FACTORS,
    JITTER,
    MEASUREMENTS,
    MENTION_RATES,
    MODALITY_RATES,
    OBSERVABLES,
    SIGN_RATES,
    TASKS,
    TREATMENTS,
    X_RAY_SIGNS,
)
from model.cohorts.synthetic.x_ray import chest_xray
from schemas.payload import Payload, as_payload
from schemas.tasks import load_tasks
from schemas.variables import load_treatments, load_variables

PATIENTS = 1600
SEED = 44
SITES = 20
AS_OF = datetime(2026, 11, 23, 10, tzinfo=UTC)

_NORMAL = NormalDist()
_QUARTERS = 96
# The quarter hours of one day, from the oldest to the last before `as_of`.
_TIMES = np.array([AS_OF - timedelta(minutes=15 * k) for k in range(_QUARTERS, 0, -1)])
_ADMISSIONS = {
    "admission_source": ("emergency", "operating_room", "ward", "other_hospital"),
    "unit_type": ("medical_icu", "surgical_icu", "mixed_icu", "cardiac_icu", "neuro_icu"),
}


def read(data: Path, count: int = PATIENTS) -> Iterator[Record]:  # noqa: ARG001 (as every reader)
    """The synthetic cohort: the first patients of SEED. Needs no data."""
    return patients(count, SEED)


def patients(count: int, seed: int) -> Iterator[Record]:
    """Patients drawn from `seed`, one record each, 24 h after admission.

    A patient depends only on the seed and on its own number, not on `count`.
    """
    for number in range(count):
        yield _patient(number, np.random.Generator(np.random.PCG64([seed, number])))


def _patient(number: int, draw: np.random.Generator) -> Record:
    graph = causal_graph()
    factors = draw.normal(size=len(FACTORS))
    liability = factors @ graph.loadings + draw.normal(size=len(TASKS)) * graph.own
    shift = factors @ graph.from_factors + liability @ graph.from_tasks
    shift += draw.normal(size=len(OBSERVABLES)) * graph.noise
    outcomes = _outcomes(dict(zip(TASKS, liability.tolist(), strict=True)))
    shifts = dict(zip(OBSERVABLES, shift.tolist(), strict=True))
    payload = _payload(number, outcomes, shifts, draw)
    name = f"{number:04}"
    site = f"hospital-{number % SITES:02}"
    return Record(payload, outcomes, patient=name, site=site, stay=name, landmark_hours=24.0)


def _outcomes(liability: Mapping[str, float]) -> Outcomes:
    outcomes: dict[str, bool | float | str] = {
        name: liability[name] > _NORMAL.inv_cdf(1 - disease.prevalence)
        for name, disease in DISEASES.items()
    }
    for task in load_tasks():
        if task.subset_of is not None and outcomes[task.name]:
            outcomes[task.subset_of] = True
    outcomes["length_of_stay"] = round(float(np.exp(1.6 + 0.7 * liability["length_of_stay"])), 2)
    rank = _NORMAL.cdf(liability["discharge_disposition"])
    alive = next((name for name, limit in DISPOSITIONS if rank < limit), "other_facility")
    outcomes["discharge_disposition"] = "died" if outcomes["in_hospital_mortality"] else alive
    return outcomes


def _payload(
    number: int, outcomes: Outcomes, shift: Mapping[str, float], draw: np.random.Generator
) -> Payload:
    """The request of a patient. `shift`: of each observable, in standard deviations."""
    age = int(np.clip(64 + 15 * shift["age"], 18, 95))
    sex = "female" if shift["female"] > 0 else "male"
    payload: dict[str, Any] = {"patient_id": f"synthetic-{number:04}", "as_of": AS_OF}
    present = [m for m, rate in MODALITY_RATES.items() if draw.random() < rate] or ["tabular"]
    if "tabular" in present:
        payload["tabular"] = {
            "age": float(age),
            "sex": sex,
            "height_cm": float(round(172 + 8 * shift["height_cm"] - 12 * (sex == "female"))),
            "weight_kg": round(80 * 1.22 ** shift["weight_kg"], 1),
            "admitted_at": AS_OF - timedelta(days=1),
            **{field: str(draw.choice(kinds)) for field, kinds in _ADMISSIONS.items()},
        }
    if "series" in present:
        payload["series"] = _series(shift, draw)
        payload["treatments"] = _treatments(shift, draw)
    if "notes" in present:
        payload["notes"] = [_note(age, sex, outcomes, draw)]
    if "image" in present:
        payload["images"] = [_image(outcomes, draw)]
    return as_payload(payload)


def _series(shift: Mapping[str, float], draw: np.random.Generator) -> list[dict[str, Any]]:
    series = []
    variables = {variable.name: variable for variable in load_variables()}
    for name, measurement in MEASUREMENTS.items():
        variable = variables[name]
        count = min(draw.poisson(measurement.per_day), _QUARTERS)
        quarters = np.sort(draw.choice(_QUARTERS, count, replace=False))
        z = (shift[name] + JITTER * draw.normal(size=count)) / np.hypot(1, JITTER)
        typical, spread = measurement.typical, measurement.spread
        value = typical * spread**z if measurement.skewed else typical + spread * z
        # Scores are whole numbers; other values have three digits of the typical value.
        digits = 0 if variable.unit == "{score}" else 2 - int(np.floor(np.log10(typical)))
        value = np.round(np.clip(value, *variable.plausible), digits)
        if count:
            values = {"times": _TIMES[quarters].tolist(), "values": value.tolist()}
            series.append({"variable": name, "unit": variable.unit, **values})
    return series


def _treatments(shift: Mapping[str, float], draw: np.random.Generator) -> list[dict[str, Any]]:
    treatments = []
    units = {treatment.name: treatment.unit for treatment in load_treatments()}
    for name, parameters in TREATMENTS.items():
        start, end = np.sort(draw.integers(_QUARTERS, size=2))
        running, factor = draw.random() < 0.7, float(np.exp(0.4 * draw.normal()))
        if shift[name] > _NORMAL.inv_cdf(1 - parameters.prevalence):
            treatment: dict[str, Any] = {"name": name, "start": _TIMES[start]}
            treatment["end"] = None if running else _TIMES[end]
            if parameters.rate is not None:
                rate = float(f"{parameters.rate * factor:.2g}")
                treatment |= {"rate": rate, "unit": units[name]}
            treatments.append(treatment)
    return treatments


def _note(age: int, sex: str, outcomes: Outcomes, draw: np.random.Generator) -> dict[str, Any]:
    names = draw.permutation(list(DISEASES)).tolist()
    mentioned = [n for n in names if draw.random() < MENTION_RATES[0 if outcomes[n] else 1]]
    excluded = [n for n in names if not outcomes[n] and n not in mentioned][:2]
    findings, exclusions = (
        ", ".join(DISEASES[n].phrase for n in diseases) for diseases in (mentioned, excluded)
    )
    text = (
        f"{age}-year-old {'woman' if sex == 'female' else 'man'}, admitted yesterday. "
        f"History and findings: {findings or 'nothing of note'}. Not found: {exclusions}. "
        "Monitoring, laboratory tests and treatment as ordered."
    )
    return {"kind": "admission", "time": AS_OF - timedelta(hours=20), "text": text}


def _image(outcomes: Outcomes, draw: np.random.Generator) -> dict[str, Any]:
    ill = {sign: any(outcomes[name] for name in names) for sign, names in X_RAY_SIGNS.items()}
    visible = {sign for sign in X_RAY_SIGNS if draw.random() < SIGN_RATES[0 if ill[sign] else 1]}
    data = chest_xray(visible, draw)
    time = AS_OF - timedelta(hours=3)
    return {"time": time, "view": "AP", "media_type": "image/png", "data": data}
