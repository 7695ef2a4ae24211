"""Counters of all workers in one piece of memory, which no disk can fill up.

Each worker counts in a region of its own and any worker adds all regions up. A worker that is
started in place of one that died goes on with the counts in that region: nothing goes backwards,
and the number of regions is that of the workers, however many have died.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from multiprocessing.reduction import DupFd
from threading import Lock
from typing import Any, NamedTuple, Self

import orjson

_REGION_BYTES = 4 * 2**20  # some 40,000 counters; pages that nobody wrote take no memory
_WORD = 8  # bytes: of a float64, and what entries are aligned to


class CounterKey(NamedTuple):
    """What a counter is of. `mode`: of a gauge, how `prometheus_client` adds it up; else empty."""

    mode: str
    metric: str
    sample: str
    label_names: tuple[str, ...]
    label_values: tuple[str, ...]


@cache
def key_of(key: bytes) -> CounterKey:
    mode, metric, sample, names, values = orjson.loads(key)
    return CounterKey(mode, metric, sample, tuple(names), tuple(values))


class _Region:
    """The counters of one worker: words that are used; then, for each, its key and its value.

    An entry is the key's length in bytes, the key padded to whole words, and the value.
    """

    def __init__(self, memory: memoryview) -> None:
        self._bytes = memory
        self._integers, self._floats = memory.cast("q"), memory.cast("d")
        self._read = 1  # words; the first has the number of those used
        self._places: dict[bytes, int] = {}

    def all_keys(self) -> Iterator[bytes]:
        self._read_on()
        return iter(tuple(self._places))

    def place(self, key: bytes) -> int | None:
        self._read_on()
        return self._places.get(key)

    def value(self, key: bytes) -> float | None:
        place = self._places.get(key)
        return None if place is None else self._floats[place]

    def write(self, place: int, value: float) -> None:
        self._floats[place] = value

    def add(self, key: bytes) -> int | None:
        """The place of a new counter, at 0; None if the region is full."""
        words = -(-len(key) // _WORD)
        start = max(self._integers[0], 1)
        end = start + 1 + words + 1
        if end > len(self._integers):
            return None
        self._integers[start] = len(key)
        self._bytes[(start + 1) * _WORD : (start + 1) * _WORD + len(key)] = key
        self._floats[end - 1] = 0.0
        self._integers[0] = end  # last: who reads meanwhile sees whole entries only
        self._read_on()
        return end - 1

    def _read_on(self) -> None:
        used = self._integers[0]
        while self._read < used:
            length = self._integers[self._read]
            first = (self._read + 1) * _WORD
            place = self._read + 1 + -(-length // _WORD)
            self._places[bytes(self._bytes[first : first + length])] = place
            self._read = place + 1


class SharedCounters:
    """Regions of counters for a fixed number of workers. Can be given to a child process."""

    def __init__(self, file: int, workers: int) -> None:
        """`file`: a descriptor of the memory, which is kept open."""
        self._file, self._workers = file, workers
        memory = memoryview(mmap.mmap(file, workers * _REGION_BYTES))
        self._regions = [
            _Region(memory[i * _REGION_BYTES : (i + 1) * _REGION_BYTES]) for i in range(workers)
        ]
        self._lock = Lock()

    @classmethod
    def create(cls, workers: int) -> Self:
        """In memory alone on Linux; elsewhere in a file without a name."""
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("m3h-counters")
        else:
            with tempfile.TemporaryFile() as unnamed:
                file = os.dup(unnamed.fileno())
        os.ftruncate(file, workers * _REGION_BYTES)
        return cls(file, workers)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (DupFd(self._file), self._workers)

    def keys(self) -> set[bytes]:
        """Of every counter of any worker."""
        with self._lock:
            return {key for region in self._regions for key in region.all_keys()}

    def total(self, key: bytes) -> float:
        """The sum of all workers' counters of a key; of a gauge `livemax`, the largest."""
        found = [value for region in self._regions if (value := region.value(key)) is not None]
        return max(found, default=0.0) if key_of(key).mode == "livemax" else sum(found)

    def clear_gauges(self, worker: int) -> None:
        """A worker has ended: what it said of itself as a living one holds no more."""
        region = self._regions[worker]
        for key in region.all_keys():
            place = region.place(key)
            if key_of(key).mode and place is not None:
                region.write(place, 0.0)

    def value_class(self, worker: int) -> type:
        """What `prometheus_client` counts with, in one worker."""
        region, lock, counters = self._regions[worker], self._lock, self

        class SharedValue:
            """A float of one worker. `get` gives that of all workers."""

            _multiprocess = True

            def __init__(self, *facts: Any, multiprocess_mode: str = "") -> None:
                """`facts`: type, metric, sample, label names, label values, description."""
                self._key = orjson.dumps((multiprocess_mode, *facts[1:5]))
                with lock:
                    place = region.place(self._key)
                    self._place = region.add(self._key) if place is None else place
                    self._value = region.value(self._key) or 0.0

            def inc(self, amount: float) -> None:
                with lock:
                    self._value += amount
                    self._write()

            def set(self, value: float, **_: object) -> None:
                with lock:
                    self._value = value
                    self._write()

            def _write(self) -> None:
                if self._place is not None:
                    region.write(self._place, self._value)

            def get(self) -> float:
                return self._value if self._place is None else counters.total(self._key)

            def set_exemplar(self, exemplar: object) -> None:
                """Exemplars are not kept."""

            def get_exemplar(self) -> None:
                return None

        return SharedValue


def _attached(file: Any, workers: int) -> SharedCounters:
    return SharedCounters(file.detach(), workers)
