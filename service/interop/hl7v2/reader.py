"""A message as the source of a payload (`service.prediction.jobs.PayloadSource`)."""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import datetime

from schemas.features import FeatureSpec
from schemas.payload import Payload
from service.interop.hl7v2.documents import DocumentReader
from service.interop.hl7v2.er7 import (
    Message,
    Segment,
    invalid,
    location,
    parse_message,
    split_lines,
)
from service.interop.hl7v2.observations import CodeTable, ObservationReader
from service.interop.hl7v2.patient import one_patient, read_patient, read_sizes, read_visit
from service.interop.hl7v2.record import Record
from service.interop.hl7v2.times import parse_time, zoned
from service.prediction.jobs import PayloadSource
from service.prediction.scheduling.batcher import INLINE_BYTES
from service.prediction.scheduling.gc_pause import paused_gc

MESSAGE_TYPES = {("ORU", "R01"), ("ADT", "A01"), ("ADT", "A08"), ("MDM", "T02")}
_NEXT_MESSAGE = re.compile(r"[\r\n]MSH")
_PROCESSING_IDS = ("P", "T", "D")
# Segments without data of the patient's state: nothing of them is listed as not read.
_ADMINISTRATIVE = frozenset(
    {
        *("MSH", "SFT", "EVN", "PID", "PD1", "NK1", "PV1", "PV2", "ROL", "ORC", "OBR", "OBX"),
        *("TQ1", "TQ2", "CTD", "FT1", "CTI", "DSC", "TXA", "CON", "GT1", "IN1", "IN2", "IN3"),
        *("ACC", "UB1", "UB2", "PDA", "MRG", "DRG", "DB1", "UAC", "PRT"),
    }
)
_NOT_READ = {
    "AL1": "allergies are not read: the model does not take them",
    "DG1": "known conditions are not read: the model does not take them",
    "NTE": "comments are not read; send notes as OBX of TX, FT or ED",
    "PR1": "procedures are not read from this segment",
    "SPM": "specimens are not read; the LOINC code names the specimen",
}


class Hl7Reader:
    """Reads messages for one bundle's spec. Caches what codes mean."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec, self.codes = spec, CodeTable(spec)


class Hl7Request(PayloadSource):
    """A message that is read when its turn comes.

    `as_of`: the query parameter, which precedes MSH-7. After `to_payload`, `record` holds the parts
    with their locations, and `header` is the MSH. Both are None until then.
    """

    record: Record | None = None
    header: Segment | None = None

    def __init__(
        self, reader: Hl7Reader, text: str, as_of: datetime | None, *, strict: bool
    ) -> None:
        self._reader, self._text = reader, text
        self._as_of, self._strict = as_of, strict

    def to_payload(self) -> Payload:
        """Reads the message.

        Raises InvalidPayload: the pointer of each error is a location. Raises InputIgnored: with
        `strict`, if a part is not read that the sender could correct.
        """
        with paused_gc() if len(self._text) > INLINE_BYTES else nullcontext():
            message = parse_message(self._text)
            self._text = ""
            self.header = message.header
            check_header(message.header)
            record = self.record = self._record(message)
            read_patient(one_patient(message), record)
            self._read_segments(message, record)
            return record.to_payload(strict=self._strict)

    def _record(self, message: Message) -> Record:
        header, place = message.header, location("MSH", 1, 7)
        text = header.text(7)
        stated = parse_time(text, place) if text else None
        as_of = self._as_of
        if as_of is None:
            if stated is None or not stated.has_hour:
                detail = "the time of the prediction is unknown; send the parameter as_of, or MSH-7"
                raise invalid(place, "required", detail)
            as_of = zoned(stated, None, place)
        return Record(as_of, None if stated is None else stated.zone, self._reader.spec)

    def _read_segments(self, message: Message, record: Record) -> None:
        observations = ObservationReader(record, self._reader.codes)
        documents = DocumentReader(record, next(message.named("TXA"), None))
        order: Segment | None = None
        for visit in list(message.named("PV1"))[-1:]:
            read_visit(visit, record)
        for segment in message.segments:
            if segment.name == "OBR":
                order = segment
            elif segment.name == "OBX":
                if observations.is_variable(segment) or not documents.read(segment, order):
                    documents.end_note()
                    observations.read(segment, order)
            elif segment.name not in _ADMINISTRATIVE:
                detail = _NOT_READ.get(segment.name, "the model reads nothing from this segment")
                record.skip(segment.place(), "segment_not_read", detail)
        observations.finish()
        documents.finish()
        read_sizes(observations.heights, observations.height_units, record)


def check_header(header: Segment) -> None:
    """Raises InvalidPayload: type, event, processing id or version are not read, or no MSH-10."""
    kind, event = header.text(9).upper(), header.text(9, 2).upper()
    if (kind, event) not in MESSAGE_TYPES:
        known = ", ".join(sorted(f"{k}^{e}" for k, e in MESSAGE_TYPES))
        rule = "trigger_event" if kind in {k for k, _ in MESSAGE_TYPES} else "message_type"
        raise invalid(header.place(9), rule, f"must be one of {known}")
    if not header.text(10):
        raise invalid(header.place(10), "required", "is required: the control ID of the message")
    if header.text(11).upper() not in _PROCESSING_IDS:
        raise invalid(header.place(11), "processing_id", "must be P, T or D")
    if not header.text(12).startswith("2."):
        raise invalid(header.place(12), "version", "must be a version 2 of HL7, such as 2.5.1")


def is_batch(text: str) -> bool:
    """Whether a text is a batch (FHS, BHS; chapter 2.10.3) or holds several messages."""
    return text.startswith(("FHS", "BHS")) or _NEXT_MESSAGE.search(text) is not None


def split_batch(text: str) -> Iterator[str]:
    """Yields the messages of a batch."""
    lines: list[str] = []
    for line in split_lines(text):
        if line[:3] in ("FHS", "BHS", "BTS", "FTS") or not line.strip():
            continue
        if line.startswith("MSH") and lines:
            yield "\r".join(lines)
            lines = []
        lines.append(line)
    yield "\r".join(lines)
