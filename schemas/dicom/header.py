"""The elements of a DICOM file that describe its image (DICOM PS3.3).

The header has no identifier of a patient, a physician, an institution or a device, and no private
element.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from schemas.dicom.data_elements import NATIVE, DicomFile, Elements, read_file
from schemas.request_errors import ImageError

_SOP_CLASS = 0x00080016
_ACQUISITION_DATE_TIME = 0x0008002A
_DATES_AND_TIMES = ((0x00080022, 0x00080032), (0x00080023, 0x00080033))  # acquisition, content
_TIME_ZONE = 0x00080201
_MODALITY = 0x00080060
_INTENT = 0x00080068
_ANATOMIC_REGION = 0x00082218
_CODE_VALUE, _CODE_MEANING = 0x00080100, 0x00080104
_BODY_PART = 0x00180015
_VIEW_POSITION = 0x00185101
_PATIENT_ORIENTATION = 0x00200020
_LATERALITIES = (0x00200062, 0x00200060)  # of the image, of the series
_VIEW_CODE = 0x00540220

SAMPLES, PHOTOMETRIC, FRAMES = 0x00280002, 0x00280004, 0x00280008
ROWS, COLUMNS = 0x00280010, 0x00280011
BITS_ALLOCATED, BITS_STORED, HIGH_BIT, SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103

HEADER_TAGS: Final = frozenset(
    {
        *(_SOP_CLASS, _ACQUISITION_DATE_TIME, _TIME_ZONE, _MODALITY, _INTENT, _ANATOMIC_REGION),
        *(tag for pair in _DATES_AND_TIMES for tag in pair),
        *(_BODY_PART, _VIEW_POSITION, _PATIENT_ORIENTATION, *_LATERALITIES, _VIEW_CODE),
        *(SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS),
        *(BITS_ALLOCATED, BITS_STORED, HIGH_BIT, SIGNED),
    }
)

_DATE_TIME = re.compile(
    r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)?(\d\d)?(?:\.(\d{1,6}))?([+-]\d{4})?", re.ASCII
)
_OFFSET = re.compile(r"([+-])(\d\d)(\d\d)", re.ASCII)
_MAX_OFFSET = timedelta(hours=14)  # PS3.5, section 6.2, DT


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels are stored (PS3.3, C.7.6.3). `photometric`: photometric interpretation.

    `high_bit`: position of the most significant stored bit of native pixels.
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    samples: int
    photometric: str
    frames: int


@dataclass(frozen=True)
class DicomHeader:
    """The description of an image; text is in capitals, and empty if absent.

    `intent`: Presentation Intent Type. `body_part`: Body Part Examined, else code and meaning of
    the Anatomic Region Sequence. `view`: View Position, else the meaning of the view code, else
    LATERAL by Patient Orientation. `laterality`: L, R or empty. `taken_at`: acquisition
    time, else content time; without a time zone if the file states none.
    """

    sop_class: str
    modality: str
    intent: str
    body_part: str
    region_codes: frozenset[str]
    view: str
    laterality: str
    taken_at: datetime | None
    format: PixelFormat
    has_pixels: bool


def read_header(data: bytes) -> DicomHeader:
    """Reads the header. Raises ImageError: the file is damaged, or its syntax is not read."""
    return header_of(read_file(data, HEADER_TAGS))


def header_of(file: DicomFile) -> DicomHeader:
    """The header of a file whose elements HEADER_TAGS are read."""
    elements = file.elements
    codes, meaning = _coded(elements, _ANATOMIC_REGION)
    return DicomHeader(
        sop_class=elements.text(_SOP_CLASS),
        modality=elements.text(_MODALITY).upper(),
        intent=elements.text(_INTENT).upper(),
        body_part=(elements.text(_BODY_PART) or meaning).upper(),
        region_codes=codes,
        view=_view(elements),
        laterality=_laterality(elements),
        taken_at=_taken_at(elements),
        format=_pixel_format(elements),
        has_pixels=file.pixel_offset is not None,
    )


def check_pixel_format(header: DicomHeader, max_pixels: int, max_side: int) -> None:
    """Checks that the pixels can be decoded, before any is decoded.

    Raises ImageError: the file has no pixels or several frames, too many pixels, or a number of
    bits that is not read.
    """
    form = header.format
    if not header.has_pixels or not form.rows or not form.columns:
        raise ImageError("image", "the DICOM file has no pixel data")
    if form.frames > 1:
        raise ImageError("multi_frame", "the DICOM file has several frames; send one image")
    if form.rows * form.columns > max_pixels or max(form.rows, form.columns) > max_side:
        detail = f"more than {max_pixels} pixels, or a side over {max_side}"
        raise ImageError("pixel_limit", detail)
    stored, allocated = form.bits_stored, form.bits_allocated
    if allocated not in (8, 16) or not 8 <= stored <= allocated or form.high_bit >= allocated:
        raise ImageError("bits_stored", "must have 8 to 16 bits stored in 8 or 16 bits allocated")
    if form.high_bit < stored - 1:
        raise ImageError("bits_stored", "the high bit is below the number of bits stored")


def is_native(file: DicomFile) -> bool:
    """Whether the pixels are not encapsulated (PS3.5, section 8.1)."""
    return file.transfer_syntax in NATIVE


def _pixel_format(elements: Elements) -> PixelFormat:
    stored = elements.short(BITS_STORED) or 0
    frames = elements.decimals(FRAMES)
    high_bit = elements.short(HIGH_BIT)
    return PixelFormat(
        rows=elements.short(ROWS) or 0,
        columns=elements.short(COLUMNS) or 0,
        bits_allocated=elements.short(BITS_ALLOCATED) or 0,
        bits_stored=stored,
        high_bit=stored - 1 if high_bit is None else high_bit,
        signed=elements.short(SIGNED) == 1,
        samples=elements.short(SAMPLES) or 1,
        photometric=elements.text(PHOTOMETRIC).upper(),
        frames=int(frames[0]) if frames and abs(frames[0]) < 1e9 else 1,
    )


def _coded(elements: Elements, tag: int) -> tuple[frozenset[str], str]:
    """The code values of a sequence, and the meaning of the first code."""
    items = list(elements.items(tag))
    codes = frozenset(item.text(_CODE_VALUE) for item in items) - {""}
    return codes, items[0].text(_CODE_MEANING) if items else ""


def _view(elements: Elements) -> str:
    position = elements.text(_VIEW_POSITION) or _coded(elements, _VIEW_CODE)[1]
    if position:
        return position.upper()
    # The rows of a lateral image run to the front or the back of the patient (PS3.3, C.7.6.1.1.1).
    return "LATERAL" if elements.text(_PATIENT_ORIENTATION)[:1] in ("A", "P") else ""


def _laterality(elements: Elements) -> str:
    stated = next(filter(None, map(elements.text, _LATERALITIES)), "").upper()
    return stated if stated in ("L", "R") else ""


def _taken_at(elements: Elements) -> datetime | None:
    stated = [elements.text(_ACQUISITION_DATE_TIME)]
    for date_tag, time_tag in _DATES_AND_TIMES:
        # Old files have points and colons in dates and times (PS3.5, section 6.2).
        date, clock = elements.text(date_tag), elements.text(time_tag)
        stated.append(date.replace(".", "") + clock.replace(":", ""))
    zone = elements.text(_TIME_ZONE)
    return next((time for text in stated if (time := _parse_time(text, zone))), None)


def _parse_time(text: str, zone: str) -> datetime | None:
    """Parses a DT value that has at least an hour; None if it is not a time."""
    parts = _DATE_TIME.fullmatch(text)
    if parts is None:
        return None
    *digits, fraction, own_zone = parts.groups()
    year, month, day, hour, minute, second = (int(part or 0) for part in digits)
    microsecond = int((fraction or "").ljust(6, "0") or 0)
    try:
        # A leap second counts as the second before it. Without a time zone, the time stays naive.
        time = datetime(year, month, day, hour, minute, min(second, 59), microsecond)  # noqa: DTZ001
    except ValueError:
        return None
    offset = _OFFSET.fullmatch(own_zone or zone)
    if offset is None:
        return time
    shift = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    if shift > _MAX_OFFSET:
        return time
    return time.replace(tzinfo=timezone(-shift if offset[1] == "-" else shift))
