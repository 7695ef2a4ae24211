"""Stored pixel values of a DICOM image with one frame and one sample per pixel (PS3.5, section 8).

Every decoder writes into an array of the size that the header declares and that was checked, so
that no codestream can allocate more.
"""

import struct
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom.encaps

from schemas.dicom.codestreams import read_codestream
from schemas.dicom.data_elements import (
    JPEG,
    JPEG_2000,
    JPEG_LS,
    LOSSLESS,
    RLE,
    DicomFile,
    unreadable,
)
from schemas.dicom.header import PixelFormat, is_native
from schemas.request_errors import ImageError

Stored = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
_RLE_HEADER = 64  # bytes
_END_OF_IMAGE = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000


@dataclass(frozen=True)
class StoredPixels:
    """Pixels as they are stored.

    `values` [rows, columns]: the value of a pixel is the `bits` bits from bit `shift`. If `signed`,
    they are a two's complement.
    """

    values: Stored
    bits: int
    shift: int
    signed: bool

    def indices(self, tile: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The stored bits of a part of `values` as unsigned integers from 0 to 2^bits - 1."""
        if self.shift:
            tile = tile >> self.shift
        if self.bits < 8 * tile.dtype.itemsize:
            tile = tile & ((1 << self.bits) - 1)
        return tile

    def table(self) -> npt.NDArray[np.int64]:
        """[2^bits] the value of each combination of bits."""
        values = np.arange(1 << self.bits, dtype=np.int64)
        if self.signed:
            values[len(values) // 2 :] -= len(values)
        return values


def read_stored_pixels(file: DicomFile, form: PixelFormat, max_pixels: int) -> StoredPixels:
    """Decodes the pixels of a checked format (`check_pixel_format`).

    Raises ImageError: the pixel data are truncated, damaged, of another size than the header,
    or too large for their compression.
    """
    count = form.rows * form.columns
    representation, value = file.pixel_element(count * form.bits_allocated // 8)
    if is_native(file):
        values = _native(file, form, representation, value)
        return StoredPixels(
            values, form.bits_stored, form.high_bit - form.bits_stored + 1, form.signed
        )
    # libopenjp2 and the tile buffers hold a JPEG 2000 image several times.
    if file.transfer_syntax in JPEG_2000 and 2 * count > max_pixels:
        detail = f"more than {max_pixels // 2} pixels, which is the limit for JPEG 2000"
        raise ImageError("pixel_limit", detail)
    try:
        frame = pydicom.encaps.get_frame(bytes(value), 0, number_of_frames=1)
        if file.transfer_syntax == RLE:
            return StoredPixels(_run_lengths(frame, form), form.bits_stored, 0, form.signed)
        return _codestream(frame, file.transfer_syntax, form)
    except ImageError:
        raise
    except Exception:  # noqa: BLE001 - pydicom and each decoder raise errors of their own
        raise unreadable() from None


def _native(file: DicomFile, form: PixelFormat, representation: bytes, value: memoryview) -> Stored:
    size = form.bits_allocated // 8
    count = form.rows * form.columns
    is_swapped = size == 1 and file.byte_order == ">" and representation == b"OW"
    if len(value) < count * size + (count % 2 if is_swapped else 0):
        raise unreadable()
    if is_swapped:  # bytes in words of 16 bits (PS3.5, section 8.1.1)
        words = np.frombuffer(value, ">u2", (count + 1) // 2)
        return words.astype("<u2").view(np.uint8)[:count].reshape(form.rows, form.columns)
    values = np.frombuffer(value, f"{file.byte_order}u{size}", count)
    return values.reshape(form.rows, form.columns)


def _run_lengths(frame: bytes, form: PixelFormat) -> Stored:
    """Decodes RLE (PS3.5, annex G): one segment for each byte of a pixel."""
    size = form.bits_allocated // 8
    segments, *offsets = struct.unpack_from("<16I", frame)
    if segments != size or any(not _RLE_HEADER <= at < len(frame) for at in offsets[:size]):
        raise unreadable()
    count = form.rows * form.columns
    values = np.zeros((form.rows, form.columns), f"u{size}")
    planes = values.reshape(-1).view(np.uint8).reshape(count, size)
    ends = [*offsets[1:size], len(frame)]
    for segment, (start, end) in enumerate(zip(offsets[:size], ends, strict=True)):
        runs = memoryview(frame)[start:end]
        plane = imagecodecs.packbits_decode(runs, out=count)  # type: ignore[arg-type] # any buffer
        if len(plane) < count:
            raise unreadable()
        # The first segment has the most significant bytes; memory has the least significant first.
        planes[:, size - 1 - segment] = np.frombuffer(plane, np.uint8, count)
    return values


def _codestream(frame: bytes, syntax: str, form: PixelFormat) -> StoredPixels:
    declared = read_codestream(frame, is_jpeg_2000=syntax in JPEG_2000)
    if (declared.rows, declared.columns) != (form.rows, form.columns):
        raise ImageError("image", "the compressed image has another size than the DICOM header")
    # Decoders fill the missing rest of a truncated image with grey.
    if not frame.rstrip(b"\0\xff").endswith(_END_OF_IMAGE):
        raise unreadable()
    if declared.components != 1 or not 8 <= declared.precision <= 16:
        raise ImageError("image", "the compressed image must have one sample of 8 to 16 bits")
    dtype = np.uint8 if declared.precision == 8 else np.uint16
    values: npt.NDArray[Any] = np.zeros((form.rows, form.columns), dtype)
    if syntax in JPEG:
        imagecodecs.jpeg8_decode(frame, out=values)
    elif syntax in JPEG_LS:
        imagecodecs.jpegls_decode(frame, out=values)
    else:
        is_signed = bool(frame[42] & 0x80)
        out = values.view(f"i{dtype().itemsize}") if is_signed else values
        imagecodecs.jpeg2k_decode(frame, out=out, numthreads=1)
    bits = declared.precision
    if syntax in LOSSLESS:  # a lossy image may exceed the bits stored
        bits = min(bits, form.bits_stored)
    return StoredPixels(values, bits, 0, form.signed)
