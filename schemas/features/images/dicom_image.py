"""From a DICOM file to a grey image as a radiologist sees it (DICOM PS3.3, C.11; PS3.14)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from schemas.dicom.data_elements import DicomFile, Elements, read_file
from schemas.dicom.header import HEADER_TAGS, DicomHeader, check_pixel_format, header_of
from schemas.dicom.stored_pixels import StoredPixels, read_stored_pixels
from schemas.features.images.intensity import Counts, Levels, grey_levels, intensity_window

_PADDING, _PADDING_LIMIT = 0x00280120, 0x00280121
_INTERCEPT, _SLOPE = 0x00281052, 0x00281053
_CENTER, _WIDTH, _FUNCTION = 0x00281050, 0x00281051, 0x00281056
_MODALITY_LUT, _VOI_LUT = 0x00283000, 0x00283010
_DESCRIPTOR, _LUT_DATA = 0x00283002, 0x00283006
_SHAPE = 0x20500020
_GREY_TAGS = frozenset(
    {
        *(_PADDING, _PADDING_LIMIT, _INTERCEPT, _SLOPE, _CENTER, _WIDTH, _FUNCTION),
        *(_MODALITY_LUT, _VOI_LUT, _SHAPE),
    }
)
_TILE = 1 << 20  # pixels

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _LookupTable:
    """`first`: the first input. `outputs`: for it and the following inputs, of `bits` bits."""

    first: int
    outputs: Values
    bits: int

    def apply(self, inputs: npt.NDArray[Any]) -> Values:
        """Inputs before the first and after the last have the first and the last output."""
        at = np.clip(np.rint(inputs) - self.first, 0, len(self.outputs) - 1).astype(np.int64)
        outputs: Values = self.outputs[at]
        return outputs


def decode_dicom(data: bytes, max_pixels: int, max_side: int) -> PIL.Image.Image:
    """Decodes a greyscale DICOM image to mode L.

    In order: the Modality LUT or the rescale slope and intercept (C.11.1), the first VOI LUT or
    window (C.11.2), and the inversion of MONOCHROME1 or of the Presentation LUT Shape INVERSE
    (C.7.6.3.1.2, C.11.6), which are one inversion if both are stated. Without a VOI LUT or window,
    8-bit values are read unchanged, and other values by `intensity_window`.

    Raises ImageError: the file is damaged, too large, or of a form that is not read.
    """
    file = read_file(data, HEADER_TAGS | _GREY_TAGS)
    header = header_of(file)
    check_pixel_format(header, max_pixels, max_side)
    stored = read_stored_pixels(file, header.format, max_pixels)
    levels = _levels(file, header, stored)
    grey = np.empty(stored.values.shape, np.uint8)
    for rows in _tiles(stored):
        np.take(levels, stored.indices(stored.values[rows]), out=grey[rows])
    return PIL.Image.fromarray(grey)


def _tiles(stored: StoredPixels) -> list[slice]:
    """Slices of rows. Computation on the whole image would need a multiple of its memory."""
    rows, columns = stored.values.shape
    step = max(1, _TILE // columns)
    return [slice(top, top + step) for top in range(0, rows, step)]


def _levels(file: DicomFile, header: DicomHeader, stored: StoredPixels) -> Levels:
    """[2^bits] the grey level of each combination of stored bits."""
    elements, table = file.elements, stored.table()
    lut = _first_lut(elements, _MODALITY_LUT, signed=stored.signed)
    if lut is None:
        slope = _decimal(elements, _SLOPE, 1.0) or 1.0
        values = table.astype(np.float64) * slope + _decimal(elements, _INTERCEPT, 0.0)
    else:
        values = lut.apply(table)
    shown = _voi_levels(elements, values)
    if shown is None and stored.bits == 8 and lut is None:
        # Only the direction of the rescale matters.
        shown = np.argsort(np.argsort(values)).astype(np.uint8)
    if shown is None:
        shown = _automatic_levels(elements, values, stored)
    is_inverse = elements.text(_SHAPE).upper() == "INVERSE"
    return 255 - shown if is_inverse or header.format.photometric == "MONOCHROME1" else shown


def _voi_levels(elements: Elements, values: Values) -> Levels | None:
    """The grey levels by the first VOI LUT, else by the first window; None without a valid one."""
    lut = _first_lut(elements, _VOI_LUT, signed=bool(values.min() < 0))
    if lut is not None:
        return np.rint(lut.apply(values) * (255 / ((1 << lut.bits) - 1))).astype(np.uint8)
    center, width = _decimal(elements, _CENTER, np.nan), _decimal(elements, _WIDTH, np.nan)
    shares = _window(values, center, width, elements.text(_FUNCTION).upper() or "LINEAR")
    return None if shares is None else np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def _window(values: Values, center: float, width: float, function: str) -> Values | None:
    """Shares of the output range by a window (C.11.2.1.2 and C.11.2.1.3); None if it is invalid."""
    if not np.isfinite(center) or not np.isfinite(width):
        return None
    match function:
        case "LINEAR" if width > 1:
            return (values - (center - 0.5)) / (width - 1) + 0.5
        case "LINEAR" if width == 1:
            return (values > center - 0.5).astype(np.float64)
        case "LINEAR_EXACT" if width > 0:
            return (values - center) / width + 0.5
        case "SIGMOID" if width > 0:
            return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    return None


def _automatic_levels(elements: Elements, values: Values, stored: StoredPixels) -> Levels:
    """The grey levels by `intensity_window`, without the pixels of the padding (C.7.5.1.1.2)."""
    counts: Counts = np.zeros(1 << stored.bits, dtype=np.int64)
    for rows in _tiles(stored):
        tile = stored.indices(stored.values[rows])
        counts += np.bincount(tile.ravel(), minlength=len(counts))
    padding = elements.shorts(_PADDING, signed=stored.signed)[:1]
    if padding:
        ends = sorted(padding + elements.shorts(_PADDING_LIMIT, signed=stored.signed)[:1])
        is_padding = (stored.table() >= ends[0]) & (stored.table() <= ends[-1])
        if counts[~is_padding].any():
            counts[is_padding] = 0
    # The levels depend on the order and the distances of the values, not on their scale.
    low, span = float(values.min()), float(np.ptp(values)) or 1.0
    places = np.rint((values - low) * ((len(counts) - 1) / span)).astype(np.int64)
    shown: Counts = np.bincount(places, weights=counts, minlength=len(counts)).astype(np.int64)
    return grey_levels(*intensity_window(shown), len(counts))[places]


def _first_lut(elements: Elements, tag: int, *, signed: bool) -> _LookupTable | None:
    """The first lookup table of a sequence; None if it is absent or damaged (C.11.1.1.1)."""
    item = next(elements.items(tag), None)
    descriptor = [] if item is None else item.shorts(_DESCRIPTOR)
    if item is None or len(descriptor) != 3 or not 8 <= descriptor[2] <= 16:
        return None
    count, bits = descriptor[0] or 1 << 16, descriptor[2]
    first = item.shorts(_DESCRIPTOR, signed=signed)[1]
    raw = item.raw(_LUT_DATA)
    if bits == 8 and len(raw) - count in (0, 1):
        return _LookupTable(first, np.frombuffer(raw, np.uint8, count).astype(np.float64), bits)
    outputs = np.array(item.shorts(_LUT_DATA), dtype=np.float64)
    if len(outputs) != count:
        return None
    return _LookupTable(first, np.minimum(outputs, (1 << bits) - 1), bits)


def _decimal(elements: Elements, tag: int, default: float) -> float:
    values = elements.decimals(tag)
    return values[0] if values and np.isfinite(values[0]) else default
