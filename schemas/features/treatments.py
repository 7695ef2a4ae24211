"""Treatment features: whether each was given, whether it runs, since when, and at which rate."""

import math
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from schemas.features.infusion_rates import Rates
from schemas.features.input_report import Ledger
from schemas.features.spec import TREATMENT_FEATURES, FeatureSpec, Floats
from schemas.payload import Payload, TreatmentGiven
from schemas.request_errors import LISTED
from schemas.response import Merged
from schemas.terminology.treatment_names import AMBIGUOUS, find_treatment

_Course = tuple[datetime, datetime | None, float | None, str | None]
MOST_NAMES = 200  # different names that are read in one request: one may take half a millisecond


def treatment_features(payload: Payload, spec: FeatureSpec, ledger: Ledger) -> tuple[Floats, bool]:
    """[T, 4] by TREATMENT_FEATURES, and whether any treatment is in the window.

    A course without an end runs, unless its rate is 0. The rates of all courses of one treatment
    that run at `as_of` add up, in whatever order they come; a course that is sent twice counts
    once.
    """
    out = np.zeros((len(spec.treatments), len(TREATMENT_FEATURES)), dtype=np.float32)
    out[:, 2:] = np.nan
    running: dict[int, list[tuple[int, float]]] = {}
    rates = Rates(payload, spec, ledger)
    indices = _indices(payload, spec, ledger)
    for i, index in _distinct(payload, indices, spec, ledger):
        given, pointer = payload.treatments[i], f"/treatments/{i}"
        started = (payload.as_of - given.start).total_seconds() / 3600
        ended = 0.0 if given.end is None else (payload.as_of - given.end).total_seconds() / 3600
        if ended >= spec.window_hours:
            detail = f"the model reads the last {spec.window_hours:g} hours"
            ledger.ignore(pointer, "before_window", detail)
            continue
        known = spec.treatments[index]
        ledger.treatments[known.name] = None
        row = out[index]
        row[0] = 1.0
        row[2] = np.fmax(row[2], min(started, spec.window_hours))
        if given.end is None and given.rate == 0:
            ledger.read(f"{pointer}/rate", "not running", "a course without an end, at a rate of 0")
            continue
        rate = rates.canonical(i, known)
        if given.end is None:
            row[1] = 1.0
            if not math.isnan(rate):
                running.setdefault(index, []).append((i, rate))
    for index, courses in running.items():
        out[index, 3] = math.fsum(rate for _, rate in courses)
        if len(courses) > 1:
            ledger.merged.append(
                Merged(
                    variable=spec.treatments[index].name,
                    reason="rates_added",
                    pointers=tuple(f"/treatments/{i}" for i, _ in courses[:LISTED]),
                    observations=len(courses),
                )
            )
    return out, bool(out[:, 0].any())


def treatment_indices(given: Sequence[TreatmentGiven], spec: FeatureSpec) -> list[int | None]:
    """Index of the treatment of each course; None where none, or more than one, has its name."""
    read: dict[str, int | None] = dict(spec.treatment_index)
    most = len(read) + MOST_NAMES
    for course in given:
        if course.name not in read and len(read) < most:
            read[course.name] = spec.treatment_index.get(_found(course.name, spec))
    return [read.get(course.name) for course in given]


def _found(name: str, spec: FeatureSpec) -> str:
    return find_treatment(name, spec.treatment_names) or ""


def _indices(payload: Payload, spec: FeatureSpec, ledger: Ledger) -> list[int | None]:
    """The same, with what the receipt says of names."""
    indices = treatment_indices(payload.treatments, spec)
    looked_up = 0
    for i, (given, index) in enumerate(zip(payload.treatments, indices, strict=True)):
        pointer = f"/treatments/{i}"
        if index is None:
            looked_up += 1
            if looked_up <= MOST_NAMES and _found(given.name, spec) == AMBIGUOUS:
                detail = "the name fits more than one treatment; see GET /variables"
                ledger.ignore(pointer, "ambiguous_treatment", detail)
            else:
                detail = "the model knows no such treatment; see GET /variables"
                ledger.ignore(pointer, "unknown_treatment", detail)
        elif given.name != spec.treatments[index].name:
            known = spec.treatments[index]
            detail = f"the name was read as that of {known.display}"
            ledger.read(f"{pointer}/name", known.name, detail)
    return indices


def _distinct(
    payload: Payload, indices: list[int | None], spec: FeatureSpec, ledger: Ledger
) -> list[tuple[int, int]]:
    """Place and treatment of each course that is known; of equal ones the first."""
    courses: dict[tuple[int, _Course], list[int]] = {}
    for i, index in enumerate(indices):
        if index is not None:
            given = payload.treatments[i]
            course = (given.start, given.end, given.rate, given.unit)
            courses.setdefault((index, course), []).append(i)
    for (index, _), places in courses.items():
        if len(places) > 1:
            ledger.merged.append(
                Merged(
                    variable=spec.treatments[index].name,
                    reason="given_more_than_once",
                    pointers=tuple(f"/treatments/{i}" for i in places[:LISTED]),
                    observations=len(places),
                )
            )
    return [(places[0], index) for (index, _), places in courses.items()]
