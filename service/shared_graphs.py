"""One process holds the graphs, and all workers ask it: one copy of the weights on a GPU.

A worker asks over a Unix socket, by one connection for each bundle that it has. What the workers
ask for at one moment is computed together. A bundle stays as long as somebody is connected for it.
"""

import os
import signal
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import current_process
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread

import numpy as np

from schemas.features import Array, Floats
from schemas.manifest import BundleError, Graph
from service import problems
from service.bundle import Bundle
from service.log import make_log, quote_nothing_uncaught
from service.settings import Device, Settings

MOST_ROWS = 64  # that are computed together


@dataclass(frozen=True)
class _Open:
    """The first that a connection says: of which bundle it asks for graphs."""

    bundle: Path
    digest: str


@dataclass(frozen=True)
class _Run:
    """One run of a graph, by its file. The answer is its outputs by name."""

    file: str
    inputs: dict[str, Array]


@dataclass(frozen=True)
class _Fault:
    """What is wrong, in place of an answer. Holds no value of a request."""

    text: str


# ------------------------------------------------------------------------------------ in a worker


class SharedGraphs:
    """The graphs of one bundle, in the process that holds them. Safe to call from many threads."""

    def __init__(self, address: str, bundle: Path, digest: str) -> None:
        self._address, self._open = address, _Open(bundle.resolve(), digest)
        self._connection: Connection | None = None
        self._lock = Lock()

    def run(self, file: str, inputs: dict[str, Array]) -> dict[str, Floats]:
        """Raises RuntimeError for a run that failed, and Refused, a 503, if nobody answers.

        A process that was started anew is found at the next run.
        """
        with self._lock:
            try:
                return self._asked(_Run(file, inputs))
            except (OSError, EOFError):
                self._connection = None
                detail = "the process that holds the graphs has ended; another is being started"
                raise problems.not_ready(detail) from None

    def open(self) -> None:
        """Raises BundleError if the process cannot be reached or has not this bundle."""
        with self._lock:
            try:
                self._connected()
            except (OSError, EOFError) as error:
                raise BundleError(f"the process of the graphs does not answer: {error}") from None

    def _asked(self, run: _Run) -> dict[str, Floats]:
        connection = self._connected()
        connection.send(run)
        answer: dict[str, Floats] | _Fault = connection.recv()
        if isinstance(answer, _Fault):
            raise RuntimeError(answer.text)  # noqa: TRY004 - no fault of a caller
        return answer

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = Client(self._address, "AF_UNIX", authkey=current_process().authkey)
            connection.send(self._open)
            answer: _Fault | None = connection.recv()
            if answer is not None:
                raise BundleError(answer.text)
            self._connection = connection
        return self._connection


@dataclass(frozen=True)
class SharedGraph:
    """One of them, to be run as a Session is."""

    graphs: SharedGraphs
    graph: Graph

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Floats]:
        asked = {tensor.name: inputs[tensor.name] for tensor in self.graph.inputs}
        return self.graphs.run(self.graph.file, asked)


def opened(address: str, bundle: Path, digest: str) -> Callable[[Graph], SharedGraph]:
    """What gives the graphs of a bundle. Raises BundleError as `SharedGraphs.open` does."""
    graphs = SharedGraphs(address, bundle, digest)
    graphs.open()
    return partial(SharedGraph, graphs)


# -------------------------------------------------------------------- in the process of the graphs


@dataclass(frozen=True)
class _Asked:
    connection: Connection
    bundle: Bundle
    run: _Run


def hold(address: str, settings: Settings, supervisor: Connection) -> None:
    """The process: serves graphs until nobody is there to end it."""
    quote_nothing_uncaught(make_log(settings.log_level, sys.stderr))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the workers still need it
    holder = _Holder(settings.device, settings.threads or 1)
    Path(address).unlink(missing_ok=True)  # of one that died
    listener = Listener(address, "AF_UNIX", backlog=128, authkey=current_process().authkey)
    Thread(target=_end_with, args=(supervisor,), daemon=True).start()
    Thread(target=holder.accept, args=(listener,), daemon=True).start()
    supervisor.send(None)  # it listens
    while True:
        holder.turn()


def _end_with(supervisor: Connection) -> None:
    with suppress(EOFError, OSError):
        supervisor.recv()
    os._exit(0)


class _Holder:
    def __init__(self, device: Device, threads: int) -> None:
        self._device, self._threads = device, threads
        self._asked: SimpleQueue[_Asked] = SimpleQueue()
        self._bundles: dict[str, Bundle] = {}
        self._connected: dict[str, int] = defaultdict(int)
        self._opening = Lock()

    def accept(self, listener: Listener) -> None:
        while True:
            # Whoever is no worker is turned away, and the next is heard.
            with suppress(Exception):
                Thread(target=self._hear, args=(listener.accept(),), daemon=True).start()

    def _hear(self, connection: Connection) -> None:
        """Takes what one worker asks for, until it hangs up."""
        with connection, suppress(EOFError, OSError):  # it hung up
            opened: _Open = connection.recv()
            try:
                bundle = self._opened(opened)
            except BundleError as error:
                connection.send(_Fault(str(error)))
                return
            try:
                connection.send(None)
                while True:
                    self._asked.put(_Asked(connection, bundle, connection.recv()))
            finally:
                self._leave(opened.digest)

    def _opened(self, opened: _Open) -> Bundle:
        with self._opening:
            bundle = self._bundles.get(opened.digest)
            if bundle is None:
                bundle = Bundle.load(opened.bundle, self._device, self._threads)
                if bundle.digest != opened.digest:
                    raise BundleError(f"{opened.bundle} changed while it was read; try again")
                self._bundles[bundle.digest] = bundle
            self._connected[opened.digest] += 1
            return bundle

    def _leave(self, digest: str) -> None:
        with self._opening:
            self._connected[digest] -= 1
            if not self._connected[digest]:
                del self._connected[digest], self._bundles[digest]

    def turn(self) -> None:
        """Computes what is asked for now; runs of one graph together."""
        waiting = [self._asked.get()]
        with suppress(Empty):
            while True:
                waiting.append(self._asked.get_nowait())
        alike: dict[object, list[_Asked]] = defaultdict(list)
        for one in waiting:
            shapes = tuple(array.shape[1:] for array in one.run.inputs.values())
            alike[one.bundle.digest, one.run.file, shapes].append(one)
        for some in alike.values():
            for together in _together(some):
                self._answer(together)

    def _answer(self, asked: Sequence[_Asked]) -> None:
        try:
            answers: list[dict[str, Floats] | _Fault] = [*_run(asked)]
        except Exception as error:  # noqa: BLE001 - its errors have no common base
            if len(asked) > 1:  # one of them must not fail the others
                for one in asked:
                    self._answer([one])
                return
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__} in {asked[0].run.file}, {where.filename}:{where.lineno}"
            answers = [_Fault(text)]
        for one, answer in zip(asked, answers, strict=True):
            with suppress(OSError):  # a worker that died
                one.connection.send(answer)


def _rows(asked: _Asked) -> int:
    return len(next(iter(asked.run.inputs.values())))


def _together(asked: Sequence[_Asked]) -> list[list[_Asked]]:
    """In parts of no more than MOST_ROWS, but for one that is larger alone."""
    parts: list[list[_Asked]] = [[]]
    rows = 0
    for one in asked:
        if parts[-1] and rows + _rows(one) > MOST_ROWS:
            parts.append([])
            rows = 0
        parts[-1].append(one)
        rows += _rows(one)
    return parts


def _run(asked: Sequence[_Asked]) -> list[dict[str, Floats]]:
    """The outputs of each, of one run of the graph."""
    graph = asked[0].bundle.graph(asked[0].run.file)
    if len(asked) == 1:
        return [graph.run(asked[0].run.inputs)]
    names = asked[0].run.inputs
    outputs = graph.run(
        {name: np.concatenate([a.run.inputs[name] for a in asked]) for name in names}
    )
    ends = np.cumsum([_rows(one) for one in asked])
    return [
        {name: rows[end - _rows(one) : end] for name, rows in outputs.items()}
        for one, end in zip(asked, ends.tolist(), strict=True)
    ]
