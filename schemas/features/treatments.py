"""Treatment features: whether each treatment was given and runs, its start, and its rate."""

import math
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from schemas.features.infusion_rates import RateConverter
from schemas.features.input_report import InputReport
from schemas.features.spec import TREATMENT_FEATURES, FeatureSpec, Floats
from schemas.payload import Payload, TreatmentGiven
from schemas.request_errors import MAX_LISTED
from schemas.terminology.treatment_names import AMBIGUOUS, find_treatment

_Course = tuple[datetime, datetime | None, float | None, str | None]
MAX_NAMES = 200  # distinct names that are looked up in one request; one may take 0.5 ms


def treatment_features(
    payload: Payload, spec: FeatureSpec, report: InputReport
) -> tuple[Floats, bool]:
    """Returns [T, 4], ordered by TREATMENT_FEATURES, and whether any treatment is in the window.

    A course without an end runs, unless its rate is 0. The rates of all courses of a treatment that
    run at `as_of` are added. Identical courses count once.
    """
    out = np.zeros((len(spec.treatments), len(TREATMENT_FEATURES)), dtype=np.float32)
    out[:, 2:] = np.nan
    running: dict[int, list[tuple[int, float]]] = {}
    rates = RateConverter(payload, spec, report)
    indices = _find_treatments(payload, spec, report)
    for i, index in _distinct_courses(payload, indices, spec, report):
        given, pointer = payload.treatments[i], f"/treatments/{i}"
        started = (payload.as_of - given.start).total_seconds() / 3600
        ended = 0.0 if given.end is None else (payload.as_of - given.end).total_seconds() / 3600
        if ended >= spec.window_hours:
            detail = f"the model reads the last {spec.window_hours:g} hours"
            report.add_ignored(pointer, "before_window", detail)
            continue
        known = spec.treatments[index]
        report.treatments[known.name] = None
        row = out[index]
        row[0] = 1.0
        row[2] = np.fmax(row[2], min(started, spec.window_hours))
        if given.end is None and given.rate == 0:
            detail = "a course without an end at a rate of 0 does not run"
            report.add_read_as(f"{pointer}/rate", "not running", detail)
            continue
        rate = rates.convert(i, known)
        if given.end is None:
            row[1] = 1.0
            if not math.isnan(rate):
                running.setdefault(index, []).append((i, rate))
    for index, courses in running.items():
        out[index, 3] = math.fsum(rate for _, rate in courses)
        if len(courses) > 1:
            report.add_merged(
                spec.treatments[index].name,
                "rates_added",
                tuple(f"/treatments/{i}" for i, _ in courses[:MAX_LISTED]),
                len(courses),
            )
    return out, bool(out[:, 0].any())


def treatment_indices(given: Sequence[TreatmentGiven], spec: FeatureSpec) -> list[int | None]:
    """Returns the treatment index of each course; None if no single treatment matches its name."""
    indices: dict[str, int | None] = dict(spec.treatment_index)
    limit = len(indices) + MAX_NAMES
    for course in given:
        if course.name not in indices and len(indices) < limit:
            indices[course.name] = spec.treatment_index.get(_find(course.name, spec))
    return [indices.get(course.name) for course in given]


def _find(name: str, spec: FeatureSpec) -> str:
    return find_treatment(name, spec.treatment_names) or ""


def _find_treatments(payload: Payload, spec: FeatureSpec, report: InputReport) -> list[int | None]:
    """Returns the treatment index of each course and reports unknown and unusual names."""
    indices = treatment_indices(payload.treatments, spec)
    looked_up = 0
    for i, (given, index) in enumerate(zip(payload.treatments, indices, strict=True)):
        pointer = f"/treatments/{i}"
        if index is None:
            looked_up += 1
            if looked_up <= MAX_NAMES and _find(given.name, spec) == AMBIGUOUS:
                detail = "the name matches more than one treatment; see GET /variables"
                report.add_ignored(pointer, "ambiguous_treatment", detail)
            else:
                detail = "the model does not know this treatment; see GET /variables"
                report.add_ignored(pointer, "unknown_treatment", detail)
        elif given.name != spec.treatments[index].name:
            known = spec.treatments[index]
            detail = f"a name of {known.display}"
            report.add_read_as(f"{pointer}/name", known.name, detail)
    return indices


def _distinct_courses(
    payload: Payload, indices: list[int | None], spec: FeatureSpec, report: InputReport
) -> list[tuple[int, int]]:
    """Returns payload index and treatment index of each known course, without duplicates."""
    courses: dict[tuple[int, _Course], list[int]] = {}
    for i, index in enumerate(indices):
        if index is not None:
            given = payload.treatments[i]
            course = (given.start, given.end, given.rate, given.unit)
            courses.setdefault((index, course), []).append(i)
    for (index, _), positions in courses.items():
        if len(positions) > 1:
            report.add_merged(
                spec.treatments[index].name,
                "given_more_than_once",
                tuple(f"/treatments/{i}" for i in positions[:MAX_LISTED]),
                len(positions),
            )
    return [(positions[0], index) for (index, _), positions in courses.items()]
