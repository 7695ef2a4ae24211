"""From a parsed Bundle to the payload of a prediction (FHIR R4)."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic_core import PydanticCustomError

from schemas.features import FeatureSpec, select_image
from schemas.fhir.admission import (
    read_height,
    read_patient,
    read_stay,
    read_weight,
)
from schemas.fhir.codes import CodeTable
from schemas.fhir.document import BundleDocument, Resource, refuse
from schemas.fhir.documents import DocumentReader
from schemas.fhir.entries import Entries
from schemas.fhir.observations import ObservationReader, check_members
from schemas.fhir.quantities import UnitChoice
from schemas.fhir.record import STRICT_REASONS, Record
from schemas.fhir.treatments import TreatmentReader
from schemas.parsing.times import read_time
from schemas.payload import Payload, as_payload
from schemas.request_errors import MAX_LISTED, FieldError, InvalidPayload

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
    """Reads Bundles for one spec. Caches what codes and units mean."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec, self.codes, self.units = spec, CodeTable(spec), UnitChoice(spec)

    def read(
        self, document: BundleDocument, as_of: datetime | None = None
    ) -> tuple[Record, Entries]:
        """The parts of a Bundle with their places, and the entries, which resolve references.

        `as_of` precedes the time in the document. Raises InvalidPayload: the pointer of each error
        is a FHIRPath expression.
        """
        record = Record(document.path, as_of or _read_as_of(document), self.spec)
        entries = Entries(document, record)
        if document.has_more:
            record.skip((-1, "link"), "incomplete_bundle", _NEXT_PAGE)
        self._read_resources(entries, record)
        entries.release()
        if record.errors:
            raise InvalidPayload(record.errors)
        return record, entries

    def _read_resources(self, entries: Entries, record: Record) -> None:
        observations = ObservationReader(record, self.codes, self.units)
        treatments = TreatmentReader(record, self.codes, entries)
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


def to_payload(record: Record) -> Payload:
    """The payload of a record; sets `record.chosen_image`.

    Raises InvalidPayload: the Bundle holds nothing that is read, or the payload is invalid. The
    pointers of the latter are JSON Pointers into the payload.
    """
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
    payload = as_payload(content)
    record.chosen_image = select_image(payload, record.spec)
    return payload


def _nothing_read(record: Record) -> list[FieldError]:
    detail = "the Bundle holds nothing that the model reads; the other issues list its parts"
    return [
        FieldError(pointer=record.path, rule="not_empty", detail=detail),
        *ignored_parts(record),
    ]


def ignored_parts(record: Record, *, strict_only: bool = False) -> list[FieldError]:
    """The first parts that are not read; with `strict_only`, those of STRICT_REASONS."""
    return [
        FieldError(pointer=record.expression(place), rule=reason, detail=detail)
        for (reason, detail), places in record.not_read.items()
        if reason in STRICT_REASONS or not strict_only
        for place in places[:MAX_LISTED]
    ][:MAX_LISTED]
