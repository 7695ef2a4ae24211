"""Size and precision that a compressed image declares, read before it is decoded."""

import struct
from dataclasses import dataclass

from schemas.dicom.data_elements import unreadable

_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_FRAME_HEADERS = {0xC0, 0xC1, 0xC3, 0xF7}  # baseline, extended, lossless, JPEG-LS
_OTHER_FRAMES = {0xC2, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
_START_OF_IMAGE, _START_OF_SCAN = b"\xff\xd8", 0xDA
_J2K_START = b"\xff\x4f\xff\x51"  # start of codestream, then image and tile size
_MAX_TILES = 4096  # of JPEG 2000; each takes memory of its own


@dataclass(frozen=True)
class Codestream:
    """What a codestream declares. `precision`: bits of a sample."""

    rows: int
    columns: int
    components: int
    precision: int


def read_codestream(frame: bytes, *, is_jpeg_2000: bool) -> Codestream:
    """Reads the frame header of JPEG (ITU-T T.81, B.2.2), JPEG-LS (T.87) or JPEG 2000 (T.800, A.5).

    Raises ImageError: the codestream is damaged, or is progressive or arithmetic JPEG.
    """
    try:
        return _read_jpeg_2000(frame) if is_jpeg_2000 else _read_jpeg(frame)
    except (struct.error, IndexError):
        raise unreadable() from None


def _read_jpeg(frame: bytes) -> Codestream:
    if not frame.startswith(_START_OF_IMAGE):
        raise unreadable()
    at = 2
    while True:
        if frame[at] != 0xFF:
            raise unreadable()
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        if marker == _START_OF_SCAN or marker in _OTHER_FRAMES:
            raise unreadable()
        (length,) = struct.unpack_from(">H", frame, at + 2)
        if marker in _FRAME_HEADERS:
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            return Codestream(rows, columns, components, precision)
        at += 2 + max(length, 2)


def _read_jpeg_2000(frame: bytes) -> Codestream:
    if not frame.startswith(_J2K_START):
        raise unreadable()
    width, height, left, top, tile_width, tile_height = struct.unpack_from(">6I", frame, 8)
    (components,) = struct.unpack_from(">H", frame, 40)
    if not tile_width or not tile_height or width <= left or height <= top or not components:
        raise unreadable()
    columns, rows = width - left, height - top
    if -(-columns // tile_width) * -(-rows // tile_height) > _MAX_TILES:
        raise unreadable()
    depth = frame[42]
    return Codestream(rows, columns, components, (depth & 0x7F) + 1)
