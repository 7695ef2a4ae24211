"""Cheap checks, without a model, whether an image looks like a frontal chest X-ray.

The thresholds were chosen on every second one of 976 images of NIH ChestX-ray14, whose mean is
`frontal_chest.png`, and validated on the others. docs/architecture.md has the figures.
"""

import functools
import math
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import PIL.Image

from schemas.features.images.decoding import DecodedImage

Grey = npt.NDArray[np.float32]

MIN_SIDE = 64  # pixels
_MAX_ASPECT_RATIO = 2.5  # longer side over shorter side
_MAX_COLOURED = 0.1  # share of pixels
_MAX_SINGLE_GREY = 0.6  # share of pixels
_MIN_CONTRAST = 16.0  # standard deviation, of 255
_MAX_ROUGHNESS = 0.45  # root mean square of the difference of neighbours, in standard deviations
_MAX_BLACK_CORNER = 0.88  # share of pixels; a corner is a sixth of a side wide
_BLACK = 20.0  # upper limit of the grey level of black pixels
_MIN_BRIGHT = 0.05  # share of pixels; rows and columns with fewer bright pixels are borders
_SIDE = 32  # side of the image for the comparison with the mean image
# Correlations with the mean image: degree of the polynomial background that is subtracted from both
# images, and maximum shift in pixels. The first correlation compares the whole images.
_COMPARISONS = ((0, 2), (1, 2), (3, 4))
_MIN_WHOLE_CORRELATION, _MIN_MEAN_CORRELATION = 0.27, 0.34  # the first, and the mean of all
_INVERTED_CORRELATION = 0.5
_MIN_DETAIL = 0.005  # mean difference from the mean of the neighbours, in standard deviations


def check_chest_xray(picture: DecodedImage, *, frontal: bool) -> str | None:
    """Returns the reason why the image does not look like a chest X-ray, or None.

    `frontal`: whether the image must show a frontal chest.
    """
    return (
        _check_shape_and_colour(picture)
        or _check_texture(np.asarray(picture.preview, dtype=np.float32))
        or (_check_content(picture.preview) if frontal else None)
    )


def _check_shape_and_colour(picture: DecodedImage) -> str | None:
    if min(picture.size) < MIN_SIDE:
        return f"a side has fewer than {MIN_SIDE} pixels"
    if max(picture.size) > _MAX_ASPECT_RATIO * min(picture.size):
        return f"one side is more than {_MAX_ASPECT_RATIO} times as long as the other"
    if picture.coloured > _MAX_COLOURED:
        return "it is coloured"
    if max(picture.preview.histogram()) > _MAX_SINGLE_GREY * math.prod(picture.preview.size):
        return "most of it has one grey level"
    return None


def _check_texture(grey: Grey) -> str | None:
    contrast = float(grey.std())
    if contrast < _MIN_CONTRAST:
        return "it has hardly any contrast"
    if _roughness(grey) > _MAX_ROUGHNESS * contrast:
        return "neighbouring pixels differ strongly, as in noise or text"
    if _detail(grey) < _MIN_DETAIL * contrast:
        return "it has no fine detail"
    if _black_corners(grey) > _MAX_BLACK_CORNER:
        return "its four corners are black, as in a slice of CT or MRI"
    return None


def _check_content(preview: PIL.Image.Image) -> str | None:
    small = preview.resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX)
    chest = np.asarray(small, dtype=np.float32)
    whole, mean = _correlations(chest)
    if whole >= _MIN_WHOLE_CORRELATION and mean >= _MIN_MEAN_CORRELATION:
        return None
    if _correlations(255 - chest)[0] >= _INVERTED_CORRELATION:
        return "its brightness is inverted: bone must be white, air black"
    return "it does not show an upright frontal chest"


def _roughness(grey: Grey) -> float:
    """Returns the root mean square difference of neighbours, along the axis where it is larger."""
    return float(max(np.sqrt(np.square(np.diff(grey, axis=axis)).mean()) for axis in (0, 1)))


def _detail(grey: Grey) -> float:
    """Returns the mean absolute difference of a pixel from the mean of its four neighbours."""
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.abs(grey[1:-1, 1:-1] - around / 4).mean())


def _black_corners(grey: Grey) -> float:
    """Returns the share of black pixels in the brightest corner, after black borders are cut."""
    bright = grey > _BLACK
    rows = np.flatnonzero(bright.mean(axis=1) > _MIN_BRIGHT)
    columns = np.flatnonzero(bright.mean(axis=0) > _MIN_BRIGHT)
    if not len(rows) or not len(columns):
        return 1.0
    inner = bright[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = -(-inner.shape[0] // 6), -(-inner.shape[1] // 6)
    sides = inner[:, :width], inner[:, -width:]
    corners = [corner for side in sides for corner in (side[:height], side[-height:])]
    return 1 - float(max(corner.mean() for corner in corners))


def _correlations(chest: Grey) -> tuple[float, float]:
    """Returns the correlation of an image [32, 32] with the mean image: of the whole, and mean."""
    values = [_max_correlation(chest, *comparison) for comparison in _COMPARISONS]
    return values[0], sum(values) / len(values)


def _max_correlation(chest: Grey, degree: int, shift: int) -> float:
    """Returns the highest correlation of the image's centre with a crop of the mean image."""
    surfaces, crops = _mean_crops(degree, shift)
    centre = chest[shift:-shift, shift:-shift].ravel()
    rest = centre - surfaces @ (centre @ surfaces)
    return float((crops @ rest).max() / max(np.linalg.norm(rest), 1e-6))


@functools.cache
def _mean_crops(degree: int, shift: int) -> tuple[Grey, Grey]:
    """Returns polynomials of the position and crops of the mean image.

    The polynomials [pixels, terms] are orthonormal. The crops [shifts, pixels] (5 x 5 shifts) are
    orthogonal to the polynomials and have unit length.
    """
    side = _SIDE - 2 * shift
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    terms = [x**i * y**j for i in range(degree + 1) for j in range(degree + 1 - i)]
    surfaces, _ = np.linalg.qr(np.stack([term.ravel() for term in terms], axis=1))
    with files("schemas").joinpath("frontal_chest.png").open("rb") as file:
        mean_image = np.asarray(PIL.Image.open(file), dtype=np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(mean_image, (side, side))
    step = shift // 2
    crops = windows[::step, ::step].reshape(-1, side * side)
    crops = crops - crops @ surfaces @ surfaces.T
    crops /= np.linalg.norm(crops, axis=1, keepdims=True)
    return surfaces.astype(np.float32), crops.astype(np.float32)
