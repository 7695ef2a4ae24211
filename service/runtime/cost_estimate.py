"""How long a prediction is expected to take, before it is begun: by what the latest took."""

import io
import math
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass

import PIL.Image

from schemas.payload import Payload
from schemas.response import Modality

RECENT = 0.2  # the weight of the latest run in how long one takes
_TOKEN = 3  # characters, at least


@dataclass
class Pace:
    """Seconds of a unit. `large`: so many units of a call tell it; fewer tell less.

    A call takes `call` seconds whatever its size.
    """

    unit: float | None = None
    large: float = 1.0
    call: float = 0.0

    def seconds(self, count: float) -> float:
        return count * (self.unit or 0.0)

    def learn(self, count: float, seconds: float) -> None:
        each = max(0.0, seconds - self.call) / max(count, 1)
        if self.unit is None:
            self.unit = each
        self.unit += RECENT * min(1.0, count / self.large) * (each - self.unit)


@dataclass(frozen=True)
class Size:
    """What of a request takes time to read."""

    observations: int
    characters: int
    pixels: int

    @classmethod
    def of(cls, payload: Payload, known: Container[Modality]) -> "Size":
        """`known`: notes and images that are not read again."""
        return cls(
            sum(len(series.values) for series in payload.series) + len(payload.treatments),
            0 if "notes" in known else sum(len(note.text) for note in payload.notes),
            0 if "image" in known else _pixels(payload),
        )

    @property
    def tokens(self) -> int:
        return math.ceil(self.characters / _TOKEN)


def _pixels(payload: Payload) -> int:
    """By the headers of the images; a few bytes may hold any number of pixels."""
    found = 0
    for image in payload.images:
        with suppress(Exception):  # who decodes it says what is wrong with it
            width, height = PIL.Image.open(io.BytesIO(image.data), formats=("PNG", "JPEG")).size
            found += width * height
    return found


class ReadingPace:
    """How long features take. What is set here holds until the first large request."""

    def __init__(self) -> None:
        self._observations = Pace(2e-6, large=10_000)
        self._characters = Pace(2e-6, large=20_000)
        self._pixels = Pace(3e-8, large=1_000_000)

    def seconds(self, size: Size) -> float:
        return (
            self._observations.seconds(size.observations)
            + self._characters.seconds(size.characters)
            + self._pixels.seconds(size.pixels)
        )

    def learn_note(self, characters: int, seconds: float) -> None:
        self._characters.learn(characters, seconds)

    def learn_rest(self, size: Size, seconds: float) -> None:
        """`seconds`: of all but the notes."""
        if size.pixels:
            self._pixels.learn(size.pixels, seconds)
        elif size.observations:
            self._observations.learn(size.observations, seconds)
