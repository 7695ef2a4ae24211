"""Age, sex and admission from PID and PV1 (HL7 v2.5.1, chapter 3.4)."""

from datetime import datetime, timedelta

from schemas.request_errors import InvalidPayload
from schemas.terminology.categories import NOT_KNOWN, find_category
from service.interop.hl7v2.er7 import Message, Segment, invalid, location
from service.interop.hl7v2.record import Group, Record
from service.interop.hl7v2.times import completed_years, zoned

# Table 0023, admit source, of v2.5.1: the codes that mean a category of the model.
_ADMIT_SOURCES = {
    "1": "direct",
    "2": "direct",
    "3": "direct",
    "4": "other_hospital",
    "5": "direct",
    "6": "other_hospital",
    "7": "emergency",
}
_INPATIENT = {"I", "E", ""}  # table 0004; also the emergency room
_CENTIMETRES = {
    "cm": 1.0,
    "m": 100.0,
    "mm": 0.1,
    "[in_i]": 2.54,
    "[in_us]": 2.54,
    "in": 2.54,
    "inches": 2.54,
    "[ft_i]": 30.48,
    "ft": 30.48,
}
HEIGHT_CODES = frozenset({"8302-2", "3137-7", "3138-5", "8306-3", "8308-9"})
_HEIGHT, _WEIGHT = "height_cm", "body_weight"
_RECENT_WEIGHT = timedelta(days=30)


def one_patient(message: Message) -> Segment:
    """The PID segment. Raises InvalidPayload: the message has none, or several."""
    patients = [*message.named("PID")]
    if not patients:
        raise invalid(location("PID", 1), "pid_required", "the message has no PID")
    if len(patients) > 1:
        detail = "a message must be about one patient; send a message for each in a batch"
        raise invalid(location("PID", 2), "one_patient", detail)
    return patients[0]


def read_patient(patient: Segment, record: Record) -> None:
    """Reads the age at `as_of` (PID-7) and the sex (PID-8). Lists a recorded death."""
    text, place = patient.text(7), patient.place(7)
    stated = record.stated_time(text, place) if text else None
    if stated is not None:
        years = completed_years(stated, record.as_of)
        if years < 0:
            record.add_error(place, "ordered", "must not be after as_of")
            return
        if not stated.has_day:
            record.assume(place, "the birth date is not exact; the age may differ by a year")
        record.set("age", float(years), place)
    sex = patient.text(8)
    if sex:
        record.set("sex", sex, patient.place(8))
    _note_death(patient, record)


def _note_death(patient: Segment, record: Record) -> None:
    """Lists a death (PID-29, PID-30) that `as_of` does not precede."""
    text, place = patient.text(29), patient.place(29)
    stated = record.stated_time(text, place) if text else None
    is_later = stated is not None and stated.local.date() > record.as_of.date()
    if not is_later and (stated is not None or patient.text(30).upper() == "Y"):
        detail = "the patient is recorded as deceased; check that as_of is before the death"
        record.assume(place, detail)


def read_visit(visit: Segment, record: Record) -> None:
    """Reads admission time (PV1-44), source (PV1-14) and unit (PV1-3) of an inpatient."""
    if visit.text(2).upper() not in _INPATIENT:
        record.skip(visit.place(2), "unknown_category", "the visit is not that of an inpatient")
        return
    if _has_ended(visit, record):
        record.skip(visit.place(45), "stale", "the visit has ended before as_of")
        return
    _read_admission_time(visit, record)
    unit = _category("unit_type", visit.components(3)[:1] + visit.components(3)[8:9], record)
    if unit is not None:
        record.set("unit_type", unit, visit.place(3))
    source = visit.text(14)
    if not source:
        return
    known = _ADMIT_SOURCES.get(source)
    if known not in record.spec.categories.get("admission_source", ()):
        known = _category("admission_source", [source], record)
    if known is None:
        detail = "the source of admission is none that the model knows; used as missing"
        record.skip(visit.place(14), "unknown_category", detail)
    else:
        record.set("admission_source", known, visit.place(14))


def _has_ended(visit: Segment, record: Record) -> bool:
    """Whether the discharge (PV1-45) is before `as_of`; a date alone is the end of its day."""
    text, place = visit.text(45), visit.place(45)
    stated = record.stated_time(text, place) if text else None
    if stated is None:
        return False
    try:
        ended = zoned(stated, record.zone, place)
    except InvalidPayload as error:
        record.add_error(place, error.errors[0].rule, error.errors[0].detail)
        return False
    return ended + (timedelta() if stated.has_hour else timedelta(days=1)) <= record.as_of


def _read_admission_time(visit: Segment, record: Record) -> None:
    text, place = visit.text(44), visit.place(44)
    stated = record.stated_time(text, place) if text else None
    admitted = None if stated is None else record.known_time(stated, place)
    if stated is None or admitted is None:
        return
    if not stated.has_hour:
        record.assume(place, "a date alone; read as the start of the day")
    record.assume(place, "the admission to the hospital is used as that to the unit")
    record.set("admitted_at", admitted, place)


def _category(field: str, names: list[str], record: Record) -> str | None:
    for name in names:
        category = find_category(field, name) if name else None
        if category not in (None, NOT_KNOWN) and category in record.spec.categories.get(field, ()):
            return category
    return None


# ---- height and weight ---------------------------------------------------------------------------


def read_sizes(heights: Group, units: list[str | None], record: Record) -> None:
    """Takes the latest height, and the latest weight of the last 30 days.

    `units`: of each height. The weight is also a measurement of the series.
    """
    latest = max(heights.times, default=None)
    for time, value, unit, place in zip(
        heights.times, heights.values, units, heights.places, strict=True
    ):
        factor = _CENTIMETRES.get((unit or "").strip())
        if time != latest:
            record.skip(place, "stale", "a later height is used")
        elif factor is None or not isinstance(value, float):
            detail = f"a height must be a number in one of {', '.join(_CENTIMETRES)}"
            record.skip(place, "unknown_code", detail)
        else:
            record.set(_HEIGHT, value * factor, place)
    _read_weight(record)


def _read_weight(record: Record) -> None:
    index = record.spec.find_variable(_WEIGHT)
    known: list[tuple[datetime, float, str]] = []
    for (name, unit), group in record.groups.items():
        variable, conversion = record.spec.look_up(name, unit)
        if index is None or variable != index or conversion is None:
            continue
        known += [
            (time, value * conversion.factor + conversion.offset, place)
            for time, value, place in zip(group.times, group.values, group.places, strict=True)
            if isinstance(value, float) and record.as_of - time <= _RECENT_WEIGHT
        ]
    if known:
        _, weight, place = max(known)
        record.set("weight_kg", weight, place)
