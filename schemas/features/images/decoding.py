"""Decoding of PNG and JPEG files to small greyscale images in bounded memory."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL.ExifTags
import PIL.Image

Counts = npt.NDArray[np.int64]

# The limit of JPEG. For a higher PNG, libpng allocates 8 bytes of row pointers for each row.
MAX_SIDE = 65_535
PREVIEW_SIDE = 128
_FORMATS = {
    "image/png": (b"\x89PNG\r\n\x1a\n", ("PNG",)),
    "image/jpeg": (b"\xff\xd8\xff", ("JPEG", "MPO")),  # MPO: a JPEG followed by further images
}
_PNG_BIT_DEPTH = 24  # offset of the bit depth in a PNG file: signature, then IHDR
_TILE = 1 << 20  # pixels
_SAMPLE_SIDE = 64  # side of the sample for the detection of colour
_MIN_COLOUR = 40  # difference between the channels of a coloured pixel, of 255
# Parameters of `intensity_window`.
_BULK_SHARE, _MAX_VALUE_SHARE, _QUANTILES = 0.5, 0.01, 1000
_UPRIGHT = {  # by EXIF orientation, the transposition that makes the image upright
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """The image is refused. `rule`: the violated rule. `detail`: the reason."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule, self.detail = rule, detail


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    `grey`: mode L, scaled to the requested longer side with its aspect ratio. `preview`: the same
    with a longer side of PREVIEW_SIDE. `size`: width and height in the file. `coloured`: the share
    of pixels that are not grey.
    """

    grey: PIL.Image.Image
    preview: PIL.Image.Image
    size: tuple[int, int]
    coloured: float


def check_signature(data: bytes, media_type: str) -> None:
    """Checks the file signature. Raises ImageError: it does not match the media type."""
    if data.startswith(_FORMATS[media_type][0]):
        return
    if any(data.startswith(signature) for signature, _ in _FORMATS.values()):
        raise ImageError("media_type", "the data are not of the media_type that is given")
    raise ImageError("image", "is not a readable PNG or JPEG image, or is truncated")


def decode(data: bytes, media_type: str, side: int, max_pixels: int) -> DecodedImage:
    """Decodes an image: upright by its EXIF orientation, 16-bit values by `intensity_window`.

    `side`: longer side of the result, in pixels.

    Raises ImageError: the image cannot be decoded or is too large.
    """
    check_signature(data, media_type)
    try:
        image = PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        if image.format not in _FORMATS[media_type][1]:
            raise ImageError("media_type", "the data are not of the media_type that is given")
        size = image.size
        # libjpeg holds a progressive JPEG twice: as coefficients and as pixels.
        copies = 2 if image.info.get("progressive") else 1
        if size[0] * size[1] * copies > max_pixels or max(size) > MAX_SIDE:
            raise ImageError("pixel_limit", _size_detail(max_pixels))
        image.load()
        orientation = _orientation(image)
        coloured = _coloured_share(image)
        grey = _to_grey(image, is_16_bit=media_type == "image/png" and data[_PNG_BIT_DEPTH] == 16)
    except PIL.Image.DecompressionBombError:
        raise ImageError("pixel_limit", _size_detail(max_pixels)) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError("image", "is not a readable PNG or JPEG image, or is truncated") from None
    del image
    if orientation in _UPRIGHT:
        grey = grey.transpose(_UPRIGHT[orientation])
    resized = _resize(grey, side)
    preview = resized if side == PREVIEW_SIDE else _resize(grey, PREVIEW_SIDE)
    return DecodedImage(resized, preview, size, coloured)


def _resize(grey: PIL.Image.Image, side: int) -> PIL.Image.Image:
    """Resizes the image to a longer side of `side` pixels."""
    scale = side / max(grey.size)
    size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
    return grey.resize(size, PIL.Image.Resampling.BILINEAR)


def _size_detail(max_pixels: int) -> str:
    half = max_pixels // 2
    return f"more than {max_pixels} pixels ({half} if progressive), or a side over {MAX_SIDE}"


def _orientation(image: PIL.Image.Image) -> int | None:
    """Returns the EXIF orientation; None if it is absent or damaged, since pixels are usable."""
    if "exif" not in image.info and "Raw profile type exif" not in image.info:
        return None
    try:
        orientation = image.getexif().get(PIL.ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - Pillow's EXIF parser raises many kinds of errors
        return None
    return orientation if isinstance(orientation, int) else None


def _coloured_share(image: PIL.Image.Image) -> float:
    if image.mode in ("1", "L", "LA") or image.mode.startswith("I"):
        return 0.0
    size = (min(image.width, _SAMPLE_SIDE), min(image.height, _SAMPLE_SIDE))
    sample = image.resize(size, PIL.Image.Resampling.NEAREST).convert("RGB")
    channels = np.asarray(sample).astype(np.int16)
    return float((np.ptp(channels, axis=2) > _MIN_COLOUR).mean())


def _to_grey(image: PIL.Image.Image, *, is_16_bit: bool) -> PIL.Image.Image:
    """Converts to mode L. `is_16_bit`: 16 bits per channel, of which X-rays often use only 12."""
    if not is_16_bit and image.mode != "CMYK":
        return image.convert("L")
    grey = PIL.Image.new("L", image.size)
    if not image.mode.startswith("I"):
        for corner, tile in _tiles(image):
            grey.paste(tile.convert("L"), corner)
        # If a 16-bit image has several channels, Pillow keeps only their high bytes.
        low, high = intensity_window(np.array(grey.histogram())) if is_16_bit else (0, 255)
        return grey.point(_levels(low, high, 256).tolist())
    counts: Counts = np.zeros(1 << 16, dtype=np.int64)
    for _, tile in _tiles(image):
        counts += np.bincount(np.asarray(tile).ravel(), minlength=len(counts))
    levels = _levels(*intensity_window(counts), len(counts))
    for corner, tile in _tiles(image):
        grey.paste(PIL.Image.fromarray(levels[np.asarray(tile)]), corner)
    return grey


def _tiles(image: PIL.Image.Image) -> Iterator[tuple[tuple[int, int], PIL.Image.Image]]:
    """Yields tiles with their upper left corners. A copy of the whole image would take 160 MB."""
    rows = max(1, _TILE // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        yield box[:2], image.crop(box)


def _levels(low: int, high: int, count: int) -> npt.NDArray[np.uint8]:
    """Returns [count] the grey level of each value: black up to `low`, white from `high`."""
    values = np.arange(count, dtype=np.float64)
    levels = (values - low) / max(high - low, 1) * 255
    return np.clip(levels, 0, 255).astype(np.uint8)


def intensity_window(counts: Counts) -> tuple[int, int]:
    """Returns the lowest and highest value of the anatomy from the histogram `counts`.

    Values far from the bulk of the histogram are excluded: markers, borders and dead pixels. The
    bulk is the shortest range that holds half of the pixels (the shorth). In this search, each
    value counts for at most 1 % of the pixels, because a border often has a single value. From the
    bulk, the window extends in both directions along 1,000 quantiles, up to the first gap between
    neighbouring quantiles that exceeds the width of the bulk.
    """
    present = np.flatnonzero(counts)
    capped = np.cumsum(np.minimum(counts, max(1, int(counts.sum() * _MAX_VALUE_SHARE)))[present])
    half = capped[-1] * _BULK_SHARE
    starts = np.concatenate([[0], capped[:-1]])
    ends = np.searchsorted(capped, starts + half)
    whole = ends < len(present)
    widths = present[ends[whole]] - present[whole]
    first = int(np.argmin(widths))
    bulk, width = (present[first], present[ends[first]]), max(int(widths[first]), 1)
    shares = np.linspace(0, counts.sum() - 1, _QUANTILES + 1)
    quantiles = present[np.searchsorted(np.cumsum(counts[present]), shares, side="right")]
    above = np.concatenate([[bulk[1]], quantiles[quantiles > bulk[1]]])
    below = np.concatenate([[bulk[0]], quantiles[quantiles < bulk[0]][::-1]])
    return _last_before_gap(below, width), _last_before_gap(above, width)


def _last_before_gap(values: npt.NDArray[np.integer], width: int) -> int:
    """Returns the last value before the first step of more than `width`."""
    steps = np.abs(np.diff(values.astype(np.int64)))
    far = np.flatnonzero(steps > width)
    return int(values[far[0] if len(far) else -1])
