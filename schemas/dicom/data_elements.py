"""Reading of DICOM data elements in bounded time and memory (DICOM PS3.5, section 7; PS3.10).

Only the elements that are asked for are kept. No other element, such as the name of a patient or a
private element, is converted to a value. No error holds a value of the file.
"""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import pydicom.config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from schemas.dicom.signature import PREAMBLE, PREFIX, is_dicom
from schemas.request_errors import ImageError

# pydicom quotes values in its warnings and log lines.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module="pydicom")
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
RLE: Final = "1.2.840.10008.1.2.5"
JPEG: Final = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
JPEG_LS: Final = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81))
JPEG_2000: Final = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91))
LOSSLESS: Final = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (57, 70, 80, 90))
NATIVE: Final = frozenset({IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN})
_SUPPORTED = NATIVE | JPEG | JPEG_LS | JPEG_2000 | {RLE}
_SYNTAX_DETAIL = (
    "the transfer syntax of the DICOM file is missing or is not read; send it uncompressed, "
    "deflated, or as RLE, JPEG baseline, extended or lossless, JPEG-LS or JPEG 2000"
)

_TRANSFER_SYNTAX_UID = 0x00020010
_META_GROUP = 0x0002
_PIXEL_TAGS = range(0x7FE00008, 0x7FE00011)  # float, double and integer pixel data
_PIXEL_DATA = 0x7FE00010
_MAX_READS = 100_000  # reads of the parser; an element takes one to three
_MAX_HEADER = 4 << 20  # bytes before the pixel data of a deflated file
_MAX_SEQUENCE = 1 << 20  # bytes
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = {b"OB", b"OW", b"UN"}  # value representations of pixel data with a length of 32 bits


class Elements:
    """The kept elements of a data set or of a sequence item, converted on access.

    Values are read from their bytes, because conversion by pydicom may quote a value in a warning.
    """

    def __init__(self, dataset: Dataset, byte_order: str) -> None:
        self._dataset, self._byte_order = dataset, byte_order

    def raw(self, tag: int) -> bytes:
        """The bytes of a value; empty if the element is absent or is a sequence."""
        if tag not in self._dataset:
            return b""
        value = self._dataset.get_item(tag, keep_deferred=True).value
        return value if isinstance(value, bytes) else b""

    def text(self, tag: int) -> str:
        """The first value of a text element, without padding."""
        return self.raw(tag).partition(b"\\")[0].decode("latin-1").strip(" \0")

    def decimals(self, tag: int) -> list[float]:
        """The values of a decimal string (DS, IS); empty if one is not a number."""
        try:
            return [float(part) for part in self.raw(tag).decode("ascii").strip(" \0").split("\\")]
        except ValueError:
            return []

    def shorts(self, tag: int, *, signed: bool = False) -> list[int]:
        """The values of an element of 16-bit integers (US, SS)."""
        raw = self.raw(tag)
        count = len(raw) // 2
        form = f"{self._byte_order}{count}{'h' if signed else 'H'}"
        return [*struct.unpack(form, raw[: 2 * count])]

    def short(self, tag: int) -> int | None:
        """The first value of an element of 16-bit integers."""
        return next(iter(self.shorts(tag)), None)

    def items(self, tag: int) -> Iterator["Elements"]:
        """The items of a sequence. Raises ImageError: it is damaged or too long."""
        if tag not in self._dataset:
            return
        if len(self.raw(tag)) > _MAX_SEQUENCE:
            raise unreadable()
        try:
            items = self._dataset[tag].value
        except Exception:  # noqa: BLE001 - pydicom raises many kinds of errors
            raise unreadable() from None
        for item in items if isinstance(items, Sequence) else ():
            yield Elements(item, self._byte_order)


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file whose elements before the pixel data are read.

    `is_implicit`: whether elements have no value representation. `data_set`: offset of the data set
    in `data`, where that of a deflated file is compressed. `pixel_offset`: offset of the pixel data
    element in the data set, or None without one.
    """

    data: bytes
    transfer_syntax: str
    elements: Elements
    is_implicit: bool
    data_set: int
    pixel_offset: int | None

    @property
    def byte_order(self) -> str:
        """The byte order of the data set as in `struct`: `<` or `>`."""
        return _byte_order(self.transfer_syntax)

    def pixel_element(self, max_bytes: int) -> tuple[bytes, memoryview]:
        """The value representation and the value of the pixel data element.

        `max_bytes`: length of a native value that the image needs; no more is inflated. The value
        of encapsulated pixel data extends to the end of the file.

        Raises ImageError: there are no integer pixel data, or they are truncated.
        """
        if self.pixel_offset is None:
            raise ImageError("image", "the DICOM file has no pixel data")
        start = self.pixel_offset
        if self.transfer_syntax == DEFLATED:
            body = memoryview(_inflate(self.data, self.data_set, start + 12 + max_bytes))
        else:
            body = memoryview(self.data)[self.data_set :]
        try:
            group, element = struct.unpack_from(f"{self.byte_order}HH", body, start)
            if group << 16 | element != _PIXEL_DATA:
                raise ImageError("image", "the pixel data of the DICOM file are not integers")
            representation = bytes(body[start + 4 : start + 6])
            offset = start + 8
            if self.is_implicit:
                representation, offset = b"OW", start + 4
            elif representation not in _LONG_VRS:
                raise unreadable()
            (length,) = struct.unpack_from(f"{self.byte_order}I", body, offset)
        except struct.error:
            raise unreadable() from None
        value = body[offset + 4 :]
        if self.transfer_syntax not in NATIVE:
            if length != _UNDEFINED:
                raise unreadable()
            return representation, value
        if length == _UNDEFINED:
            raise unreadable()
        return representation, value[:length]


class _BoundedReader(io.BytesIO):
    """A file in memory that ends after a number of reads: headers of any shape end in time."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise unreadable()
        return super().read(size)


def unreadable() -> ImageError:
    return ImageError("image", "is not a readable DICOM image, or is truncated")


def read_file(data: bytes, tags: Collection[int]) -> DicomFile:
    """Reads the elements `tags` that precede the pixel data.

    Raises ImageError: the file is damaged, its header is too long, or its transfer syntax is not
    read.
    """
    if not is_dicom(data):
        raise unreadable()
    try:
        return _read_file(data, tags)
    except ImageError:
        raise
    except Exception:  # noqa: BLE001 - pydicom raises many kinds of errors for damaged files
        raise unreadable() from None


def _read_file(data: bytes, tags: Collection[int]) -> DicomFile:
    file = _BoundedReader(data)
    file.seek(PREAMBLE + len(PREFIX))
    meta = read_dataset(
        file, False, True, stop_when=_is_after_meta, specific_tags=[_TRANSFER_SYNTAX_UID]
    )
    syntax = Elements(meta, "<").text(_TRANSFER_SYNTAX_UID)
    if syntax not in _SUPPORTED:
        raise ImageError("transfer_syntax", _SYNTAX_DETAIL)
    start = file.tell()
    body, data_set, size = file, start, len(data)
    if syntax == DEFLATED:
        inflated = _inflate(data, start, _MAX_HEADER)
        body, data_set, size = _BoundedReader(inflated), 0, len(inflated)
    dataset = read_dataset(
        body,
        syntax == IMPLICIT,
        syntax != BIG_ENDIAN,
        stop_when=_is_pixel_data,
        specific_tags=list(tags),
    )
    end = body.tell()
    return DicomFile(
        data,
        syntax,
        Elements(dataset, _byte_order(syntax)),
        bool(dataset.original_encoding[0]),
        start,
        end - data_set if end < size else None,
    )


def _byte_order(syntax: str) -> str:
    return ">" if syntax == BIG_ENDIAN else "<"


def _is_after_meta(tag: BaseTag, _: str | None, __: int) -> bool:
    return tag >> 16 != _META_GROUP


def _is_pixel_data(tag: BaseTag, _: str | None, __: int) -> bool:
    return tag in _PIXEL_TAGS


def _inflate(data: bytes, start: int, limit: int) -> bytes:
    """Inflates up to `limit` bytes (PS3.5, section A.5). Raises ImageError: they are damaged."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(memoryview(data)[start:], limit)
    except zlib.error:
        raise unreadable() from None
