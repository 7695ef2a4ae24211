"""Notes and chest X-rays: DiagnosticReport, DocumentReference, Media and Binary (FHIR R4, 2.42)."""

from datetime import datetime
from typing import Any

from schemas.fhir.attachments import (
    DICOM,
    IMAGE_TYPES,
    TEXT_TYPES,
    media_type_of,
    read_content,
    read_text,
)
from schemas.fhir.document import Resource
from schemas.fhir.entries import Entries, indexed_objects, is_modified, objects
from schemas.fhir.record import Place, Record, codes, texts

_REPORT_STATUSES = ("final", "amended", "corrected", "appended", "preliminary", "partial")
_NOT_KNOWN = "was not known at as_of"
_NO_TEXT_TYPE = f"the media type is not read; send one of {', '.join(TEXT_TYPES[:4])}"
_STATUS = "its status does not state that it is valid; it is not read"
# LOINC of documents, by the kind of a note. Others are of the kind "note".
NOTE_KINDS = {
    "34117-2": "admission",
    "47039-3": "admission",
    "11506-3": "progress",
    "34746-8": "nursing",
    "18842-5": "discharge",
    "11488-4": "consult",
    "18748-4": "radiology",
    "30746-2": "radiology",
}
_RADIOLOGY_CATEGORIES = frozenset({"RAD", "LP29684-5", "363679005"})
# DICOM modalities of projection radiographs.
_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "XR", "RG", "PX"})
_CHEST_CODES = frozenset({"51185008", "43799004", "816094009"})  # SNOMED CT, thorax and chest
_CHEST_WORDS = ("chest", "thorax", "thoracic", "lung")


class DocumentReader:
    """Reads the notes and images of one Bundle into a record."""

    def __init__(self, record: Record, entries: Entries) -> None:
        self._record, self._entries = record, entries
        self.binaries_read: set[int] = set()

    # ---- notes -----------------------------------------------------------------------------------

    def read_report(self, i: int, resource: Resource) -> None:
        """Reads the text of a DiagnosticReport: its presentedForm, otherwise its conclusion."""
        record, place = self._record, (i, "")
        if resource.get("status") not in _REPORT_STATUSES:
            record.skip(place, "status", _STATUS)
            return
        if is_modified(record, place, resource):
            return
        forms = indexed_objects(resource, "presentedForm")
        conclusion = resource.get("conclusion")
        if not forms and not isinstance(conclusion, str):
            detail = "has no text; its results are read as Observations of the Bundle"
            record.skip(place, "no_text", detail)
            return
        time = self._report_time(i, resource)
        if time is None:
            return
        kind = _note_kind(resource, "code")
        attachments = [((i, f"presentedForm[{j}]"), form) for j, form in forms]
        if self._add_note(attachments, resource, kind, time):
            return
        if isinstance(conclusion, str) and conclusion.strip():
            self._append_note(kind, time, conclusion, (i, "conclusion"))

    def _report_time(self, i: int, resource: Resource) -> datetime | None:
        """When the report was written: `issued`, otherwise the time of the examination."""
        field = "issued" if "issued" in resource else "effective"
        value = resource.get("issued") or resource.get("effectiveDateTime")
        period = resource.get("effectivePeriod")
        if value is None and isinstance(period, dict):
            value = period.get("end") or period.get("start")
        return self._known_at(i, value, field)

    def read_document(self, i: int, resource: Resource) -> None:
        """Reads the text of a DocumentReference. Its contents are forms of the same document."""
        record, place = self._record, (i, "")
        is_valid = resource.get("status") == "current"
        if not is_valid or resource.get("docStatus") == "entered-in-error":
            record.skip(place, "status", _STATUS)
            return
        if is_modified(record, place, resource):
            return
        context = resource.get("context")
        period = context.get("period") if isinstance(context, dict) else None
        value, field = resource.get("date"), "date"
        if value is None and isinstance(period, dict):
            value, field = period.get("end") or period.get("start"), "context.period"
        time = self._known_at(i, value, field)
        if time is None:
            return
        attachments = [
            ((i, f"content[{j}].attachment"), content["attachment"])
            for j, content in indexed_objects(resource, "content")
            if isinstance(content.get("attachment"), dict)
        ]
        if not attachments:
            record.skip(place, "no_text", "has no attachment")
        self._add_note(attachments, resource, _note_kind(resource, "type"), time)

    def _known_at(self, i: int, value: object, field: str) -> datetime | None:
        record = self._record
        if value is None:
            record.skip((i, ""), "no_time", "has no time; its age is unknown")
            return None
        time = record.time(value, (i, field))
        if time is not None and time > record.as_of:
            record.skip((i, ""), "after_as_of", _NOT_KNOWN)
            return None
        return time

    def _add_note(
        self,
        attachments: list[tuple[Place, Resource]],
        origin: Resource,
        kind: str,
        time: datetime,
    ) -> bool:
        """Adds the attachment that is the simplest text; the others are the same document.

        Returns whether one was added. Only if none was, those of other media types are listed.
        """
        ranked: list[tuple[int, int]] = []
        others: list[Place] = []
        for j, (place, attachment) in enumerate(attachments):
            media_type = self._media_type(attachment, origin)
            if media_type in TEXT_TYPES:
                ranked.append((TEXT_TYPES.index(media_type), j))
            else:
                others.append(place)
        for _, j in sorted(ranked):
            place, attachment = attachments[j]
            content = read_content(attachment, place, origin, self._entries, self._record)
            if content is None:
                continue
            if content.entry is not None:
                self.binaries_read.add(content.entry)
            text = read_text(content, self._record)
            if text is not None:
                self._append_note(kind, time, text, place)
                return True
        for place in others:
            self._record.skip(place, "media_type_not_read", _NO_TEXT_TYPE)
        return False

    def _media_type(self, attachment: Resource, origin: Resource) -> str:
        """The media type of an attachment; without one, of the Binary that it names."""
        media_type, _ = media_type_of(attachment)
        if media_type or "url" not in attachment:
            return media_type
        target = self._entries.resolve(attachment["url"], origin)
        return "" if target is None else media_type_of(target[1])[0]

    def _append_note(self, kind: str, time: datetime, text: str, place: Place) -> None:
        self._record.notes.append({"kind": kind, "time": time, "text": text})
        self._record.note_places.append(place)

    # ---- images ----------------------------------------------------------------------------------

    def read_media(self, i: int, resource: Resource) -> None:
        """Reads a chest X-ray: a Media of a radiograph, or of the chest."""
        record, place = self._record, (i, "")
        if resource.get("status") != "completed":
            record.skip(place, "status", _STATUS)
            return
        if is_modified(record, place, resource):
            return
        attachment = resource.get("content")
        if not isinstance(attachment, dict):
            record.skip(place, "no_value", "has no content")
            return
        media_type = self._media_type(attachment, resource)
        if media_type not in IMAGE_TYPES:
            detail = "the media type is not read; send image/png or image/jpeg"
            if media_type == DICOM:
                detail = f"application/dicom is not read; {detail.partition('; ')[2]}"
            record.skip((i, "content"), "media_type_not_read", detail)
            return
        if not _is_chest_xray(resource):
            detail = "is not stated to be a chest X-ray; send modality (DX, CR) and bodySite"
            record.skip(place, "not_a_chest_xray", detail)
            return
        time = self._media_time(i, resource)
        content = time and read_content(attachment, (i, "content"), resource, self._entries, record)
        if not content:
            return
        if content.entry is not None:
            self.binaries_read.add(content.entry)
        self._append_image(i, resource, media_type, time, content.data)

    def _append_image(
        self, i: int, resource: Resource, media_type: str, time: Any, data: bytes
    ) -> None:
        view = next(texts(resource.get("view")), None)
        if view is None:
            view = next(iter(codes(resource.get("view"))), None)
        image = {"time": time, "media_type": media_type, "data": data}
        if view is not None:
            image["view"] = view
        self._record.images.append(image)
        self._record.image_places.append((i, "content"))

    def _media_time(self, i: int, resource: Resource) -> datetime | None:
        value, field = resource.get("createdDateTime"), "created"
        period = resource.get("createdPeriod")
        if value is None and isinstance(period, dict):
            value = period.get("end") or period.get("start")
        if value is None:
            value, field = resource.get("issued"), "issued"
        return self._known_at(i, value, field)

    def check_binaries(self) -> None:
        """Records each Binary that no document names. A Binary alone has neither time nor kind."""
        for i, _ in self._entries.of_type("Binary"):
            if i not in self.binaries_read:
                detail = "no DocumentReference, DiagnosticReport or Media that is read names it"
                self._record.skip((i, ""), "not_referenced", detail)


def _note_kind(resource: Resource, field: str) -> str:
    for code in codes(resource.get(field)):
        if code in NOTE_KINDS:
            return NOTE_KINDS[code]
    for concept in objects(resource, "category"):
        if not _RADIOLOGY_CATEGORIES.isdisjoint(codes(concept)):
            return "radiology"
    return "note"


def _is_chest_xray(media: Resource) -> bool:
    """Whether a Media is stated to be a radiograph of the chest.

    A radiograph without a body site counts, because the service checks whether it resembles a
    chest X-ray. An image of the chest with another modality does not count.
    """
    modality = {*codes(media.get("modality"))}
    site = media.get("bodySite")
    if modality and not modality & _RADIOGRAPHS:
        return False
    if site is None:
        return bool(modality)
    named = " ".join(texts(site)).lower()
    by_code = not _CHEST_CODES.isdisjoint(codes(site))
    return by_code or any(word in named for word in _CHEST_WORDS)
