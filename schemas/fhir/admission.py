"""The tabular data: Patient, the Encounter of the stay, height and weight (FHIR R4, section 8)."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from schemas.features import FeatureSpec
from schemas.fhir.document import Resource
from schemas.fhir.entries import Entries, indexed_objects, is_modified, objects
from schemas.fhir.record import Place, Record, codes, texts
from schemas.fhir.times import InvalidTime, completed_years
from schemas.terminology.categories import NOT_KNOWN, find_category
from schemas.terminology.height import CENTIMETRES, HEIGHT, centimetres

# Codes of v3-ActCode for an Encounter in which the patient has a bed, and for the emergency room.
_INPATIENT = ("IMP", "ACUTE", "NONAC", "OBSENC", "SS")
_EMERGENCY = "EMER"
_NO_STAY = ("planned", "cancelled", "entered-in-error", "unknown")
# Codes of http://terminology.hl7.org/CodeSystem/admit-source that the category texts lack.
_ADMIT_SOURCES = {
    "emd": "emergency",
    "hosp-trans": "other_hospital",
    "outp": "direct",
    "gp": "direct",
    "mp": "direct",
    "nursing": "direct",
}
_WEIGHT_VARIABLE = "body_weight"
_RECENT_WEIGHT = timedelta(days=30)


class _Location(NamedTuple):
    start: datetime
    end: datetime | None
    unit: str
    place: Place

    def order(self) -> tuple[datetime, str, Place]:
        """The key that orders the locations of a stay."""
        return self.start, self.unit, self.place


def read_patient(entries: Entries, record: Record) -> None:
    """Reads age and sex. Warns if the patient died before `as_of`."""
    if entries.patient is None:
        record.assume((-1, ""), "the Bundle has no Patient: age and sex are unknown")
        return
    i, patient = entries.patient
    if is_modified(record, (i, ""), patient):
        return
    if "birthDate" in patient:
        _read_age(i, patient["birthDate"], record)
    gender = patient.get("gender")
    if isinstance(gender, str):
        _set(record, "sex", gender, (i, "gender"))
    elif gender is not None:
        record.add_error((i, "gender"), "string", "must be a code")
    died = patient.get("deceasedDateTime")
    time = None if died is None else record.time(died, (i, "deceased"))
    if patient.get("deceasedBoolean") is True or (time is not None and time <= record.as_of):
        detail = "the Patient is recorded as deceased; check that as_of is before the death"
        record.assume((i, "deceased"), detail)


def _read_age(i: int, birth: object, record: Record) -> None:
    place = (i, "birthDate")
    try:
        age = completed_years(birth, record.as_of)
    except InvalidTime as error:
        record.add_error(place, error.rule, error.detail)
        return
    if age is None:
        record.add_error(place, "ordered", "must not be after as_of")
        return
    years, is_exact = age
    if not is_exact:
        record.assume(place, "the birth date is not exact; the age may differ by a year")
    _set(record, "age", float(years), place)


def _set(record: Record, field: str, value: object, place: Place) -> None:
    record.tabular[field] = value
    record.tabular_places[field] = place


# ---- the stay ------------------------------------------------------------------------------------


def read_stay(entries: Entries, record: Record) -> None:
    """Reads admission time, source and unit of the Encounter that contains `as_of`."""
    encounters = entries.of_type("Encounter")
    candidates = []
    for i, encounter in encounters:
        if encounter.get("status") in _NO_STAY or is_modified(record, (i, ""), encounter):
            continue
        rank = _class_rank(encounter)
        period = encounter.get("period")
        start, end = _period(period, (i, "period"), record) if rank else (None, None)
        if start is not None and start <= record.as_of and (end is None or end >= record.as_of):
            candidates.append((rank, start, entries.url(i), i, encounter))
    stay_entry = max(candidates, key=lambda candidate: candidate[:3], default=None)
    for j, _ in encounters:
        if stay_entry is None or j != stay_entry[3]:
            record.skip((j, ""), "not_the_stay", "an Encounter that is not the stay at as_of")
    if stay_entry is None:
        detail = "no inpatient or emergency Encounter contains as_of: the admission is unknown"
        record.assume((-1, "entry"), detail)
        return
    _, start, _, i, stay = stay_entry
    record.stay = i, start
    _read_admission(i, stay, start, entries, record)


def _class_rank(encounter: Resource) -> int:
    """2 for an inpatient Encounter, 1 for the emergency room, 0 for others."""
    kind = encounter.get("class")
    code = kind.get("code") if isinstance(kind, dict) else None
    return 2 if code in _INPATIENT else int(code == _EMERGENCY)


def _period(
    period: object, place: Place, record: Record
) -> tuple[datetime | None, datetime | None]:
    if not isinstance(period, dict):
        return None, None
    start, end = period.get("start"), period.get("end")
    head, below = place
    return (
        None if start is None else record.time(start, (head, f"{below}.start")),
        None if end is None else record.time(end, (head, f"{below}.end"), is_end=True),
    )


def _read_admission(
    i: int, stay: Resource, start: datetime, entries: Entries, record: Record
) -> None:
    location = _unit_at(i, stay, entries, record)
    if location is None:
        _set(record, "admitted_at", start, (i, "period.start"))
        detail = "no location of a known intensive care unit; the start of the Encounter is used"
        record.assume((i, "period.start"), detail)
    else:
        _set(record, "admitted_at", location.start, location.place)
        _set(record, "unit_type", location.unit, location.place)
    hospitalization = stay.get("hospitalization")
    source = hospitalization.get("admitSource") if isinstance(hospitalization, dict) else None
    if source is None:
        return
    place = (i, "hospitalization.admitSource")
    known = _category("admission_source", source, record.spec, _ADMIT_SOURCES.get)
    if known is None:
        detail = "the source of admission is none that the model knows; used as missing"
        record.skip(place, "unknown_category", detail)
    else:
        _set(record, "admission_source", known, place)


def _unit_at(i: int, stay: Resource, entries: Entries, record: Record) -> _Location | None:
    """The unit at `as_of`, with the time since which the patient is in units of this type."""
    known: list[_Location] = []
    for j, sent in indexed_objects(stay, "location"):
        place = (i, f"location[{j}]")
        unit = _unit_type(sent.get("location"), stay, entries, record.spec)
        start, end = _period(sent.get("period"), (i, f"location[{j}].period"), record)
        if unit is not None and start is not None and start <= record.as_of:
            known.append(_Location(start, end, unit, place))
    now = [part for part in known if part.end is None or part.end >= record.as_of]
    if not now:
        return None
    current = max(now, key=_Location.order)
    for part in sorted(known, key=_Location.order, reverse=True):
        if part.unit == current.unit and part.end == current.start:
            current = part
    return current


def _unit_type(
    reference: object, stay: Resource, entries: Entries, spec: FeatureSpec
) -> str | None:
    target = entries.resolve(reference, stay)
    names = [reference.get("display")] if isinstance(reference, dict) else []
    if target is not None:
        location = target[1]
        names += [location.get("name"), location.get("description")]
        for concept in objects(location, "type"):
            names += [*texts(concept), *codes(concept)]
    return _first_category("unit_type", names, spec)


def _category(
    field: str, concept: object, spec: FeatureSpec, by_code: Callable[[str], str | None]
) -> str | None:
    for code in codes(concept):
        known = by_code(code)
        if known in spec.categories.get(field, ()):
            return known
    return _first_category(field, [*texts(concept), *codes(concept)], spec)


def _first_category(field: str, names: list[object], spec: FeatureSpec) -> str | None:
    for name in names:
        category = find_category(field, name) if isinstance(name, str) else None
        if category not in (None, NOT_KNOWN) and category in spec.categories.get(field, ()):
            return category
    return None


# ---- height and weight ---------------------------------------------------------------------------


def read_height(heights: list[tuple[datetime, float, str | None, Place]], record: Record) -> None:
    """Takes the latest height in a known unit. Earlier heights are listed as stale."""
    known: list[tuple[datetime, float, Place]] = []
    for time, value, unit, place in heights:
        factor = centimetres(unit)
        if factor is None:
            detail = f"the unit of a height must be one of {', '.join(CENTIMETRES)}"
            record.skip(place, "unknown_unit", detail)
        else:
            known.append((time, value * factor, place))
    for *_, place in sorted(known)[:-1]:
        record.skip(place, "stale", "a later height is used")
    if known:
        _, height, place = max(known)
        _set(record, HEIGHT, height, place)


def read_weight(record: Record) -> None:
    """Takes the latest weight of the last 30 days, which is also a measurement of the series."""
    index = record.spec.find_variable(_WEIGHT_VARIABLE)
    latest: tuple[datetime, float, Place] | None = None
    for (name, unit), group in record.groups.items():
        variable, conversion = record.spec.look_up(name, unit)
        if index is None or variable != index or conversion is None:
            continue
        for time, value, place in zip(group.times, group.values, group.places, strict=True):
            if isinstance(value, float) and record.as_of - time <= _RECENT_WEIGHT:
                weight = value * conversion.factor + conversion.offset
                if latest is None or (time, weight) > latest[:2]:
                    latest = time, weight, place
    if latest is not None:
        _set(record, "weight_kg", latest[1], latest[2])
