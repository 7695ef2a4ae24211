"""Image features: selection of the chest X-ray and its pixels."""

import numpy as np
import PIL.Image

from schemas.features.images.decoding import ImageError, check_signature, decode
from schemas.features.images.plausibility import check_chest_xray
from schemas.features.images.view import is_view_stated, parse_view, view_rank
from schemas.features.input_report import InputReport
from schemas.features.spec import Array, FeatureSpec
from schemas.payload import Image, Payload

CHEST_XRAY = "chest_xray"


def select_image(payload: Payload, spec: FeatureSpec) -> int | None:
    """Returns the index of the image that the model reads, or None.

    It is the latest chest X-ray with a supported view. An unknown view counts as supported. Images
    of the same time are ranked by view (PA, AP, other, unknown), then by file size. The order in
    the payload has no influence.
    """
    candidates = [
        (image.time, -view_rank(image.view), len(image.data), image.data, -i)
        for i, image in enumerate(payload.images)
        if image.kind == CHEST_XRAY and _has_supported_view(image, spec)
    ]
    return -max(candidates)[-1] if candidates else None


def _has_supported_view(image: Image, spec: FeatureSpec) -> bool:
    view = parse_view(image.view)
    return view is None or view in spec.views


def image_features(
    payload: Payload, spec: FeatureSpec, report: InputReport, *, read: bool
) -> dict[str, Array] | None:
    """Returns the pixels of the selected image, centred on a black square: [1, side, side] uint8.

    Only the selected image is decoded. For the others, only the file signature is checked.
    `read`: if False, the image is not decoded and the dictionary is empty.
    """
    chosen = select_image(payload, spec)
    valid = True
    for i, image in enumerate(payload.images):
        if image.kind != CHEST_XRAY:
            detail = f"is not {CHEST_XRAY}; the image is not used"
            report.add_ignored(f"/images/{i}/kind", "unknown_category", detail)
            continue
        try:
            check_signature(image.data, image.media_type)
        except ImageError as error:
            report.add_error(f"/images/{i}/data", error.rule, error.detail)
            valid = valid and i != chosen
        if not _has_supported_view(image, spec):
            detail = f"the model reads only these views: {', '.join(spec.views)}"
            report.add_ignored(f"/images/{i}", "view_not_read", detail)
        elif i != chosen:
            detail = f"the model reads only the latest chest X-ray: /images/{chosen}"
            report.add_ignored(f"/images/{i}", "not_the_latest_image", detail)
    if chosen is None:
        if any(image.kind == CHEST_XRAY for image in payload.images):
            views = " or ".join(spec.views)
            report.warnings.append(f"no chest X-ray is read: none has a {views} view")
        return None
    image, pointer = payload.images[chosen], f"/images/{chosen}"
    if parse_view(image.view) is None and is_view_stated(image.view):
        detail = f"is an unknown view; the image is read as {' or '.join(spec.views)}"
        report.add_ignored(f"{pointer}/view", "unknown_category", detail)
    return _pixels(pointer, image, spec, report) if read and valid else {}


def _pixels(pointer: str, image: Image, spec: FeatureSpec, report: InputReport) -> dict[str, Array]:
    """Returns the pixels; reports an error if the image cannot be decoded or is too large."""
    side = spec.image_side
    try:
        picture = decode(image.data, image.media_type, side, spec.max_pixels)
    except ImageError as error:
        report.add_error(f"{pointer}/data", error.rule, error.detail)
        return {}
    reason = check_chest_xray(picture, frontal=spec.views == ("frontal",))
    if reason is not None:
        report.out_of_distribution["image"] = (
            f"the image is unlike the chest X-rays of the training: {reason}"
        )
    canvas = PIL.Image.new("L", (side, side))
    width, height = picture.grey.size
    canvas.paste(picture.grey, ((side - width) // 2, (side - height) // 2))
    return {"pixels": np.asarray(canvas, dtype=np.uint8)[None]}
