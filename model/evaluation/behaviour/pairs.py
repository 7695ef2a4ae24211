"""The patient before and after the change of an expectation."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from model.evaluation.behaviour.expectations import Expectation
from schemas.payload import Note, Payload, Series, Tabular, TreatmentGiven
from schemas.variables import load_variables, normalize_name

NEUTRAL_NOTE = "Patient seen and examined."
NOTE_KIND = "progress"
TREATMENT_HOURS = 6.0  # how long a treatment has been running
WINDOW_HOURS = 24  # how far back the values of a series are replaced
LATEST_HOURS = 0.25  # the time of the latest value, before `as_of`
# Hours between two values of a variable, as they are usually measured.
USUAL_HOURS = {
    "heart_rate": 1,
    "respiratory_rate": 1,
    "oxygen_saturation": 1,
    "systolic_blood_pressure": 1,
    "diastolic_blood_pressure": 1,
    "mean_arterial_pressure": 1,
    "temperature": 4,
    "creatinine": 12,
    "blood_urea_nitrogen": 12,
    "sodium": 12,
    "potassium": 12,
    "chloride": 12,
    "bicarbonate": 12,
    "glucose": 6,
    "hemoglobin": 12,
    "white_blood_cells": 12,
    "platelets": 12,
    "lactate": 12,
    "inr": 24,
    "bilirubin_total": 24,
    "albumin": 24,
}
OTHER_HOURS = 6

_NAMES = {
    variable.name: {normalize_name(name) for name in (variable.name, *variable.aliases)}
    | {f"loinc:{code}" for code in variable.loinc}
    for variable in load_variables()
}


@dataclass(frozen=True)
class Pair:
    """A patient before and after a change."""

    before: Payload
    after: Payload


def make_pair(payload: Payload, expectation: Expectation) -> Pair:
    """Applies the change of an expectation to a patient. Both sides are measured equally often.

    A series replaces all values of its variable, under any of its names. A treatment that the
    patient already has is removed from the patient before. A note replaces all notes.
    """
    before, after = payload, payload
    for variable, change in expectation.series.items():
        before = with_series(before, variable, change.unit, change.before)
        after = with_series(after, variable, change.unit, change.after)
    if expectation.tabular:
        before = _with_tabular(before, {f: v[0] for f, v in expectation.tabular.items()})
        after = _with_tabular(after, {f: v[1] for f, v in expectation.tabular.items()})
    if expectation.treatment is not None:
        before = _without_treatment(before, expectation.treatment)
        after = _with_treatment(after, expectation.treatment)
    if expectation.note is not None:
        before = _with_note(before, None if expectation.against_none else NEUTRAL_NOTE)
        after = _with_note(after, f"{NEUTRAL_NOTE} {expectation.note}")
    return Pair(before, after)


def usual_times(variable: str, as_of: datetime) -> list[datetime]:
    """The times of the last 24 h at which a variable is usually measured, in ascending order."""
    hours = range(0, WINDOW_HOURS, USUAL_HOURS.get(variable, OTHER_HOURS))
    return [as_of - timedelta(hours=hour + LATEST_HOURS) for hour in reversed(hours)]


def with_series(payload: Payload, variable: str, unit: str | None, value: float) -> Payload:
    """The patient with one level of a variable over the last 24 h, and no other values of it."""
    times = usual_times(variable, payload.as_of)
    level = Series(variable=variable, unit=unit, times=times, values=[value] * len(times))
    names = _NAMES[variable]
    kept = [series for series in payload.series if normalize_name(series.variable) not in names]
    return payload.model_copy(update={"series": [*kept, level]})


def _with_tabular(payload: Payload, values: dict[str, Any]) -> Payload:
    tabular = payload.tabular or Tabular()
    return payload.model_copy(update={"tabular": tabular.model_copy(update=values)})


def _without_treatment(payload: Payload, name: str) -> Payload:
    kept = [course for course in payload.treatments if course.name != name]
    return payload.model_copy(update={"treatments": kept})


def _with_treatment(payload: Payload, name: str) -> Payload:
    start = payload.as_of - timedelta(hours=TREATMENT_HOURS)
    kept = _without_treatment(payload, name).treatments
    course = TreatmentGiven(name=name, start=start, end=None)
    return payload.model_copy(update={"treatments": [*kept, course]})


def _with_note(payload: Payload, text: str | None) -> Payload:
    notes = []
    if text is not None:
        notes = [Note(kind=NOTE_KIND, time=payload.as_of, text=text)]
    return payload.model_copy(update={"notes": notes})
