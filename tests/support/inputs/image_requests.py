"""Requests with images for tests of feature extraction."""

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from schemas.features import Features, FeatureSpec
from schemas.payload import InvalidPayload
from tests.support.inputs.feature_requests import AS_OF, SPEC, extract


def image(
    data: Any, media_type: str = "image/png", hours_before: float = 1.0, **fields: Any
) -> dict[str, Any]:
    time = AS_OF - timedelta(hours=hours_before)
    return {"time": time, "media_type": media_type, "data": data, **fields}


def extract_images(*images: dict[str, Any], spec: FeatureSpec = SPEC, **parts: Any) -> Features:
    return extract(spec, images=list(images), **parts)


def pixels(*images: dict[str, Any]) -> npt.NDArray[np.generic]:
    return extract_images(*images).arrays["image"]["pixels"]


def image_errors(*images: dict[str, Any], spec: FeatureSpec = SPEC) -> set[tuple[str, str]]:
    """Pointer and rule of each error of a refused request."""
    with pytest.raises(InvalidPayload) as caught:
        extract_images(*images, spec=spec)
    return {(error.pointer, error.rule) for error in caught.value.errors}
