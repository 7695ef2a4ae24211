"""Records of an export: each stay at each landmark."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from model.cohorts import LANDMARKS_HOURS, DataError, Record
from model.cohorts.fhir.export import Export, Sent, type_and_id
from model.cohorts.fhir.outcomes import death_of, exact_time, hospital_stay, outcomes_at
from model.cohorts.fhir.patient import Patient
from model.cohorts.json_lines import first_faults
from schemas.features import FeatureSpec
from schemas.fhir.document import Resource
from schemas.fhir.entries import objects
from schemas.fhir.reader import FhirReader
from schemas.payload import InvalidPayload, Payload

_ENTRY = re.compile(r"Bundle\.entry\[(\d+)\](?:\.resource)?\.?")


def read(data: Path) -> Iterator[Record]:
    """Each finished stay at each landmark at which the patient is still in the unit.

    The stay is the one that the service would read at that moment. If an Encounter of the export
    has an intensive care unit, only the time in such units counts.

    Raises DataMissing without NDJSON files, DataError that names the file, the line and the rule if
    a resource is invalid.
    """
    export = Export(data)
    reader = FhirReader(FeatureSpec.default())
    with TemporaryDirectory(prefix="m3h-fhir-") as folder:
        partitions = [Path(folder) / str(i) for i in range(export.write_partitions(Path(folder)))]
        has_units = any(
            _has_unit(patient)
            for partition in partitions
            for patient in _patients(export, partition, reader).values()
        )
        for partition in partitions:
            for name, patient in _patients(export, partition, reader).items():
                yield from _records(name, patient, has_units=has_units)


def _patients(export: Export, partition: Path, reader: FhirReader) -> Mapping[str, Patient]:
    sent = export.read_partition(partition)
    return {name: Patient(sent[name], export.shared, reader) for name in sorted(sent)}


def _has_unit(patient: Patient) -> bool:
    return any("unit_type" in patient.stay_at(start)[1].tabular for start in _starts(patient))


def _starts(patient: Patient) -> list[datetime]:
    """The starts of the Encounters and of their locations."""
    periods = [
        part.get("period")
        for sent in patient.of_type("Encounter")
        for part in (sent.resource, *objects(sent.resource, "location"))
    ]
    times = (exact_time(p.get("start")) for p in periods if isinstance(p, dict))
    return sorted({time for time in times if time is not None})


def _records(name: str, patient: Patient, *, has_units: bool) -> Iterator[Record]:
    encounters = {
        f"Encounter/{s.resource.get('id')}": s.resource for s in patient.of_type("Encounter")
    }
    (person,) = [s.resource for s in patient.of_type("Patient")][:1] or (None,)
    death = death_of(person)
    for start in _starts(patient):
        for hours in LANDMARKS_HOURS:
            as_of = start + timedelta(hours=hours)
            encounter, admission = patient.stay_at(as_of)
            if encounter is None or admission.tabular.get("admitted_at") != start:
                continue
            if has_units and "unit_type" not in admission.tabular:
                continue
            stay = hospital_stay(encounter, encounters)
            if stay.get("status") != "finished" or (isinstance(death, datetime) and death < as_of):
                continue
            yield Record(
                payload=_payload(patient, as_of),
                outcomes=outcomes_at(as_of, stay, encounters, patient.conditions, person),
                patient=name,
                site=_site(stay),
                stay=f"{encounter.get('id')}/{start.isoformat()}",
                landmark_hours=float(hours),
            )


def _payload(patient: Patient, as_of: datetime) -> Payload:
    sent = patient.sent_at(as_of)
    try:
        return patient.payload_at(sent, as_of)
    except InvalidPayload as error:
        raise DataError(_placed(error, sent)) from None


def _placed(error: InvalidPayload, sent: Sequence[Sent]) -> str:
    """The first errors, with the file and the line of the resource that each is in."""
    match = _ENTRY.match(error.errors[0].pointer)
    if match is None:
        return f"{sent[0].place}: in the data of this patient: {first_faults(error)}"
    place = sent[int(match[1])].place
    path = error.errors[0].pointer[match.end() :] or "the resource"
    return f"{place}: {path}: {error.errors[0].detail}"


def _site(stay: Resource) -> str:
    provider = stay.get("serviceProvider")
    reference = provider.get("reference") if isinstance(provider, dict) else None
    return type_and_id(reference) if isinstance(reference, str) else "fhir"
