"""Estimates how long a prediction takes, from moving averages of earlier times."""

import io
import math
from collections.abc import Container, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import PIL.Image

from schemas.payload import Payload
from schemas.response import Modality

UNIT_WEIGHT = 0.2  # of the latest measurement, in the average time of a unit
_JOB_WEIGHT = 0.1  # of the latest batch, in the average time of a job
_MIN_JOB_SECONDS = 1e-4  # when the time of a batch is divided among its jobs
_CHARACTERS_PER_TOKEN = 3  # a low estimate


@dataclass
class UnitCost:
    """A moving average of the time of one unit of work, in seconds.

    `significant`: number of units from which a measurement has its full weight. `overhead`:
    seconds of a call, whatever its size.
    """

    unit_seconds: float | None = None
    significant: float = 1.0
    overhead: float = 0.0

    def estimate(self, count: float) -> float:
        """Estimates the time of `count` units, in seconds; 0 before the first measurement."""
        return count * (self.unit_seconds or 0.0)

    def update(self, count: float, seconds: float) -> None:
        """Adds the measured time of `count` units."""
        measured = max(0.0, seconds - self.overhead) / max(count, 1)
        if self.unit_seconds is None:
            self.unit_seconds = measured
        weight = UNIT_WEIGHT * min(1.0, count / self.significant)
        self.unit_seconds += weight * (measured - self.unit_seconds)


class TypicalJobTime:
    """A moving average of the time of a job, by cost class, in seconds."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}

    def of_class(self, cost_class: Hashable) -> float:
        """Seconds of a job; 0 before the first measurement."""
        return self._seconds.get(cost_class, 0.0)

    def update(self, estimates: Sequence[tuple[Hashable, float]], seconds: float) -> None:
        """Adds a batch that took `seconds`, with the cost class and the estimate of each job.

        The average is geometric: one batch that the machine delayed must not cause refusals.
        """
        weights = [max(estimate, _MIN_JOB_SECONDS) for _, estimate in estimates]
        for (cost_class, _), weight in zip(estimates, weights, strict=True):
            measured = seconds * weight / sum(weights)
            average = self._seconds.get(cost_class, measured)
            self._seconds[cost_class] = average ** (1 - _JOB_WEIGHT) * measured**_JOB_WEIGHT


@dataclass(frozen=True)
class InputSize:
    """The amount of input of a request that is converted to features."""

    observations: int
    characters: int
    pixels: int

    @classmethod
    def of(cls, payload: Payload, cached: Container[Modality]) -> "InputSize":
        """The size of a payload without its `cached` modalities."""
        return cls(
            sum(len(series.values) for series in payload.series) + len(payload.treatments),
            0 if "notes" in cached else sum(len(note.text) for note in payload.notes),
            0 if "image" in cached else _pixels(payload),
        )

    @property
    def tokens(self) -> int:
        return math.ceil(self.characters / _CHARACTERS_PER_TOKEN)


def _pixels(payload: Payload) -> int:
    """The pixels of all images, from their headers: a few bytes can hold any number of pixels."""
    pixels = 0
    for image in payload.images:
        with suppress(Exception):  # decoding reports the error
            if image.dicom is not None:
                pixels += image.dicom.format.rows * image.dicom.format.columns
                continue
            width, height = PIL.Image.open(io.BytesIO(image.data), formats=("PNG", "JPEG")).size
            pixels += width * height
    return pixels


class FeatureCost:
    """The time of feature extraction. The initial values hold until the first large request."""

    def __init__(self) -> None:
        self._observations = UnitCost(2e-6, significant=10_000)
        self._characters = UnitCost(2e-6, significant=20_000)
        self._pixels = UnitCost(3e-8, significant=1_000_000)

    def estimate(self, size: InputSize) -> float:
        """Estimates the time for an input, in seconds."""
        return (
            self._observations.estimate(size.observations)
            + self._characters.estimate(size.characters)
            + self._pixels.estimate(size.pixels)
        )

    def update_notes(self, characters: int, seconds: float) -> None:
        self._characters.update(characters, seconds)

    def update_rest(self, size: InputSize, seconds: float) -> None:
        """Adds the measured time of everything but the notes."""
        if size.pixels:
            self._pixels.update(size.pixels, seconds)
        elif size.observations:
            self._observations.update(size.observations, seconds)
