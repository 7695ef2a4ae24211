"""Made base patients (`patients.toml`), so that a bundle can be judged without a data set."""

import tomllib
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from model.evaluation.behaviour.pairs import usual_times
from schemas.parsing.times import read_time
from schemas.payload import Payload, as_payload

_Hours = Annotated[float, Field(ge=0)]
Level = float | tuple[float, float]  # one value, or the first and the last


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Measured(_Strict):
    unit: str | None = None
    value: Level


class _Course(_Strict):
    name: str
    hours: _Hours


class _Note(_Strict):
    kind: str
    hours: _Hours
    text: str


class _Patient(_Strict):
    name: str
    hours: _Hours
    tabular: dict[str, Any]
    without: tuple[str, ...] = ()
    series: dict[str, Level] = {}
    more: dict[str, _Measured] = {}
    treatments: tuple[_Course, ...] = ()
    notes: tuple[_Note, ...] = ()


class _Patients(_Strict):
    as_of: str
    normal: dict[str, _Measured]
    patient: tuple[_Patient, ...]


@cache
def made_patients() -> dict[str, Payload]:
    """The made patients by name. The first has nothing wrong."""
    file = files("model").joinpath("evaluation", "behaviour", "patients.toml")
    declared = _Patients.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    as_of = read_time(declared.as_of)
    return {p.name: _payload(p, declared.normal, as_of) for p in declared.patient}


def _payload(patient: _Patient, normal: dict[str, _Measured], as_of: datetime) -> Payload:
    measured = {name: m for name, m in normal.items() if name not in patient.without}
    for name, level in patient.series.items():
        measured[name] = measured[name].model_copy(update={"value": level})
    measured |= patient.more

    def at(hours: float) -> datetime:
        return as_of - timedelta(hours=hours)

    return as_payload(
        {
            "patient_id": patient.name,
            "as_of": as_of,
            "tabular": {**patient.tabular, "admitted_at": at(patient.hours)},
            "series": [_series(name, m, as_of) for name, m in measured.items()],
            "treatments": [
                {"name": c.name, "start": at(c.hours), "end": None} for c in patient.treatments
            ],
            "notes": [{"kind": n.kind, "time": at(n.hours), "text": n.text} for n in patient.notes],
        }
    )


def _series(name: str, measured: _Measured, as_of: datetime) -> dict[str, Any]:
    times = usual_times(name, as_of)
    first, last = np.broadcast_to(measured.value, 2)
    values = np.linspace(first, last, len(times)).round(2).tolist()
    return {"variable": name, "unit": measured.unit, "times": times, "values": values}
