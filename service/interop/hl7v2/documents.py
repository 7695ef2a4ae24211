"""Notes and images in OBX segments of TX, FT, ST and ED (HL7 v2.5.1, chapters 2.A.24, 7.4, 9.6)."""

from datetime import datetime
from typing import Any

import pybase64

from service.interop.hl7v2.er7 import Segment
from service.interop.hl7v2.observations import result_time
from service.interop.hl7v2.record import Record

_TEXT_KINDS = ("TX", "FT")
_READ_STATUSES = ("F", "C", "P")
_STATUS = "the status (OBX-11) is not F, C or P; the document never counts"
_TEXT_TYPES = {
    "text/plain",
    "text/html",
    "text/rtf",
    "text/richtext",
    "text/",
    "text/x-hl7-ft",
    "application/rtf",
    "application/xhtml+xml",
}
_IMAGE_TYPES = {
    "image/png": "image/png",
    "image/jpeg": "image/jpeg",
    "image/jpg": "image/jpeg",
    "image/dicom": "application/dicom",
    "application/dicom": "application/dicom",
}
_DICOM = "application/dicom"
# Table 0270, document type (TXA-2), and table 0074, diagnostic service section (OBR-24).
_DOCUMENT_KINDS = {
    "CN": "consultation",
    "DS": "discharge",
    "HP": "admission",
    "OP": "operative",
    "PN": "progress",
    "DI": "radiology",
    "ED": "emergency",
}
_RADIOLOGY = {"RAD", "RX", "RUS", "CT", "NMR", "NMS", "VUS", "XRC"}
_CHEST, _OTHER_IMAGING = ("CHEST", "THORA", "CXR"), ("CT ", "MR ", "MRI", "US ", "ULTRASOUND")


class DocumentReader:
    """Reads the documents of one message. Consecutive lines of one text become one note."""

    def __init__(self, record: Record, document: Segment | None) -> None:
        self._record, self._document = record, document
        self._open: tuple[object, ...] | None = None
        self._lines: list[tuple[dict[str, Any], list[str]]] = []  # of each note of lines

    def read(self, segment: Segment, order: Segment | None) -> bool:
        """Reads an OBX that is no variable. False if it holds no document."""
        kind = segment.text(2).upper()
        if kind not in (*_TEXT_KINDS, "ED"):
            self.end_note()
            return False
        if segment.text(11).upper() not in _READ_STATUSES:
            self._record.skip(segment.place(11), "status", _STATUS)
            return True
        time = self._time(segment, order)
        if time is None:
            return True
        if kind == "ED":
            self.end_note()
            self._read_encapsulated(segment, order, time)
        else:
            self._add_line(segment, order, time)
        return True

    def end_note(self) -> None:
        """The next line of text starts a new note."""
        self._open = None

    def _time(self, segment: Segment, order: Segment | None) -> datetime | None:
        """When the document was written: TXA-6 or TXA-4, otherwise OBX-14, OBR-22 or OBR-7."""
        record = self._record
        for source, field in ((self._document, 6), (self._document, 4), (segment, 14), (order, 22)):
            if source is not None and source.text(field):
                return record.time(source, field)
        return result_time(segment, order, record)

    def _add_line(self, segment: Segment, order: Segment | None, time: datetime) -> None:
        text = segment.plain(5)
        key = segment.raw(3), None if order is None else order.sequence, time
        if self._open == key:
            self._lines[-1][1].append(text)
            return
        if not text.strip():
            self._record.skip(segment.place(5), "no_text", "the text is empty")
            return
        self._open = key
        note = {"kind": self._kind(order), "time": time, "text": text}
        self._lines.append((note, [text]))
        self._record.notes.append(note)
        self._record.note_places.append(segment.place())

    def finish(self) -> None:
        """Joins the lines of each note."""
        for note, lines in self._lines:
            note["text"] = "\n".join(lines)

    def _kind(self, order: Segment | None) -> str:
        if self._document is not None:
            return _DOCUMENT_KINDS.get(self._document.text(2).upper(), "note")
        section = "" if order is None else order.text(24).upper()
        return "radiology" if section in _RADIOLOGY else "note"

    def _read_encapsulated(self, segment: Segment, order: Segment | None, time: datetime) -> None:
        """Reads ED: source application, type, subtype, encoding, data."""
        parts = [*segment.components(5), "", "", "", "", ""][:5]
        _, kind, subtype, encoding, content = parts
        media_type = f"{kind.strip()}/{subtype.strip()}".lower()
        if media_type not in _TEXT_TYPES and media_type not in _IMAGE_TYPES:
            detail = "the type of the document is none of text, HTML, RTF, PNG, JPEG and DICOM"
            self._record.skip(segment.place(5), "media_type_not_read", detail)
            return
        data = self._decode(content, encoding.strip().lower(), segment)
        if data is None:
            return
        if media_type in _IMAGE_TYPES:
            self._add_image(data, _IMAGE_TYPES[media_type], segment, order, time)
            return
        text = self._text(data, segment)
        if text is not None:
            self._record.notes.append({"kind": self._kind(order), "time": time, "text": text})
            self._record.note_places.append(segment.place())

    def _decode(self, content: str, encoding: str, segment: Segment) -> bytes | None:
        """The bytes of ED-5. None, with an error, if they are not in their encoding (ED-4)."""
        try:
            match encoding:
                case "base64":
                    return pybase64.b64decode("".join(content.split()), validate=True)
                case "hex":
                    return bytes.fromhex(content)
                case "a" | "":
                    return content.encode()
        except ValueError:
            self._record.add_error(segment.place(5), encoding, f"the data are not {encoding}")
            return None
        detail = "the encoding must be A, Hex or Base64"
        self._record.add_error(segment.place(5), "allowed_values", detail)
        return None

    def _text(self, data: bytes, segment: Segment) -> str | None:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._record.add_error(segment.place(5), "charset", "the text must be in UTF-8")
            return None
        if text.strip():
            return text
        self._record.skip(segment.place(5), "no_text", "the text is empty")
        return None

    def _add_image(
        self,
        data: bytes,
        media_type: str,
        segment: Segment,
        order: Segment | None,
        time: datetime,
    ) -> None:
        named = [*segment.components(3), *([] if order is None else order.components(4))]
        name = " ".join(named).upper()
        is_chest = any(word in name for word in _CHEST)
        if media_type != _DICOM and (not is_chest or any(w in name for w in _OTHER_IMAGING)):
            detail = "no text of OBX-3 or OBR-4 names an X-ray of the chest"
            self._record.skip(segment.place(5), "not_a_chest_xray", detail)
            return
        image = {"time": time, "media_type": media_type, "data": data}
        self._record.images.append(image)
        self._record.image_places.append(segment.place())
