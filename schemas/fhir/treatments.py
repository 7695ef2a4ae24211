"""Treatments: MedicationAdministration and Procedure (FHIR R4, sections 11.3 and 9.3).

A MedicationRequest is an order and a MedicationStatement a report. Neither states that a drug was
given in this stay, so neither is read.
"""

from datetime import datetime

from schemas.fhir.codes import CodeTable
from schemas.fhir.document import Resource
from schemas.fhir.entries import Entries, is_modified
from schemas.fhir.record import Place, Record
from schemas.terminology.treatment_names import AMBIGUOUS

_RUNNING = "in-progress"
_GIVEN = (_RUNNING, "completed", "stopped", "on-hold")
_STATUS = "its status does not state that the treatment was given"
_UNKNOWN = "the model does not know this treatment; see GET /variables"
_MAX_RATE = 1e15
_DATE_LENGTH = 10  # of a date without a time of day
_AMBIGUOUS = "the name matches more than one treatment; see GET /variables"
_ENDED = "has ended without a time of its end; the time of its start is used"


class TreatmentReader:
    """Reads the treatments of one Bundle into a record."""

    def __init__(self, record: Record, codes: CodeTable, entries: Entries) -> None:
        self._record, self._codes, self._entries = record, codes, entries
        self._names: dict[str, str | None] = {}

    def read_administration(self, i: int, resource: Resource) -> None:
        """Reads a MedicationAdministration."""
        concept = resource.get("medicationCodeableConcept")
        if concept is None and "medicationReference" in resource:
            target = self._entries.resolve(resource["medicationReference"], resource)
            if target is None:
                detail = "the Medication is not in the Bundle; the drug is unknown"
                self._record.skip((i, "medication"), "dangling_reference", detail)
                return
            concept = target[1].get("code")
        rate, unit = _rate(resource.get("dosage"), (i, "dosage.rate"), self._record)
        self._add(i, resource, concept, "effective", {"rate": rate, "unit": unit})

    def read_procedure(self, i: int, resource: Resource) -> None:
        """Reads a Procedure, such as mechanical ventilation or dialysis."""
        self._add(i, resource, resource.get("code"), "performed", {})

    def _add(
        self, i: int, resource: Resource, concept: object, field: str, rate: dict[str, object]
    ) -> None:
        record, place = self._record, (i, "")
        status = resource.get("status")
        if status not in _GIVEN:
            record.skip(place, "not_given", _STATUS)
            return
        if is_modified(record, place, resource):
            return
        treatment = self._codes.treatment(concept, self._names)
        if treatment is None or treatment[1] == AMBIGUOUS:
            if treatment is None:
                record.skip(place, "unknown_treatment", _UNKNOWN)
            else:
                record.skip(place, "ambiguous_treatment", _AMBIGUOUS)
            return
        course = self._course(i, resource, field, is_running=status == _RUNNING)
        if course is None:
            return
        start, end = course
        text, name = treatment
        record.treatment_names.append(name)
        given = {"name": text, "start": start, "end": end}
        if rate.get("rate") is not None:
            given |= rate
        record.treatments.append(given)
        record.treatment_places.append(place)

    def _course(
        self, i: int, resource: Resource, field: str, *, is_running: bool
    ) -> tuple[datetime, datetime | None] | None:
        """Start and end of a course at `as_of`. The end is None while it runs."""
        record, place = self._record, (i, field)
        period = resource.get(f"{field}Period")
        sent = (resource.get(f"{field}DateTime"), None)
        if isinstance(period, dict):
            sent = (period.get("start"), period.get("end"))
        if sent[0] is None:
            record.skip((i, ""), "no_time", "has no time of its start")
            return None
        start = record.time(sent[0], place)
        end = None if sent[1] is None else record.time(sent[1], place, is_end=True)
        if start is None:
            return None
        if start > record.as_of:
            record.skip((i, ""), "after_as_of", "started after as_of")
            return None
        if end is not None and end < start:
            record.add_error(place, "ordered", "end must not be before start")
            return None
        if end is not None and end > record.as_of:
            is_day = isinstance(sent[1], str) and len(sent[1]) <= _DATE_LENGTH
            has_ended = is_day and not is_running  # at an unknown time of this day
            return start, record.as_of if has_ended else None
        if end is None and not is_running:
            if isinstance(period, dict):
                record.assume(place, _ENDED)
            end = start
        return start, end


def _rate(dosage: object, place: Place, record: Record) -> tuple[float | None, str | None]:
    """The rate of a dosage, as a Quantity or as a Ratio of two (section 11.3.4)."""
    if not isinstance(dosage, dict):
        return None, None
    quantity = dosage.get("rateQuantity")
    if isinstance(quantity, dict):
        return _number(quantity, place, record), _unit(quantity)
    ratio = dosage.get("rateRatio")
    above = ratio.get("numerator") if isinstance(ratio, dict) else None
    below = ratio.get("denominator") if isinstance(ratio, dict) else None
    if not isinstance(above, dict) or not isinstance(below, dict):
        return None, None
    numbers = _number(above, place, record), _number(below, place, record)
    units = _unit(above), _unit(below)
    if numbers[0] is None or not numbers[1] or None in units:
        return None, None
    return numbers[0] / numbers[1], f"{units[0]}/{units[1]}"


def _number(quantity: Resource, place: Place, record: Record) -> float | None:
    value = quantity.get("value")
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_RATE:
        return float(value)
    record.add_error(place, "decimal", "must be a JSON number, not text")
    return None


def _unit(quantity: Resource) -> str | None:
    unit = quantity.get("code") or quantity.get("unit")
    return unit if isinstance(unit, str) else None
