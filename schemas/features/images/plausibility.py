"""Whether a picture looks like a frontal chest X-ray: cheap checks that need no model.

The limits were chosen on every second of 976 films of NIH ChestX-ray14, whose mean is
`frontal_chest.png`, and tried on the others: docs/architecture.md has the figures.
"""

import functools
import math
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import PIL.Image

from schemas.features.images.decoding import Picture

Grey = npt.NDArray[np.float32]

SHORTEST_SIDE = 64  # pixels
_MOST_OBLONG = 2.5  # longer side over shorter side
_MOST_COLOURED = 0.1  # share of pixels
_MOST_OF_ONE_GREY = 0.6  # share of pixels
_LEAST_CONTRAST = 16.0  # standard deviation, of 255
_MOST_ROUGH = 0.45  # root mean square of the difference of neighbours, in standard deviations
_MOST_BLACK = 0.88  # share of the pixels of each corner, a sixth of a side wide
_BLACK = 20.0  # grey below
_BORDER = 0.05  # share of bright pixels of a row or column; fewer make it a border
_SIDE = 32  # at which a picture is compared with the mean film
# Correlations with the mean film: the degree of the polynomial that is taken out of both
# beforehand, and by how many pixels one may be shifted. The first compares whole pictures.
_COMPARISONS = ((0, 2), (1, 2), (3, 4))
_LEAST_ALIKE_WHOLE, _LEAST_ALIKE = 0.27, 0.34  # the first, and the mean of all
_ALIKE_INVERTED = 0.5
_LEAST_DETAIL = 0.005  # mean difference from the mean of the neighbours, in standard deviations


def unlike_chest_film(picture: Picture, *, frontal: bool) -> str | None:
    """Why the picture is no chest X-ray as the model knows them; None if it looks like one.

    `frontal`: whether it must show a frontal chest.
    """
    return (
        _shape_or_colour(picture)
        or _texture(np.asarray(picture.preview, dtype=np.float32))
        or (_content(picture.preview) if frontal else None)
    )


def _shape_or_colour(picture: Picture) -> str | None:
    if min(picture.size) < SHORTEST_SIDE:
        return f"a side has fewer than {SHORTEST_SIDE} pixels"
    if max(picture.size) > _MOST_OBLONG * min(picture.size):
        return f"one side is more than {_MOST_OBLONG} times as long as the other"
    if picture.coloured > _MOST_COLOURED:
        return "it is coloured"
    if max(picture.preview.histogram()) > _MOST_OF_ONE_GREY * math.prod(picture.preview.size):
        return "most of it is of one grey"
    return None


def _texture(grey: Grey) -> str | None:
    contrast = float(grey.std())
    if contrast < _LEAST_CONTRAST:
        return "it has hardly any contrast"
    if _roughness(grey) > _MOST_ROUGH * contrast:
        return "neighbouring pixels hardly agree, as in noise or text"
    if _detail(grey) < _LEAST_DETAIL * contrast:
        return "it has no fine detail"
    if _black_corners(grey) > _MOST_BLACK:
        return "its four corners are black, as in a slice of CT or MRI"
    return None


def _content(preview: PIL.Image.Image) -> str | None:
    small = preview.resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX)
    chest = np.asarray(small, dtype=np.float32)
    whole, mean = _alike(chest)
    if whole >= _LEAST_ALIKE_WHOLE and mean >= _LEAST_ALIKE:
        return None
    if _alike(255 - chest)[0] >= _ALIKE_INVERTED:
        return "its brightness is inverted: bone must be white, air black"
    return "it does not show an upright frontal chest"


def _roughness(grey: Grey) -> float:
    """Root mean square of the difference of neighbours, along the axis where it is larger."""
    return float(max(np.sqrt(np.square(np.diff(grey, axis=axis)).mean()) for axis in (0, 1)))


def _detail(grey: Grey) -> float:
    """Mean difference of a pixel from the mean of the four beside it."""
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.abs(grey[1:-1, 1:-1] - around / 4).mean())


def _black_corners(grey: Grey) -> float:
    """The share of black pixels of the least black corner, without black borders."""
    bright = grey > _BLACK
    rows = np.flatnonzero(bright.mean(axis=1) > _BORDER)
    columns = np.flatnonzero(bright.mean(axis=0) > _BORDER)
    if not len(rows) or not len(columns):
        return 1.0
    inner = bright[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = -(-inner.shape[0] // 6), -(-inner.shape[1] // 6)
    sides = inner[:, :width], inner[:, -width:]
    corners = [corner for side in sides for corner in (side[:height], side[-height:])]
    return 1 - float(max(corner.mean() for corner in corners))


def _alike(chest: Grey) -> tuple[float, float]:
    """How a picture [32, 32] correlates with the mean film: as a whole, and on the mean."""
    found = [_most_alike(chest, *comparison) for comparison in _COMPARISONS]
    return found[0], sum(found) / len(found)


def _most_alike(chest: Grey, degree: int, shift: int) -> float:
    """The highest correlation of the picture's middle with a piece of the mean film."""
    surfaces, films = _pieces(degree, shift)
    middle = chest[shift:-shift, shift:-shift].ravel()
    rest = middle - surfaces @ (middle @ surfaces)
    return float((films @ rest).max() / max(np.linalg.norm(rest), 1e-6))


@functools.cache
def _pieces(degree: int, shift: int) -> tuple[Grey, Grey]:
    """Polynomials of the place [pixels, terms], and pieces of the mean film without them.

    Both are orthonormal or of unit length: [shifts, pixels], 5 x 5 shifts.
    """
    side = _SIDE - 2 * shift
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    terms = [x**i * y**j for i in range(degree + 1) for j in range(degree + 1 - i)]
    surfaces, _ = np.linalg.qr(np.stack([term.ravel() for term in terms], axis=1))
    with files("schemas").joinpath("frontal_chest.png").open("rb") as file:
        film = np.asarray(PIL.Image.open(file), dtype=np.float64)
    pieces = np.lib.stride_tricks.sliding_window_view(film, (side, side))
    step = shift // 2
    films = pieces[::step, ::step].reshape(-1, side * side)
    films = films - films @ surfaces @ surfaces.T
    films /= np.linalg.norm(films, axis=1, keepdims=True)
    return surfaces.astype(np.float32), films.astype(np.float32)
