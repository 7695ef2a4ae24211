"""Whether a DICOM file holds a chest X-ray for display, and whether its tags fit the payload."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from schemas.features.images.view import parse_view, view_rank
from schemas.payload import Image
from schemas.response import Reason

if TYPE_CHECKING:
    from schemas.dicom.header import DicomHeader

# Defined terms of PS3.3, C.7.3.1.1.1. DR is no defined term, but common.
_XRAY_MODALITIES = {"CR", "DX", "DR", "RG"}
# A scanned film or a screenshot; the pixels decide (`check_chest_xray`).
_OPEN_MODALITIES = {"", "OT", "SC", "HC"}
_SOP_CLASSES: Final = {
    "",
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage - For Presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray Image Storage - For Processing
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image Storage
    "1.2.840.10008.5.1.4.1.1.7.2",  # Multi-frame Grayscale Byte Secondary Capture
    "1.2.840.10008.5.1.4.1.1.7.3",  # Multi-frame Grayscale Word Secondary Capture
}
_GREY = {"MONOCHROME1", "MONOCHROME2"}
_CHEST_WORDS = ("CHEST", "THORA", "TORAX", "LUNG", "PULMO", "RIB", "THX", "CXR")
# Chest and lung in SNOMED CT and SNOMED RT (PS3.16, CID 4031).
_CHEST_CODES = {"51185008", "43799004", "816094009", "39607008", "T-D3000", "T-28000"}
_TOLERANCE = timedelta(minutes=1)
_EARLIEST_ZONE, _LATEST_ZONE = timedelta(hours=-12), timedelta(hours=14)


def unfit_reason(header: "DicomHeader") -> tuple[Reason, str] | None:
    """Why the image is not read: reason and detail for the receipt; None if it can be read."""
    if header.sop_class not in _SOP_CLASSES or (
        header.modality not in _XRAY_MODALITIES | _OPEN_MODALITIES
    ):
        return "not_a_chest_xray", "the DICOM file is of another modality than an X-ray film"
    if header.format.samples != 1 or header.format.photometric not in _GREY:
        return "not_a_chest_xray", "the DICOM file holds a colour image"
    if not _is_chest(header):
        return "not_a_chest_xray", "the DICOM file states another part of the body than the chest"
    if header.intent == "FOR PROCESSING":
        return "not_for_presentation", "the DICOM file holds raw pixels that are not for display"
    return None


def contradictions(image: Image, header: "DicomHeader") -> Iterator[str]:
    """The fields of the payload that contradict the tags: each as a clause of a warning."""
    if parse_view(header.view) is not None and parse_view(image.view) is not None:
        stated, tagged = (parse_view(image.view), view_rank(image.view)), header.view
        if stated != (parse_view(tagged), view_rank(tagged)):
            yield "view differs from the view in the DICOM file, and the field is used"
    if header.taken_at is not None and not _is_same_time(image.time, header.taken_at):
        yield "time differs from the acquisition time in the DICOM file, and the field is used"
    if header.laterality and parse_view(image.view) != "lateral":
        yield "data state that the image shows one side of the body (laterality)"


def _is_chest(header: "DicomHeader") -> bool:
    if not header.body_part and not header.region_codes:
        return True
    if any(word in header.body_part for word in _CHEST_WORDS):
        return True
    return bool(header.region_codes & _CHEST_CODES)


def _is_same_time(stated: datetime, taken_at: datetime) -> bool:
    """Whether the times agree. A time without a zone may be of any zone."""
    if taken_at.tzinfo is not None:
        return abs(stated - taken_at) <= _TOLERANCE
    offset = taken_at - stated.astimezone(UTC).replace(tzinfo=None)
    return _EARLIEST_ZONE - _TOLERANCE <= offset <= _LATEST_ZONE + _TOLERANCE
