"""From the bytes of a PNG or JPEG file to a small grey picture, in bounded memory."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL.ExifTags
import PIL.Image

Counts = npt.NDArray[np.int64]

# JPEG has no longer sides. Of a PNG with one, the library's row pointers alone take 8 bytes a row.
LONGEST_SIDE = 65_535
PREVIEW_SIDE = 128
_FORMATS = {
    "image/png": (b"\x89PNG\r\n\x1a\n", ("PNG",)),
    "image/jpeg": (b"\xff\xd8\xff", ("JPEG", "MPO")),  # MPO: a JPEG with further pictures after it
}
_PNG_BIT_DEPTH = 24  # offset of the bit depth in a PNG file: signature, then IHDR
_TILE = 1 << 20  # pixels
_SAMPLE = 64  # side of the sample whose colours are looked at
_COLOURED = 40  # difference between the channels of a pixel, of 255
_BULK, _PLATEAU, _STEPS = 0.5, 0.01, 1000
_UPRIGHT = {  # EXIF, Orientation
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """An image that is refused: the rule, and what to do."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule, self.detail = rule, detail


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    `grey`: mode L, proportions kept, its longer side as long as was asked for; `preview`: the same
    with a longer side of PREVIEW_SIDE. `size`: width and height in the file. `coloured`: the share
    of pixels that are not grey.
    """

    grey: PIL.Image.Image
    preview: PIL.Image.Image
    size: tuple[int, int]
    coloured: float


def check_signature(data: bytes, media_type: str) -> None:
    """Raises ImageError if the first bytes are not those of the media type."""
    if data.startswith(_FORMATS[media_type][0]):
        return
    if any(data.startswith(signature) for signature, _ in _FORMATS.values()):
        raise ImageError("media_type", "the data are not of the media_type that is given")
    raise ImageError("image", "is no readable PNG or JPEG image, or is truncated")


def decode(data: bytes, media_type: str, side: int, max_pixels: int) -> Picture:
    """The image as viewers show it: upright by its EXIF orientation, 16 bits by their window.

    Raises ImageError if it cannot be read or is too large.
    """
    check_signature(data, media_type)
    try:
        image = PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        if image.format not in _FORMATS[media_type][1]:
            raise ImageError("media_type", "the data are not of the media_type that is given")
        size = image.size
        # The library holds all of a progressive JPEG twice: as coefficients and as pixels.
        times = 2 if image.info.get("progressive") else 1
        if size[0] * size[1] * times > max_pixels or max(size) > LONGEST_SIDE:
            raise ImageError("pixel_limit", _over(max_pixels))
        image.load()
        orientation = _orientation(image)
        coloured = _coloured(image)
        grey = _grey(image, deep=media_type == "image/png" and data[_PNG_BIT_DEPTH] == 16)
    except PIL.Image.DecompressionBombError:
        raise ImageError("pixel_limit", _over(max_pixels)) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError("image", "is no readable PNG or JPEG image, or is truncated") from None
    del image
    if orientation in _UPRIGHT:
        grey = grey.transpose(_UPRIGHT[orientation])
    fitted = _fitted(grey, side)
    preview = fitted if side == PREVIEW_SIDE else _fitted(grey, PREVIEW_SIDE)
    return Picture(fitted, preview, size, coloured)


def _fitted(grey: PIL.Image.Image, side: int) -> PIL.Image.Image:
    """The image with a longer side of `side` pixels."""
    scale = side / max(grey.size)
    size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
    return grey.resize(size, PIL.Image.Resampling.BILINEAR)


def _over(max_pixels: int) -> str:
    half = max_pixels // 2
    return f"more than {max_pixels} pixels ({half} if progressive), or a side over {LONGEST_SIDE}"


def _orientation(image: PIL.Image.Image) -> int | None:
    """EXIF's; None where its data are damaged: that is no reason to refuse the pixels."""
    if "exif" not in image.info and "Raw profile type exif" not in image.info:
        return None
    try:
        found = image.getexif().get(PIL.ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - the library's EXIF parser raises whatever it comes upon
        return None
    return found if isinstance(found, int) else None


def _coloured(image: PIL.Image.Image) -> float:
    if image.mode in ("1", "L", "LA") or image.mode.startswith("I"):
        return 0.0
    size = (min(image.width, _SAMPLE), min(image.height, _SAMPLE))
    sample = image.resize(size, PIL.Image.Resampling.NEAREST).convert("RGB")
    channels = np.asarray(sample).astype(np.int16)
    return float((np.ptp(channels, axis=2) > _COLOURED).mean())


def _grey(image: PIL.Image.Image, *, deep: bool) -> PIL.Image.Image:
    """Mode L. `deep`: 16 bits a channel in the file, of which a film often uses only 12."""
    if not deep and image.mode != "CMYK":
        return image.convert("L")
    grey = PIL.Image.new("L", image.size)
    if not image.mode.startswith("I"):
        for corner, tile in _tiles(image):
            grey.paste(tile.convert("L"), corner)
        # Of several deep channels the library keeps the high bytes.
        low, high = window(np.array(grey.histogram())) if deep else (0, 255)
        return grey.point(_levels(low, high, 256).tolist())
    counts: Counts = np.zeros(1 << 16, dtype=np.int64)
    for _, tile in _tiles(image):
        counts += np.bincount(np.asarray(tile).ravel(), minlength=len(counts))
    levels = _levels(*window(counts), len(counts))
    for corner, tile in _tiles(image):
        grey.paste(PIL.Image.fromarray(levels[np.asarray(tile)]), corner)
    return grey


def _tiles(image: PIL.Image.Image) -> Iterator[tuple[tuple[int, int], PIL.Image.Image]]:
    """Pieces that cover the image, with their left upper corners: a copy of all takes 160 MB."""
    rows = max(1, _TILE // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        yield box[:2], image.crop(box)


def _levels(low: int, high: int, count: int) -> npt.NDArray[np.uint8]:
    """[count] the grey of each value: black up to `low`, white from `high`."""
    values = np.arange(count, dtype=np.float64)
    shown = (values - low) / max(high - low, 1) * 255
    return np.clip(shown, 0, 255).astype(np.uint8)


def window(counts: Counts) -> tuple[int, int]:
    """Lowest and highest value of the film, by how many pixels have each value.

    What lies far from the bulk is left out: markers, borders, dead pixels. The bulk is the
    shortest range of half of the pixels (the shorth), for which a single value counts as 1 % of
    them at most: a border is often one value. From there on, values belong to the film up to the
    first of a thousand quantiles that is further from the one before than the bulk is wide.
    """
    present = np.flatnonzero(counts)
    capped = np.cumsum(np.minimum(counts, max(1, int(counts.sum() * _PLATEAU)))[present])
    half = capped[-1] * _BULK
    starts = np.concatenate([[0], capped[:-1]])
    ends = np.searchsorted(capped, starts + half)
    whole = ends < len(present)
    widths = present[ends[whole]] - present[whole]
    first = int(np.argmin(widths))
    bulk, width = (present[first], present[ends[first]]), max(int(widths[first]), 1)
    shares = np.linspace(0, counts.sum() - 1, _STEPS + 1)
    quantiles = present[np.searchsorted(np.cumsum(counts[present]), shares, side="right")]
    above = np.concatenate([[bulk[1]], quantiles[quantiles > bulk[1]]])
    below = np.concatenate([[bulk[0]], quantiles[quantiles < bulk[0]][::-1]])
    return _end(below, width), _end(above, width)


def _end(values: npt.NDArray[np.integer], width: int) -> int:
    """The last of the values before a step of more than `width`."""
    steps = np.abs(np.diff(values.astype(np.int64)))
    far = np.flatnonzero(steps > width)
    return int(values[far[0] if len(far) else -1])
