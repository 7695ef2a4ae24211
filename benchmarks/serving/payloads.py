"""Request bodies of several kinds, made from real patients.

The patients are those of the MIMIC-IV demo at 6 to 48 hours. The demo has neither notes nor X-rays,
so the notes come from eICU patients and the X-rays from NIH ChestX-ray14. All four modalities are
real, but come from different patients. The files are deleted after the run.
"""

from collections.abc import Iterator
from datetime import timedelta
from itertools import cycle, islice
from pathlib import Path

from model.cohorts import Record, eicu, mimic_iv, nih_cxr
from schemas.payload import Payload, Series

COUNT = 128  # bodies per kind
KINDS = ("vitals", "notes", "all", "again", "series")
# Kinds with a given number of observations over all variables, and nothing else.
OBSERVATIONS = (10, 100, 1000, 5000)
GROWING = tuple(f"{count}_observations" for count in OBSERVATIONS)
# Digits of a vital sign that the sender replaces in each request, for the kinds CHANGED_KINDS.
CHANGING = b"55555"
CHANGED_KINDS = ("again", "series")
VITALS = {
    *("heart_rate", "respiratory_rate", "oxygen_saturation", "temperature"),
    *("systolic_blood_pressure", "diastolic_blood_pressure", "mean_arterial_pressure"),
}


def write(data: Path, folder: Path) -> None:
    """Writes `KIND/NUMBER.json` for each of KINDS and GROWING.

    `vitals`: vital signs only. `notes`: all data of the demo, with notes. `all`: `notes` with an
    X-ray. `again`: `all` with a vital sign that changes in each request. `series`: `again` without
    notes and X-ray.
    """
    records = mimic_iv.read(data)
    patients = [r.payload for r in records if r.payload.series and r.payload.tabular]
    notes = cycle(_payloads_with("notes", eicu.read(data)))
    images = cycle(_payloads_with("images", nih_cxr.read(data)))
    for kind in (*KINDS, *GROWING):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    step = max(1, len(patients) // COUNT)
    for number, patient in enumerate(islice(patients, 0, COUNT * step, step)):
        for kind, payload in _by_kind(patient, next(notes), next(images)).items():
            text = payload.model_dump_json(exclude_none=True, exclude_defaults=True)
            (folder / kind / f"{number}.json").write_text(text, encoding="utf-8")


def _by_kind(patient: Payload, note: Payload, image: Payload) -> dict[str, Payload]:
    """Returns the patient's payload of each kind, with the notes and images of other patients."""
    vitals = [s for s in patient.series if s.variable in VITALS] or list(patient.series)[:1]
    with_notes = patient.model_copy(update={"notes": _shifted(note.notes, note, patient)})
    complete = with_notes.model_copy(update={"images": _shifted(image.images, image, patient)})
    first, *others = complete.series
    *earlier, last = first.values
    changing = float(f"{last:.0f}.{CHANGING.decode()}")
    changed = first.model_copy(update={"values": [*earlier, changing]})
    again = complete.model_copy(update={"series": [changed, *others]})
    growing = {
        kind: Payload(as_of=patient.as_of, series=_latest_observations(patient, count))
        for kind, count in zip(GROWING, OBSERVATIONS, strict=True)
    }
    return {
        "vitals": Payload(as_of=patient.as_of, series=vitals),
        "notes": with_notes,
        "all": complete,
        "again": again,
        "series": again.model_copy(update={"notes": [], "images": []}),
        **growing,
    }


def _latest_observations(patient: Payload, count: int) -> list[Series]:
    """Returns the patient's series with the latest `count` observations.

    If the patient has fewer, the observations are repeated one second earlier, and so on.
    """
    observed = [(t, v, s) for s in patient.series for t, v in zip(s.times, s.values, strict=True)]
    observed.sort(key=lambda observation: observation[0], reverse=True)
    repeats = -(-count // len(observed))
    latest = [(t - timedelta(seconds=k), v, s) for k in range(repeats) for t, v, s in observed]
    result = []
    for series in patient.series:
        points = sorted((t, v) for t, v, s in latest[:count] if s is series)
        if points:
            times, values = zip(*points, strict=True)
            result.append(series.model_copy(update={"times": list(times), "values": list(values)}))
    return result


def _payloads_with(field: str, records: Iterator[Record]) -> list[Payload]:
    """Returns the first COUNT payloads that have the field."""
    return list(islice((r.payload for r in records if getattr(r.payload, field)), COUNT))


def _shifted(parts: list, origin: Payload, patient: Payload) -> list:
    """Returns notes or images of another patient, with times relative to this patient's `as_of`."""
    shift = patient.as_of - origin.as_of
    return [part.model_copy(update={"time": part.time + shift}) for part in parts]
