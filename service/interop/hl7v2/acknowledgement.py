"""Acknowledgements: MSH, MSA and ERR segments (HL7 v2.5.1, chapter 2.9.2 and 2.15)."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from schemas.request_errors import FieldError
from service.interop.hl7v2.charsets import UTF8_NAME
from service.interop.hl7v2.er7 import Segment, escaped

SYSTEM = "99M3H"  # name of the coding system of this service's codes (table 0396)
_APPLICATION = "M3H"
_TIME = "%Y%m%d%H%M%S%z"
# Codes of table 0357 by rule; every other rule of a message is 207, with the rule in ERR-5.
_CODES = {
    "message_type": ("200", "Unsupported message type"),
    "trigger_event": ("201", "Unsupported event code"),
    "processing_id": ("202", "Unsupported processing id"),
    "version": ("203", "Unsupported version id"),
    "required": ("101", "Required field missing"),
    "pid_required": ("100", "Segment sequence error"),
    "msh_required": ("100", "Segment sequence error"),
    "one_patient": ("100", "Segment sequence error"),
    "segment_name": ("100", "Segment sequence error"),
    "date_time": ("102", "Data type error"),
    "time_zone": ("102", "Data type error"),
    "number": ("102", "Data type error"),
    "allowed_values": ("103", "Table value not found"),
    "charset": ("103", "Table value not found"),
}
_OTHER = ("207", "Application internal error")
_REJECTIONS = {"message_type", "trigger_event", "processing_id", "version", "charset", "delimiters"}

Code = Literal["AA", "AE", "AR"]


@dataclass(frozen=True)
class Sender:
    """What an answer repeats of a message: MSH-3 to MSH-6, MSH-9.2 and MSH-10, as they were sent.

    Their delimiters are those of the message; a message with other than the usual ones is answered
    without MSH-3 to MSH-6.
    """

    applications: tuple[str, str, str, str] = ("", "", "", "")
    event: str = ""
    control_id: str = ""

    @classmethod
    def of(cls, header: Segment | None) -> "Sender":
        if header is None:
            return cls()
        usual = header.raw(1) == "|" and header.raw(2).startswith("^~\\&")
        sent = [header.raw(field) for field in range(3, 7)] if usual else [""] * 4
        names = (sent[0], sent[1], sent[2], sent[3])
        return cls(names, header.text(9, 2), header.text(10))


def acknowledge(sender: Sender, code: Code, text: str = "") -> list[str]:
    """The segments MSH and MSA of an answer (original mode)."""
    application, facility, own, own_facility = sender.applications
    event = escaped(sender.event)
    kind = f"ACK^{event}^ACK" if event else "ACK"
    header = (
        *("MSH", "^~\\&", own or _APPLICATION, own_facility, application, facility),
        *(datetime.now(UTC).strftime(_TIME), "", kind, uuid.uuid4().hex[:20], "P", "2.5.1"),
        *("", "", "", "", "", UTF8_NAME),
    )
    lines = ["|".join(header), f"MSA|{code}|{escaped(sender.control_id)}"]
    if text:
        lines[1] += f"|{escaped(text)}"
    return lines


def rejection_code(errors: Sequence[FieldError]) -> Code:
    """AR if the message is not of a kind that is read, else AE (table 0008)."""
    return "AR" if any(error.rule in _REJECTIONS for error in errors) else "AE"


def error_segments(errors: Sequence[FieldError], severity: str = "E") -> list[str]:
    """An ERR segment for each error: location, code, rule and detail; never a value."""
    lines = []
    for error in errors:
        code, meaning = _CODES.get(error.rule, _OTHER)
        place = error.pointer if _is_location(error.pointer) else ""
        rule, detail = escaped(error.rule), escaped(error.detail)
        lines.append(
            f"ERR||{place}|{code}^{meaning}^HL70357|{severity}|{rule}^{detail}^{SYSTEM}|||{detail}"
        )
    return lines


def _is_location(pointer: str) -> bool:
    return all(part.isalnum() for part in pointer.split("^"))


def joined(segments: Sequence[str]) -> bytes:
    """The segments of an answer as ER7 in UTF-8."""
    return "".join(f"{segment}\r" for segment in segments).encode()
