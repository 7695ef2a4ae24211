"""Decoding of PNG, JPEG and DICOM files to small greyscale images in bounded memory."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import PIL.ExifTags
import PIL.Image

from schemas.dicom.signature import MEDIA_TYPE as DICOM
from schemas.dicom.signature import is_dicom
from schemas.features.images.intensity import Counts, grey_levels, intensity_window
from schemas.request_errors import ImageError

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
_UPRIGHT = {  # by EXIF orientation, the transposition that makes the image upright
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}


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
    stated = signature_media_type(data)
    if stated is None:
        raise ImageError("image", "is not a readable PNG, JPEG or DICOM image, or is truncated")
    if stated != media_type:
        raise ImageError("media_type", "the data are not of the media_type that is given")


def signature_media_type(data: bytes) -> str | None:
    """The media type of the file signature; None if it is none that is read."""
    if is_dicom(data):
        return DICOM
    return next((name for name, (s, _) in _FORMATS.items() if data.startswith(s)), None)


def decode(data: bytes, media_type: str, side: int, max_pixels: int) -> DecodedImage:
    """Decodes an image. `side`: longer side of the result, in pixels.

    PNG and JPEG: upright by the EXIF orientation, 16-bit values by `intensity_window`. DICOM: as
    `decode_dicom` does.

    Raises ImageError: the image cannot be decoded or is too large.
    """
    check_signature(data, media_type)
    if media_type == DICOM:
        # The import takes a third of a second.
        from schemas.features.images.dicom_image import decode_dicom  # noqa: PLC0415

        grey = decode_dicom(data, max_pixels, MAX_SIDE)
        return _small(grey, side, grey.size, 0.0)
    return _decode_raster(data, media_type, side, max_pixels)


def _decode_raster(data: bytes, media_type: str, side: int, max_pixels: int) -> DecodedImage:
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
    return _small(grey, side, size, coloured)


def _small(
    grey: PIL.Image.Image, side: int, size: tuple[int, int], coloured: float
) -> DecodedImage:
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
        return grey.point(grey_levels(low, high, 256).tolist())
    counts: Counts = np.zeros(1 << 16, dtype=np.int64)
    for _, tile in _tiles(image):
        counts += np.bincount(np.asarray(tile).ravel(), minlength=len(counts))
    levels = grey_levels(*intensity_window(counts), len(counts))
    for corner, tile in _tiles(image):
        grey.paste(PIL.Image.fromarray(levels[np.asarray(tile)]), corner)
    return grey


def _tiles(image: PIL.Image.Image) -> Iterator[tuple[tuple[int, int], PIL.Image.Image]]:
    """Yields tiles with their upper left corners. A copy of the whole image would take 160 MB."""
    rows = max(1, _TILE // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        yield box[:2], image.crop(box)
