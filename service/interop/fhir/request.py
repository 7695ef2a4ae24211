"""A FHIR request as the source of a payload."""

from contextlib import nullcontext
from datetime import datetime

from schemas.fhir.document import parse_document
from schemas.fhir.entries import Entries
from schemas.fhir.reader import FhirReader, ignored_parts, to_payload
from schemas.fhir.record import STRICT_REASONS, Record
from schemas.payload import Payload
from service.errors import InputIgnored
from service.prediction.jobs import PayloadSource
from service.prediction.scheduling.batcher import INLINE_BYTES
from service.prediction.scheduling.gc_pause import paused_gc


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
        self.record, self.entries = self._reader.read(document, self._as_of)
        if self._strict:
            _refuse_ignored(self.record)
        return to_payload(self.record)


def _refuse_ignored(record: Record) -> None:
    places = [p for (reason, _), p in record.not_read.items() if reason in STRICT_REASONS]
    if places:
        count = sum(len(part) for part in places)
        raise InputIgnored(ignored_parts(record, strict_only=True), count)
