"""Prometheus counters of all workers in shared memory, which needs no disk.

Each worker writes to its own region, and every worker can sum over all regions. A worker that
replaces a dead one continues with the counts in its region. So counters never decrease, and the
number of regions stays the number of workers.
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

_REGION_BYTES = 4 * 2**20  # some 40,000 counters; unwritten pages take no memory
_WORD_BYTES = 8  # size of a float64, and alignment of entries


class CounterKey(NamedTuple):
    """Identifies a counter. `mode`: how a gauge's values are combined; empty for a counter."""

    mode: str
    metric: str
    sample: str
    label_names: tuple[str, ...]
    label_values: tuple[str, ...]


@cache
def parse_key(key: bytes) -> CounterKey:
    mode, metric, sample, names, values = orjson.loads(key)
    return CounterKey(mode, metric, sample, tuple(names), tuple(values))


class _Region:
    """The counters of one worker.

    Layout: the first word is the number of words in use. Entries follow: the length of the key in
    bytes, the key padded to whole words, the value. An address is the index of a value's word.
    """

    def __init__(self, memory: memoryview) -> None:
        self._bytes = memory
        self._integers, self._floats = memory.cast("q"), memory.cast("d")
        self._words_read = 1
        self._addresses: dict[bytes, int] = {}

    def __iter__(self) -> Iterator[bytes]:
        self._read_new_entries()
        return iter(tuple(self._addresses))

    def address(self, key: bytes) -> int | None:
        self._read_new_entries()
        return self._addresses.get(key)

    def value(self, key: bytes) -> float | None:
        address = self._addresses.get(key)
        return None if address is None else self._floats[address]

    def write(self, address: int, value: float) -> None:
        self._floats[address] = value

    def add(self, key: bytes) -> int | None:
        """Adds a counter with value 0. Returns its address, or None if the region is full."""
        words = -(-len(key) // _WORD_BYTES)
        start = max(self._integers[0], 1)
        end = start + 1 + words + 1
        if end > len(self._integers):
            return None
        self._integers[start] = len(key)
        first = (start + 1) * _WORD_BYTES
        self._bytes[first : first + len(key)] = key
        self._floats[end - 1] = 0.0
        self._integers[0] = end  # written last, so that readers see only complete entries
        self._read_new_entries()
        return end - 1

    def _read_new_entries(self) -> None:
        used = self._integers[0]
        while self._words_read < used:
            length = self._integers[self._words_read]
            first = (self._words_read + 1) * _WORD_BYTES
            address = self._words_read + 1 + -(-length // _WORD_BYTES)
            self._addresses[bytes(self._bytes[first : first + length])] = address
            self._words_read = address + 1


class SharedCounters:
    """Counter regions of a fixed number of workers. Can be passed to a child process."""

    def __init__(self, file: int, workers: int) -> None:
        """`file`: file descriptor of the memory, which stays open."""
        self._file, self._workers = file, workers
        memory = memoryview(mmap.mmap(file, workers * _REGION_BYTES))
        self._regions = [
            _Region(memory[i * _REGION_BYTES : (i + 1) * _REGION_BYTES]) for i in range(workers)
        ]
        self._lock = Lock()

    @classmethod
    def create(cls, workers: int) -> Self:
        """Uses anonymous memory on Linux, an unnamed temporary file elsewhere."""
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("m3h-counters")
        else:
            with tempfile.TemporaryFile() as unnamed:
                file = os.dup(unnamed.fileno())
        os.ftruncate(file, workers * _REGION_BYTES)
        return cls(file, workers)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attach, (DupFd(self._file), self._workers)

    def keys(self) -> set[bytes]:
        """The keys of the counters of all workers."""
        with self._lock:
            return {key for region in self._regions for key in region}

    def total(self, key: bytes) -> float:
        """The sum of a counter over all workers; the maximum for a gauge of mode `livemax`."""
        amounts = [value for region in self._regions if (value := region.value(key)) is not None]
        return max(amounts, default=0.0) if parse_key(key).mode == "livemax" else sum(amounts)

    def clear_gauges(self, worker: int) -> None:
        """Sets the gauges of a worker that has ended to 0. Its counters keep their values."""
        region = self._regions[worker]
        for key in region:
            address = region.address(key)
            if parse_key(key).mode and address is not None:
                region.write(address, 0.0)

    def value_class(self, worker: int) -> type:
        """The value class that `prometheus_client` uses in one worker."""
        region, lock, counters = self._regions[worker], self._lock, self

        class SharedValue:
            """The value of one worker. `get` returns the total over all workers."""

            _multiprocess = True

            def __init__(self, *parts: Any, multiprocess_mode: str = "") -> None:
                """`parts`: type, metric, sample, label names, label values, description."""
                self._key = orjson.dumps((multiprocess_mode, *parts[1:5]))
                with lock:
                    address = region.address(self._key)
                    self._address = region.add(self._key) if address is None else address
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
                if self._address is not None:
                    region.write(self._address, self._value)

            def get(self) -> float:
                return self._value if self._address is None else counters.total(self._key)

            def set_exemplar(self, exemplar: object) -> None:
                """Does nothing: exemplars are not supported."""

            def get_exemplar(self) -> None:
                return None

        return SharedValue


def _attach(file: Any, workers: int) -> SharedCounters:
    return SharedCounters(file.detach(), workers)
