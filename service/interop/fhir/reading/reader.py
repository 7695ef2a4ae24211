"""A FHIR request as the source of a payload."""

from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from typing import Any

from pydantic_core import PydanticCustomError

from schemas.features import FeatureSpec, select_image
from schemas.parsing.times import read_time
from schemas.payload import Payload, as_payload
from schemas.request_errors import MAX_LISTED, FieldError, InvalidPayload
from service.errors import InputIgnored
from service.interop.fhir.reading.admission import (
    read_height,
    read_patient,
    read_stay,
    read_weight,
)
from service.interop.fhir.reading.codes import CodeTable
from service.interop.fhir.reading.document import BundleDocument, Resource, parse_document, refuse
from service.interop.fhir.reading.documents import DocumentReader
from service.interop.fhir.reading.entries import Entries
from service.interop.fhir.reading.observations import ObservationReader, check_members
from service.interop.fhir.reading.quantities import UnitChoice
from service.interop.fhir.reading.record import STRICT_REASONS, Record
from service.interop.fhir.reading.treatments import TreatmentReader
from service.prediction.jobs import PayloadSource
from service.prediction.scheduling.batcher import INLINE_BYTES
from service.prediction.scheduling.gc_pause import paused_gc

# Resources that hold no data of the patient's state: nothing of them is listed as not read.
_ADMINISTRATIVE = frozenset(
    {
        "Account",
        "Binary",
        "CareTeam",
        "Claim",
        "Coverage",
        "Device",
        "ExplanationOfBenefit",
        "Location",
        "Medication",
        "OperationOutcome",
        "Organization",
        "Patient",
        "Practitioner",
        "PractitionerRole",
        "Provenance",
        "RelatedPerson",
    }
)
_ResourceReader = Callable[[int, Resource], None]
_NOT_GIVEN = "does not state that the drug was given; send MedicationAdministration"
_NEXT_PAGE = "the Bundle is one page of a search; send the entries of all pages in one Bundle"
_NOT_READ = {
    "Condition": "known conditions are not read: the model does not take them",
    "ImagingStudy": "holds no pixels; send the chest X-ray as Media with image/png or image/jpeg",
    "MedicationDispense": f"a MedicationDispense {_NOT_GIVEN}",
    "MedicationRequest": f"a MedicationRequest {_NOT_GIVEN}",
    "MedicationStatement": f"a MedicationStatement {_NOT_GIVEN}",
}


class FhirReader:
    """Reads Bundles for one bundle's spec. Caches what codes and units mean."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec, self.codes, self.units = spec, CodeTable(spec), UnitChoice(spec)


class FhirRequest(PayloadSource):
    """A Bundle that is read when its turn comes.

    `as_of`: the query parameter, which precedes the time in the body. After `to_payload`, `record`
    holds the parts with their places, and `entries` resolves references.
    """

    record: Record
    entries: Entries

    def __init__(
        self, reader: FhirReader, body: bytes, as_of: datetime | None, *, strict: bool
    ) -> None:
        self._reader, self._body = reader, body
        self._as_of, self._strict = as_of, strict

    @property
    def observations(self) -> int:
        """Number of observations in the payload; 0 before the Bundle is read."""
        record = getattr(self, "record", None)
        return 0 if record is None else sum(len(group.places) for group in record.groups.values())

    def to_payload(self) -> Payload:
        """Reads the Bundle.

        Raises InvalidPayload: the pointer of each error is a FHIRPath expression. Raises
        InputIgnored: with `strict`, if a part is not read that the sender could correct.
        """
        with paused_gc() if len(self._body) > INLINE_BYTES else nullcontext():
            return self._read()

    def _read(self) -> Payload:
        document = parse_document(self._body)
        self._body = b""
        as_of = self._as_of or _read_as_of(document)
        record = self.record = Record(document.path, as_of, self._reader.spec)
        entries = self.entries = Entries(document, record)
        if document.has_more:
            record.skip((-1, "link"), "incomplete_bundle", _NEXT_PAGE)
        self._read_resources(entries, record)
        entries.release()
        if record.errors:
            raise InvalidPayload(record.errors)
        if self._strict:
            _refuse_ignored(record)
        payload = _payload(record)
        record.chosen_image = select_image(payload, record.spec)
        return payload

    def _read_resources(self, entries: Entries, record: Record) -> None:
        observations = ObservationReader(record, self._reader.codes, self._reader.units)
        treatments = TreatmentReader(record, self._reader.codes, entries)
        documents = DocumentReader(record, entries)
        readers: dict[str, _ResourceReader] = {
            "Observation": observations.read,
            "MedicationAdministration": treatments.read_administration,
            "Procedure": treatments.read_procedure,
            "DiagnosticReport": documents.read_report,
            "DocumentReference": documents.read_document,
            "Media": documents.read_media,
        }
        read_patient(entries, record)
        read_stay(entries, record)
        for kind in entries.types():
            read = readers.get(kind)
            if read is not None:
                for i, resource in entries.of_type(kind):
                    read(i, resource)
            elif kind not in _ADMINISTRATIVE and kind != "Encounter":
                detail = _NOT_READ.get(kind, "the model reads nothing from this type of resource")
                for i, _ in entries.of_type(kind):
                    record.skip((i, ""), "resource_not_read", detail)
        check_members(entries, record)
        documents.check_binaries()
        read_height(observations.heights, record)
        read_weight(record)


def _read_as_of(document: BundleDocument) -> datetime:
    if document.as_of is None:
        detail = (
            "the time of the prediction is unknown; send the parameter as_of, "
            "Parameters.parameter asOf, or Bundle.timestamp"
        )
        refuse(document.as_of_path, "required", detail)
    return parse_as_of(document.as_of, document.as_of_path)


def parse_as_of(value: object, expression: str) -> datetime:
    """Reads the time of the prediction. Raises InvalidPayload: it has no time of day or zone."""
    try:
        return read_time(value)
    except PydanticCustomError as error:
        refuse(expression, error.type, error.message())


def _payload(record: Record) -> Payload:
    """The payload of a record. Raises InvalidPayload if the Bundle holds nothing that is read."""
    content: dict[str, Any] = {
        "as_of": record.as_of,
        "tabular": record.tabular or None,
        "series": [
            {"variable": name, "unit": unit, "times": group.times, "values": group.values}
            for (name, unit), group in record.groups.items()
        ],
        "treatments": record.treatments,
        "notes": record.notes,
        "images": record.images,
    }
    if not any(content[part] for part in content if part != "as_of"):
        raise InvalidPayload(_nothing_read(record))
    return as_payload(content)


def _nothing_read(record: Record) -> list[FieldError]:
    detail = "the Bundle holds nothing that the model reads; the other issues list its parts"
    return [FieldError(pointer=record.path, rule="not_empty", detail=detail), *_ignored(record)]


def _ignored(record: Record, *, strict_only: bool = False) -> list[FieldError]:
    return [
        FieldError(pointer=record.expression(place), rule=reason, detail=detail)
        for (reason, detail), places in record.not_read.items()
        if reason in STRICT_REASONS or not strict_only
        for place in places[:MAX_LISTED]
    ][:MAX_LISTED]


def _refuse_ignored(record: Record) -> None:
    places = [p for (reason, _), p in record.not_read.items() if reason in STRICT_REASONS]
    if places:
        count = sum(len(part) for part in places)
        raise InputIgnored(_ignored(record, strict_only=True), count)
