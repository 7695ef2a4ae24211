"""Requests to measure with, of real patients, by kind.

Patients of the MIMIC-IV demo at 6 to 48 hours. The demo has neither notes nor X-rays: notes are
those of eICU patients, X-rays those of NIH's, so that all four modalities are real and of no one
patient. Nothing of it is kept beyond the run.
"""

from collections.abc import Iterator
from datetime import timedelta
from itertools import cycle, islice
from pathlib import Path

from model.cohorts import Record, eicu, mimic_iv, nih_cxr
from schemas.payload import Payload, Series

COUNT = 128  # bodies of each kind
KINDS = ("vitals", "notes", "all", "again", "series")
# How it grows: that many observations of all variables, and nothing else.
OBSERVATIONS = (10, 100, 1000, 5000)
GROWING = tuple(f"{count}_observations" for count in OBSERVATIONS)
# Digits of a vital sign that whoever sends a body makes anew each time.
CHANGING = b"55555"
CHANGE = ("again", "series")
VITALS = {
    *("heart_rate", "respiratory_rate", "oxygen_saturation", "temperature"),
    *("systolic_blood_pressure", "diastolic_blood_pressure", "mean_arterial_pressure"),
}


def make(data: Path, folder: Path) -> None:
    """Writes `KIND/NUMBER.json` for each of KINDS and GROWING.

    `vitals`: vital signs only. `notes`: all that the demo knows, with notes. `all`: with an X-ray,
    too. `again`: as `all`, but for a vital sign that is another each time. `series`: as `again`,
    without notes and X-ray.
    """
    records = mimic_iv.read(data)
    patients = [r.payload for r in records if r.payload.series and r.payload.tabular]
    notes = cycle(_some(eicu.read(data), "notes"))
    images = cycle(_some(nih_cxr.read(data), "images"))
    for kind in (*KINDS, *GROWING):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    step = max(1, len(patients) // COUNT)
    for number, patient in enumerate(islice(patients, 0, COUNT * step, step)):
        vitals = [s for s in patient.series if s.variable in VITALS] or list(patient.series)[:1]
        note, image = next(notes), next(images)
        noted = patient.model_copy(update={"notes": _moved(note.notes, note, patient)})
        whole = noted.model_copy(update={"images": _moved(image.images, image, patient)})
        first = whole.series[0]
        *others, last = first.values
        changing = float(f"{last:.0f}.{CHANGING.decode()}")
        changed = first.model_copy(update={"values": [*others, changing]})
        again = whole.model_copy(update={"series": [changed, *whole.series[1:]]})
        of_kind = {
            "vitals": Payload(as_of=patient.as_of, series=vitals),
            "notes": noted,
            "all": whole,
            "again": again,
            "series": again.model_copy(update={"notes": [], "images": []}),
        }
        for kind, count in zip(GROWING, OBSERVATIONS, strict=True):
            of_kind[kind] = Payload(as_of=patient.as_of, series=_observed(patient, count))
        for kind, payload in of_kind.items():
            text = payload.model_dump_json(exclude_none=True, exclude_defaults=True)
            (folder / kind / f"{number}.json").write_text(text, encoding="utf-8")


def _observed(patient: Payload, count: int) -> list[Series]:
    """The patient's series, the latest `count` observations of them; if it has fewer, each again a
    second before, and so on.
    """
    every = [(t, v, s) for s in patient.series for t, v in zip(s.times, s.values, strict=True)]
    every.sort(key=lambda one: one[0], reverse=True)
    repeats = -(-count // len(every))
    chosen = [(t - timedelta(seconds=k), v, s) for k in range(repeats) for t, v, s in every][:count]
    found = []
    for series in patient.series:
        points = sorted((t, v) for t, v, s in chosen if s is series)
        if points:
            times, values = zip(*points, strict=True)
            found.append(series.model_copy(update={"times": list(times), "values": list(values)}))
    return found


def _some(records: Iterator[Record], field: str) -> list[Payload]:
    """The first payloads that have it."""
    return list(islice((r.payload for r in records if getattr(r.payload, field)), COUNT))


def _moved(parts: list, origin: Payload, patient: Payload) -> list:
    """As long before this patient's moment as they were before their own."""
    by = patient.as_of - origin.as_of
    return [part.model_copy(update={"time": part.time + by}) for part in parts]
