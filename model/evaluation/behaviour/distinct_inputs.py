"""Computes each distinct input of an encoder once: most changes concern one modality."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Generic, TypeVar

from schemas.features import Array
from schemas.response import Modality

T = TypeVar("T")
Inputs = Mapping[str, Array]  # of one sample, without a batch axis


class DistinctInputs(Generic[T]):
    """Remembers the result of each input. `compute` gets inputs of one modality that are new."""

    def __init__(self, compute: Callable[[Modality, Sequence[Inputs]], Sequence[T]]) -> None:
        self._compute = compute
        self._results: dict[bytes, T] = {}

    def results(self, modality: Modality, inputs: Sequence[Inputs]) -> list[T]:
        """The result of each input, in order."""
        keys = [_key(modality, arrays) for arrays in inputs]
        new = {
            key: arrays
            for key, arrays in zip(keys, inputs, strict=True)
            if key not in self._results
        }
        if new:
            computed = self._compute(modality, [*new.values()])
            self._results.update(zip(new, computed, strict=True))
        return [self._results[key] for key in keys]


def _key(modality: Modality, arrays: Inputs) -> bytes:
    digest = sha256(modality.encode())
    for name, array in arrays.items():
        digest.update(f"/{name}{array.dtype}{array.shape}/".encode())
        digest.update(array.tobytes())
    return digest.digest()
