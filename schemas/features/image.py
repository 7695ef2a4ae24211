"""Image features: the pixels of the chest X-ray."""

import io

import numpy as np
import PIL.Image

from schemas.features.ledger import Ledger
from schemas.features.spec import Array, FeatureSpec
from schemas.payload import Image, Payload

_IMAGE_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}


def image_features(
    payload: Payload, spec: FeatureSpec, ledger: Ledger, *, read: bool
) -> dict[str, Array] | None:
    """Pixels of the latest chest X-ray, centred on a black square."""
    latest: int | None = None
    for i, film in enumerate(payload.images):
        if film.kind != "chest_xray":
            detail = "not one of chest_xray; not used"
            ledger.ignore(f"/images/{i}/kind", "unknown_category", detail)
        elif latest is None or film.time >= payload.images[latest].time:
            latest = i
    # Every image is read, so that a broken one is never passed over because a newer one came.
    pixels: dict[str, Array] = {}
    budget = spec.max_pixels
    for i, film in enumerate(payload.images):
        if film.kind != "chest_xray":
            continue
        if read:
            opened = _open(f"/images/{i}/data", film, budget, spec, ledger)
            if opened is None:
                continue
            budget -= opened.width * opened.height
            if i == latest:
                pixels["pixels"] = _pixels(opened, spec.image_side)
        if i != latest:
            detail = "the model reads the latest chest X-ray only"
            ledger.ignore(f"/images/{i}", "not_the_latest_image", detail)
    return None if latest is None else pixels


def _open(
    pointer: str, image: Image, budget: int, spec: FeatureSpec, ledger: Ledger
) -> PIL.Image.Image | None:
    """The decoded image; None, with an error noted, if it cannot be read or is too large."""
    over = f"more than {spec.max_pixels} pixels in all images together"
    try:
        opened = PIL.Image.open(io.BytesIO(image.data), formats=tuple(_IMAGE_FORMATS.values()))
        if opened.format != _IMAGE_FORMATS[image.media_type]:
            ledger.fail(pointer, "media_type", "the data are not of the media_type that is given")
            return None
        if opened.width * opened.height > budget:
            ledger.fail(pointer, "pixel_limit", over)
            return None
        opened.load()
    except PIL.Image.DecompressionBombError:
        ledger.fail(pointer, "pixel_limit", over)
        return None
    except (OSError, SyntaxError, ValueError, EOFError):
        ledger.fail(pointer, "image", "is no readable PNG or JPEG image, or is truncated")
        return None
    return opened


def _pixels(image: PIL.Image.Image, side: int) -> Array:
    """[1, side, side] uint8: grey, its proportions kept."""
    grey = _greyscale(image)
    scale = side / max(grey.size)
    size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
    small = grey.resize(size, PIL.Image.Resampling.BILINEAR)
    canvas = PIL.Image.new("L", (side, side))
    canvas.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(canvas, dtype=np.uint8)[None]


def _greyscale(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, of which an X-ray often uses only 12
        deep = np.asarray(image).astype(np.float64)
        span = max(float(deep.max() - deep.min()), 1.0)
        return PIL.Image.fromarray(((deep - deep.min()) / span * 255).astype(np.uint8))
    return image.convert("L")
