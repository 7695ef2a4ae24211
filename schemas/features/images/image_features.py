"""Image features: the pixels of the chest X-ray that is read, and why others are not."""

import numpy as np
import PIL.Image

from schemas.features.images.decoding import ImageError, check_signature, decode
from schemas.features.images.plausibility import unlike_chest_film
from schemas.features.images.view import is_stated, preference, view_of
from schemas.features.input_report import Ledger
from schemas.features.spec import Array, FeatureSpec
from schemas.payload import Image, Payload

CHEST_XRAY = "chest_xray"


def film_read(payload: Payload, spec: FeatureSpec) -> int | None:
    """Index of the film that the model reads: the latest chest X-ray of a view that it knows.

    A film whose view is unknown counts as one of them. Of several films of one time it is PA before
    AP before others before unknown, then the largest file, whatever their order in the payload.
    """
    films = [
        (film.time, -preference(film.view), len(film.data), film.data, -i)
        for i, film in enumerate(payload.images)
        if film.kind == CHEST_XRAY and _is_read(film, spec)
    ]
    return -max(films)[-1] if films else None


def _is_read(film: Image, spec: FeatureSpec) -> bool:
    view = view_of(film.view)
    return view is None or view in spec.views


def image_features(
    payload: Payload, spec: FeatureSpec, ledger: Ledger, *, read: bool
) -> dict[str, Array] | None:
    """Pixels of the film that is read, centred on a black square: [1, side, side] uint8.

    Only that film is decoded. Of the others the first bytes must be those of their media type.
    """
    chosen = film_read(payload, spec)
    valid = True
    for i, film in enumerate(payload.images):
        if film.kind != CHEST_XRAY:
            detail = f"not one of {CHEST_XRAY}; not used"
            ledger.ignore(f"/images/{i}/kind", "unknown_category", detail)
            continue
        try:
            check_signature(film.data, film.media_type)
        except ImageError as error:
            ledger.fail(f"/images/{i}/data", error.rule, error.detail)
            valid = valid and i != chosen
        if not _is_read(film, spec):
            detail = f"the model reads views of these kinds only: {', '.join(spec.views)}"
            ledger.ignore(f"/images/{i}", "view_not_read", detail)
        elif i != chosen:
            detail = f"the model reads one chest X-ray, the latest: /images/{chosen}"
            ledger.ignore(f"/images/{i}", "not_the_latest_image", detail)
    if chosen is None:
        if any(film.kind == CHEST_XRAY for film in payload.images):
            views = " or ".join(spec.views)
            ledger.warnings.append(f"no chest X-ray is read: none has a {views} view")
        return None
    film, pointer = payload.images[chosen], f"/images/{chosen}"
    if view_of(film.view) is None and is_stated(film.view):
        detail = f"no view that is known; the film is read as {' or '.join(spec.views)}"
        ledger.ignore(f"{pointer}/view", "unknown_category", detail)
    return _pixels(pointer, film, spec, ledger) if read and valid else {}


def _pixels(pointer: str, film: Image, spec: FeatureSpec, ledger: Ledger) -> dict[str, Array]:
    """The film's pixels; none, with an error noted, if it cannot be read or is too large."""
    side = spec.image_side
    try:
        picture = decode(film.data, film.media_type, side, spec.max_pixels)
    except ImageError as error:
        ledger.fail(f"{pointer}/data", error.rule, error.detail)
        return {}
    reason = unlike_chest_film(picture, frontal=spec.views == ("frontal",))
    if reason is not None:
        ledger.unlike["image"] = f"the image is unlike the chest X-rays of the training: {reason}"
    canvas = PIL.Image.new("L", (side, side))
    width, height = picture.grey.size
    canvas.paste(picture.grey, ((side - width) // 2, (side - height) // 2))
    return {"pixels": np.asarray(canvas, dtype=np.uint8)[None]}
