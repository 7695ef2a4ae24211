"""The resources of one patient as Bundles at several moments."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from model.cohorts.fhir.export import Sent, type_and_id
from schemas.fhir.admission import read_stay
from schemas.fhir.document import BundleDocument, Resource
from schemas.fhir.entries import Entries, objects
from schemas.fhir.reader import FhirReader, to_payload
from schemas.fhir.record import Record as BundleRecord
from schemas.fhir.times import InvalidTime, parse_date_time
from schemas.payload import Payload
from schemas.terminology.height import HEIGHT

_BODY_SIZE = (HEIGHT, "body_weight")
_OF_STAYS = ("Patient", "Encounter", "Location")


class Patient:
    """One patient of an export.

    `shared`: Locations and Medications by type and id. Conditions are outcomes, never an input.
    """

    def __init__(
        self, sent: Sequence[Sent], shared: Mapping[str, Sent], reader: FhirReader
    ) -> None:
        self._reader = reader
        self.conditions = [s for s in sent if s.resource["resourceType"] == "Condition"]
        own = [s for s in sent if s.resource["resourceType"] != "Condition"]
        names = dict.fromkeys(name for s in own for name in _shared_names(s.resource))
        self.inputs = [*own, *(shared[name] for name in names if name in shared)]
        self._of_stays = [s for s in self.inputs if s.resource["resourceType"] in _OF_STAYS]
        self._times = [self._recorded_at(s.resource) for s in self.inputs]

    def of_type(self, kind: str) -> list[Sent]:
        return [s for s in self.inputs if s.resource["resourceType"] == kind]

    def stay_at(self, as_of: datetime) -> tuple[Resource | None, BundleRecord]:
        """The Encounter of the stay at a moment, and the record with its admission."""
        record = BundleRecord("Bundle", as_of, self._reader.spec)
        entries = Entries(_document(self._of_stays), record)
        read_stay(entries, record)
        encounter = None if record.stay is None else self._of_stays[record.stay[0]].resource
        return encounter, record

    def sent_at(self, as_of: datetime) -> list[Sent]:
        """The resources without Observations that were made later or left the window."""
        since = as_of - timedelta(hours=self._reader.spec.window_hours)
        times = zip(self.inputs, self._times, strict=True)
        return [s for s, time in times if time is None or since < time <= as_of]

    def payload_at(self, sent: Sequence[Sent], as_of: datetime) -> Payload:
        """The payload of resources. Raises InvalidPayload as the reader of Bundles."""
        record, _ = self._reader.read(_document(sent), as_of)
        return to_payload(record)

    def _recorded_at(self, resource: Resource) -> datetime | None:
        """When an Observation was made, if it counts only for the window of the series."""
        if resource["resourceType"] != "Observation":
            return None
        if self._reader.codes.observation(resource.get("code")).name in self._names_of_size:
            return None
        try:
            time = parse_date_time(resource.get("effectiveDateTime"))
        except InvalidTime:
            return None  # an error that the reader finds
        return time if isinstance(time, datetime) else None

    @property
    def _names_of_size(self) -> frozenset[str]:
        spec = self._reader.spec
        index = spec.find_variable("body_weight")
        weight = () if index is None else spec.extended_variables[index].loinc
        return frozenset((*_BODY_SIZE, *(f"loinc:{code}" for code in weight)))


def _document(sent: Sequence[Sent]) -> BundleDocument:
    return BundleDocument("Bundle", [{"resource": s.resource} for s in sent])


def _shared_names(resource: Resource) -> Iterator[str]:
    """The type and id of the Location or Medication that a resource names."""
    references = [location.get("location") for location in objects(resource, "location")]
    for named in (*references, resource.get("medicationReference")):
        reference = named.get("reference") if isinstance(named, dict) else None
        if isinstance(reference, str):
            yield type_and_id(reference)
