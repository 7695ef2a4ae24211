"""Attachments: the bytes of a document or image, inline or in a Binary (FHIR R4, 2.24.0.8)."""

from dataclasses import dataclass

import pybase64

from schemas.fhir.document import Resource
from schemas.fhir.entries import Entries
from schemas.fhir.record import Place, Record

TEXT_TYPES = (
    "text/plain",
    "text/html",
    "application/xhtml+xml",
    "application/rtf",
    "text/rtf",
    "text/richtext",
)
IMAGE_TYPES = ("image/png", "image/jpeg", "image/jpg")
DICOM = "application/dicom"
_CHARSETS = {
    "": "utf-8",
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",
    "ascii": "utf-8",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
    "iso-8859-15": "iso-8859-15",
    "utf-16": "utf-16",
}


@dataclass(frozen=True)
class Content:
    """The bytes of an attachment. `place`: of its data. `entry`: of a Binary that holds them."""

    data: bytes
    media_type: str
    charset: str
    place: Place
    entry: int | None = None


def media_type_of(attachment: Resource) -> tuple[str, str]:
    """The media type and the charset of an Attachment or Binary, in lower case."""
    sent = attachment.get("contentType")
    name, *parameters = (sent if isinstance(sent, str) else "").lower().split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    charset = next((v.strip().strip('"') for k, _, v in pairs if k.strip() == "charset"), "")
    return name.strip(), charset


def read_content(
    attachment: Resource, place: Place, origin: Resource, entries: Entries, record: Record
) -> Content | None:
    """The content of an Attachment; None, with a record, if it is not in the Bundle."""
    media_type, charset = media_type_of(attachment)
    data, entry = attachment.get("data"), None
    if data is None and "url" not in attachment:
        record.skip(place, "no_text", "the attachment has neither data nor a url")
        return None
    if data is None:
        target = entries.resolve(attachment["url"], origin)
        if target is None or target[1].get("resourceType") != "Binary":
            detail = "the url names no Binary of the Bundle; the service calls no other server"
            record.skip(place, "external_url", detail)
            return None
        entry, binary = target
        data, place = binary.get("data", ""), (entry, "data")
        if not media_type:
            media_type, charset = media_type_of(binary)
    decoded = _decode(data, place, record)
    return None if decoded is None else Content(decoded, media_type, charset, place, entry)


def _decode(data: object, place: Place, record: Record) -> bytes | None:
    """Decodes base64, which may hold white space (section 2.24.0.1). Records an error otherwise."""
    try:
        if isinstance(data, str):
            try:
                return pybase64.b64decode(data, validate=True)
            except ValueError:
                return pybase64.b64decode("".join(data.split()), validate=True)
    except ValueError:
        pass
    where = place if place[1].endswith("data") else (place[0], f"{place[1]}.data".lstrip("."))
    record.add_error(where, "base64", "must be base64 (RFC 4648, section 4)")
    return None


def read_text(content: Content, record: Record) -> str | None:
    """The text of an attachment; None, with a record, if it is empty or in another charset."""
    codec = _CHARSETS.get(content.charset)
    text = None
    if codec is not None:
        try:
            text = content.data.decode(codec)
        except ValueError:
            text = None
    if text is None:
        detail = "the text is not in the charset of its contentType; default: UTF-8"
        record.add_error(content.place, "charset", detail)
        return None
    if not text.strip():
        record.skip(content.place, "no_text", "the text is empty")
        return None
    return text
