"""The outcomes of a hospital stay, from its Encounter, Conditions and Patient."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime

from model.cohorts import Outcomes
from model.cohorts.fhir.export import Sent, type_and_id
from model.cohorts.labels import outcomes_of
from model.cohorts.stay_events.stays import EXTERNAL_CAUSES, find_disposition
from schemas.fhir.document import Resource
from schemas.fhir.record import codes, codings, texts
from schemas.fhir.times import InvalidTime, parse_date_time
from schemas.tasks import DIED, DISPOSITION, MORTALITY

_ICD_VERSIONS = {
    "http://hl7.org/fhir/sid/icd-9-cm": 9,
    "http://hl7.org/fhir/sid/icd-10-cm": 10,
    "urn:oid:2.16.840.1.113883.6.103": 9,
    "urn:oid:2.16.840.1.113883.6.90": 10,
    "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-diagnosis-icd9": 9,
    "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-diagnosis-icd10": 10,
}
_NOT_TRUE = frozenset({"refuted", "entered-in-error", "differential", "provisional", "unconfirmed"})
_PROBLEM_LIST = "problem-list-item"


def hospital_stay(encounter: Resource, encounters: Mapping[str, Resource]) -> Resource:
    """The outermost Encounter that an Encounter is part of."""
    passed = set()
    while (name := _reference(encounter.get("partOf"))) in encounters and name not in passed:
        passed.add(name)
        encounter = encounters[name]
    return encounter


def exact_time(value: object) -> datetime | None:
    """A time of day; None for another value, which the reader of Bundles reports."""
    try:
        time = parse_date_time(value)
    except InvalidTime:
        return None
    return time if isinstance(time, datetime) else None


def outcomes_at(
    as_of: datetime,
    stay: Resource,
    encounters: Mapping[str, Resource],
    conditions: Sequence[Sent],
    patient: Resource | None,
) -> Outcomes:
    """The labels of a finished hospital stay that are known."""
    period = stay.get("period")
    end = exact_time(period.get("end")) if isinstance(period, dict) else None
    disposition = _disposition(stay)
    stated: dict[str, bool | float | str | None] = {
        MORTALITY: _died(stay, disposition, patient, end),
        DISPOSITION: disposition,
    }
    if end is not None and end > as_of:
        stated["length_of_stay"] = (end - as_of).total_seconds() / 86400
    named, is_complete = _diagnoses(stay, encounters, conditions)
    return outcomes_of(named, stated, coding_complete=is_complete)


def _disposition(stay: Resource) -> str | None:
    hospitalization = stay.get("hospitalization")
    sent = (
        hospitalization.get("dischargeDisposition") if isinstance(hospitalization, dict) else None
    )
    found = (find_disposition(text) for text in (*codes(sent), *texts(sent)))
    return next((name for name in found if name is not None), None)


def death_of(patient: Resource | None) -> datetime | date | None:
    """The time or the date of death; None if none is known."""
    try:
        return parse_date_time((patient or {}).get("deceasedDateTime", ""))
    except InvalidTime:
        return None


def _died(
    stay: Resource, disposition: str | None, patient: Resource | None, end: datetime | None
) -> bool | None:
    """Whether the patient died in this stay; None if neither stay nor patient states it."""
    if disposition is not None:
        return disposition == DIED
    death = death_of(patient)
    if death is not None and end is not None:
        day = death.date() if isinstance(death, datetime) else death
        start = exact_time(stay["period"].get("start"))
        return start is not None and start.date() <= day <= end.date()
    return False if (patient or {}).get("deceasedBoolean") is False else None


def _diagnoses(
    stay: Resource, encounters: Mapping[str, Resource], conditions: Sequence[Sent]
) -> tuple[list[str] | None, bool]:
    """The ICD codes of a hospital stay, and whether all its diagnoses have one.

    None without a diagnosis. External causes show that a stay was coded, but are dropped.
    """
    own = [
        [*_icd(sent.resource.get("code"))]
        for sent in conditions
        if _is_of(sent.resource, stay, encounters)
    ]
    if not own:
        return None, False
    kept = [
        code
        for pairs in own
        for version, code in pairs
        if not code.upper().startswith(EXTERNAL_CAUSES[version])
    ]
    return kept, all(own)


def _is_of(condition: Resource, stay: Resource, encounters: Mapping[str, Resource]) -> bool:
    encounter = encounters.get(_reference(condition.get("encounter")))
    if encounter is None or hospital_stay(encounter, encounters) is not stay:
        return False
    categories = condition.get("category")
    listed = categories if isinstance(categories, list) else ()
    if any(_PROBLEM_LIST in codes(category) for category in listed):
        return False
    return _NOT_TRUE.isdisjoint(codes(condition.get("verificationStatus")))


def _icd(concept: object) -> Iterator[tuple[int, str]]:
    for coding in codings(concept):
        version, code = _ICD_VERSIONS.get(str(coding.get("system"))), coding.get("code")
        if version is not None and isinstance(code, str):
            yield version, code


def _reference(sent: object) -> str:
    reference = sent.get("reference") if isinstance(sent, dict) else None
    return type_and_id(reference) if isinstance(reference, str) else ""
