"""The variables and treatments that change no output of a bundle.

They are measured with the serving engine on the made base patients. Each input of each patient is
left out, and set to several levels, while everything else stays as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from model.evaluation.behaviour.pairs import TREATMENT_HOURS, usual_times
from schemas.features import Array, FeatureSpec, extract_features
from schemas.features.infusion_rates import WEIGHT
from schemas.manifest import ServedTask
from schemas.payload import Payload, as_payload
from schemas.response import Modality, NotLearned
from schemas.variables import Treatment, Variable
from service.runtime.bundle import Bundle
from service.runtime.engine import Embedding, Engine, Outputs

# The change of an output from which an input counts as learned: of the log-odds of a probability,
# or of the logarithm of a length of stay.
LEAST_CHANGE = 0.01
_SMALLEST = 1e-6  # probabilities and days are clipped, so that their logarithms are finite
_BATCH = 512  # patients that the engine gets at once

_Series = dict[str, Array]  # `statistics` [V, S] and `treatments` [T, 4] of one patient
_Logs = npt.NDArray[np.float64]


def measure_not_learned(bundle: Bundle, patients: Mapping[str, Payload]) -> NotLearned:
    """The variables and treatments whose largest change of any output is below LEAST_CHANGE.

    A variable is absent, or has the lowest plausible, a typical or the highest plausible value over
    the last 24 h. A treatment is absent, given, running, or running at the highest plausible rate.
    Tasks that abstain are left out. The body weight always counts as learned: rates by weight are
    converted with it.
    """
    spec, engine = bundle.manifest.spec, Engine(bundle)
    changes = {"statistics": np.zeros(len(spec.variables))}
    changes["treatments"] = np.zeros(len(spec.treatments))
    for payload in patients.values():
        for name, change in _patient_changes(engine, payload).items():
            changes[name] = np.maximum(changes[name], change)
    return NotLearned(
        variables=tuple(
            variable.name
            for variable, change in zip(spec.variables, changes["statistics"], strict=True)
            if change < LEAST_CHANGE and variable.name != WEIGHT
        ),
        treatments=tuple(
            treatment.name
            for treatment, change in zip(spec.treatments, changes["treatments"], strict=True)
            if change < LEAST_CHANGE
        ),
    )


def _patient_changes(engine: Engine, payload: Payload) -> dict[str, _Logs]:
    """The largest change of any output of a patient by variable [V] and by treatment [T].

    NaN, which counts as a change, if an output is not finite.
    """
    manifest = engine.bundle.manifest
    served = [task for task in manifest.tasks if task.abstains is None]
    arrays = extract_features(payload, manifest.spec).arrays
    levels = _all_levels(manifest.spec, payload.as_of)
    base = levels[0] | arrays.get("series", {})
    others: dict[Modality, Embedding] = {
        modality: engine.embed(modality, [features])[0]
        for modality, features in arrays.items()
        if modality != "series" and modality in engine.bundle.encoders
    }
    variants = _variants(base, levels)
    logs: list[_Logs] = []
    while batch := list(islice(variants, _BATCH)):
        embeddings = engine.embed("series", batch)
        outputs = engine.run([{**others, "series": embedding} for embedding in embeddings])
        logs += [_log_outputs(served, output) for output in outputs]
    by_input = np.ptp(np.array(logs).reshape(-1, len(levels), len(logs[0])), axis=1).max(axis=1)
    count = len(manifest.spec.variables)
    return {"statistics": by_input[:count], "treatments": by_input[count:]}


def _variants(base: _Series, levels: Sequence[_Series]) -> Iterator[_Series]:
    """The features of a patient with each variable, then each treatment, at each level."""
    for name in ("statistics", "treatments"):
        for row in range(len(base[name])):
            for level in levels:
                changed = base[name].copy()
                changed[row] = level[name][row]
                yield {**base, name: changed}


def _all_levels(spec: FeatureSpec, as_of: datetime) -> list[_Series]:
    """The features of a patient with all variables and treatments at the same level.

    The rows of two inputs are independent, so one extraction gives the rows of all.
    """
    present = [
        {
            "series": [_series(variable, level, as_of) for variable in spec.variables],
            "treatments": [_course(treatment, level, as_of) for treatment in spec.treatments],
        }
        for level in range(3)
    ]
    features = [_series_features({"as_of": as_of, **parts}, spec) for parts in present]
    absent = {
        part: _series_features({"as_of": as_of, part: present[0][part]}, spec)
        for part in ("series", "treatments")
    }
    nothing = {
        "statistics": absent["treatments"]["statistics"],
        "treatments": absent["series"]["treatments"],
    }
    return [nothing, *features]


def _series_features(payload: Mapping[str, Any], spec: FeatureSpec) -> _Series:
    return extract_features(as_payload(payload), spec).arrays["series"]


def _series(variable: Variable, level: int, as_of: datetime) -> dict[str, Any]:
    low, high = variable.plausible
    usual = variable.typical or variable.plausible
    value = (low, sum(usual) / 2, high)[level]
    times = usual_times(variable.name, as_of)
    return {
        "variable": variable.name,
        "unit": variable.unit,
        "times": times,
        "values": [value] * len(times),
    }


def _course(treatment: Treatment, level: int, as_of: datetime) -> dict[str, Any]:
    start = as_of - timedelta(hours=TREATMENT_HOURS)
    course: dict[str, Any] = {"name": treatment.name, "start": start}
    if level == 0:
        course["end"] = as_of - timedelta(hours=TREATMENT_HOURS / 2)
    elif level == 2 and treatment.unit is not None and treatment.plausible is not None:
        course |= {"rate": treatment.plausible[1], "unit": treatment.unit}
    return course


def _log_outputs(served: Sequence[ServedTask], outputs: Outputs) -> _Logs:
    """The log-odds of all probabilities and the logarithms of all values of a patient."""
    logs: list[float] = []
    for task in served:
        row = np.atleast_1d(outputs.fusion[task.output]).astype(np.float64)
        if task.task.kind == "regression":
            logs += np.log(np.maximum(row, _SMALLEST)).tolist()
            continue
        if task.column is not None:
            row = row[[task.column]]
        clipped = np.clip(row, _SMALLEST, 1 - _SMALLEST)
        logs += np.log(clipped / (1 - clipped)).tolist()
    return np.array(logs)
