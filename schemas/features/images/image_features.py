"""Image features: selection of the chest X-ray and its pixels."""

import numpy as np
import PIL.Image

from schemas.features.images.decoding import MAX_SIDE, check_signature, decode
from schemas.features.images.dicom_content import contradictions, unfit_reason
from schemas.features.images.plausibility import check_chest_xray
from schemas.features.images.view import is_view_stated, parse_view, view_rank
from schemas.features.input_report import InputReport
from schemas.features.spec import Array, FeatureSpec
from schemas.payload import Image, Payload
from schemas.request_errors import ImageError
from schemas.response import Reason

CHEST_XRAY = "chest_xray"


def select_image(payload: Payload, spec: FeatureSpec) -> int | None:
    """Returns the index of the image that the model reads, or None.

    It is the latest chest X-ray with a supported view. An unknown view counts as supported. A DICOM
    file whose tags say that it is no chest X-ray is never selected. Images of the same time are
    ranked by view (PA, AP, other, unknown), then by file size. The order in the payload has no
    influence.
    """
    candidates = [
        (image.time, -view_rank(image.view), len(image.data), image.data, -i)
        for i, image in enumerate(payload.images)
        if image.kind == CHEST_XRAY
        and _has_supported_view(image, spec)
        and _dicom_unfit_reason(image) is None
    ]
    return -max(candidates)[-1] if candidates else None


def _has_supported_view(image: Image, spec: FeatureSpec) -> bool:
    view = parse_view(image.view)
    return view is None or view in spec.views


def _dicom_unfit_reason(image: Image) -> tuple[Reason, str] | None:
    """Why a DICOM file is not read; None for other files and for damaged ones, which are errors."""
    try:
        header = image.dicom
    except ImageError:
        return None
    return None if header is None else unfit_reason(header)


def image_features(
    payload: Payload, spec: FeatureSpec, report: InputReport, *, read: bool
) -> dict[str, Array] | None:
    """Returns the pixels of the selected image, centred on a black square: [1, side, side] uint8.

    Only the selected image is decoded. For the others, only the file signature and the header of
    DICOM files are checked. `read`: if False, the image is not decoded and the dictionary is empty.
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
            unfit = _check_dicom(image, spec)
        except ImageError as error:
            report.add_error(f"/images/{i}/data", error.rule, error.detail)
            valid = valid and i != chosen
            unfit = None
        if unfit is not None:
            report.add_ignored(f"/images/{i}", *unfit)
        elif not _has_supported_view(image, spec):
            detail = f"the model reads only these views: {', '.join(spec.views)}"
            report.add_ignored(f"/images/{i}", "view_not_read", detail)
        elif i != chosen:
            detail = f"the model reads only the latest chest X-ray: /images/{chosen}"
            report.add_ignored(f"/images/{i}", "not_the_latest_image", detail)
    if chosen is None:
        _warn_if_none_is_read(payload, spec, report)
        return None
    _report_selected(f"/images/{chosen}", payload.images[chosen], spec, report, valid=valid)
    if not read or not valid:
        return {}
    return _pixels(f"/images/{chosen}", payload.images[chosen], spec, report)


def _check_dicom(image: Image, spec: FeatureSpec) -> tuple[Reason, str] | None:
    """Why a DICOM file is not read; None for other files. Raises ImageError: it is damaged."""
    header = image.dicom
    if header is None:
        return None
    unfit = unfit_reason(header)
    if unfit is None:
        # The import takes a third of a second.
        from schemas.dicom.header import check_pixel_format  # noqa: PLC0415

        check_pixel_format(header, spec.max_pixels, MAX_SIDE)
    return unfit


def _warn_if_none_is_read(payload: Payload, spec: FeatureSpec, report: InputReport) -> None:
    xrays = [image for image in payload.images if image.kind == CHEST_XRAY]
    if any(not _has_supported_view(image, spec) for image in xrays):
        report.warnings.append(f"no chest X-ray is read: none has a {' or '.join(spec.views)} view")
    elif xrays:
        report.warnings.append("no image is read: none is a chest X-ray for display")


def _report_selected(
    pointer: str, image: Image, spec: FeatureSpec, report: InputReport, *, valid: bool
) -> None:
    """Reports an unknown view of the selected image, and tags that contradict its fields."""
    if parse_view(image.view) is None and is_view_stated(image.view):
        detail = f"is an unknown view; the image is read as {' or '.join(spec.views)}"
        report.add_ignored(f"{pointer}/view", "unknown_category", detail)
    if valid and image.dicom is not None:
        report.warnings += [f"{pointer}/{clause}" for clause in contradictions(image, image.dicom)]


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
