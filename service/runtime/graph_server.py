"""One process holds the graphs, and all workers ask it: one copy of the weights on a GPU.

A worker asks over a Unix socket, by one connection for each bundle that it has. What the workers
ask for at one moment is computed together. A bundle stays as long as somebody is connected for it.
"""

import os
import signal
import socket
import struct
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import AuthenticationError, current_process
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

import numpy as np

from schemas.features import Array, Floats
from schemas.manifest import BundleError, Graph
from service.http import problems
from service.process.child_process import ignore_terminal_signals
from service.process.messages import GraphServerReply
from service.runtime.bundle import Bundle
from service.settings import Device, Settings
from service.telemetry.logging import make_log, run_child

MOST_ROWS = 64  # that are computed together
LONGEST_RUN_SECONDS = 120.0  # of one run of a graph; the server is replaced beyond
_MESSAGE_SECONDS = 5.0  # for the rest of a message whose start is there, and to send one
_BACKLOG = 128
_ACCEPT_PAUSE = 0.1  # seconds


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
    """The graphs of one bundle, in the process that holds them. Safe to call from many threads.

    `load_seconds`: how long that process may take to load the bundle.
    """

    def __init__(self, address: str, bundle: Path, digest: str, load_seconds: float) -> None:
        self._address, self._open = address, _Open(bundle.resolve(), digest)
        self._load_seconds = load_seconds
        self._connection: Connection | None = None
        self._lock = Lock()

    def run(self, file: str, inputs: dict[str, Array]) -> dict[str, Floats]:
        """Raises RuntimeError for a run that failed, and Refused, a 503, if nobody answers.

        A process that was started anew is found at the next run.
        """
        with self._lock:
            try:
                return self._asked(_Run(file, inputs))
            except (OSError, EOFError, AuthenticationError):
                self._hang_up()
                detail = "the process that holds the graphs has ended; another is being started"
                raise problems.not_ready(detail) from None
            except BundleError as error:  # it was started anew, and has another bundle or none
                raise problems.not_ready(str(error)) from None

    def open(self) -> None:
        """Raises BundleError if the process cannot be reached or has not this bundle."""
        with self._lock:
            try:
                self._connected()
            except (OSError, EOFError, AuthenticationError) as error:
                raise BundleError(f"the process of the graphs does not answer: {error}") from None

    def _asked(self, run: _Run) -> dict[str, Floats]:
        connection = self._connected()
        connection.send(run)
        answer: dict[str, Floats] | _Fault = _received(connection, LONGEST_RUN_SECONDS)
        if isinstance(answer, _Fault):
            raise RuntimeError(answer.text)  # noqa: TRY004 - no fault of a caller
        return answer

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = _connect(self._address)
            try:
                connection.send(self._open)
                answer: _Fault | None = _received(connection, self._load_seconds)
            except (OSError, EOFError):
                connection.close()
                raise
            if answer is not None:
                connection.close()
                raise BundleError(answer.text)
            self._connection = connection
        return self._connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(address: str) -> Connection:
    """Raises OSError, EOFError and AuthenticationError."""
    with socket.socket(socket.AF_UNIX) as plain:
        _limit(plain)
        plain.connect(address)
        connection = Connection(plain.detach())
    try:
        answer_challenge(connection, current_process().authkey)
        deliver_challenge(connection, current_process().authkey)
    except BaseException:
        connection.close()
        raise
    return connection


def _limit(plain: socket.socket) -> None:
    """No message that has begun may keep a thread for ever: beyond, BlockingIOError."""
    seconds = struct.pack("ll", int(_MESSAGE_SECONDS), 0)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        plain.setsockopt(socket.SOL_SOCKET, option, seconds)


def _shut(connection: Connection) -> None:
    """Ends it for both sides; the thread that hears it closes it."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as plain:
        plain.shutdown(socket.SHUT_RDWR)


def _received(connection: Connection, seconds: float | None) -> Any:
    """The next message. Raises EOFError, OSError, and TimeoutError, which is one of these."""
    if not connection.poll(seconds):
        raise TimeoutError(f"no answer within {seconds:g} s")
    return connection.recv()


@dataclass(frozen=True)
class SharedGraph:
    """One of them, to be run as a Session is."""

    graphs: SharedGraphs
    graph: Graph

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Floats]:
        asked = {tensor.name: inputs[tensor.name] for tensor in self.graph.inputs}
        return self.graphs.run(self.graph.file, asked)


def opened(
    address: str, load_seconds: float, bundle: Path, digest: str
) -> Callable[[Graph], SharedGraph]:
    """What gives the graphs of a bundle. Raises BundleError as `SharedGraphs.open` does."""
    graphs = SharedGraphs(address, bundle, digest, load_seconds)
    graphs.open()
    return partial(SharedGraph, graphs)


# -------------------------------------------------------------------- in the process of the graphs


@dataclass(frozen=True)
class _Asked:
    connection: Connection
    bundle: Bundle
    run: _Run


def run_graph_server(address: str, settings: Settings, supervisor: Connection) -> None:
    """Serves graphs until nobody is there to end it."""
    ignore_terminal_signals()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the workers still need it

    def main() -> None:
        holder = _Holder(settings.device, settings.threads or 1)
        with socket.socket(socket.AF_UNIX) as listening:
            try:
                listening.bind(address)
            except OSError as error:
                fault = f"it cannot listen: {error.strerror}"
                supervisor.send(GraphServerReply(fault=fault))
                return
            listening.listen(_BACKLOG)
            Thread(target=holder.accept, args=(listening,), daemon=True).start()
            Thread(target=_answer, args=(supervisor, holder), daemon=True).start()
            while True:
                holder.turn()

    run_child(make_log(settings.log_level, sys.stderr), main)


def _answer(supervisor: Connection, holder: "_Holder") -> None:
    """Says that it listens, and at each ping that it lives; ends with the supervisor."""
    with suppress(EOFError, OSError):
        while True:
            supervisor.send(GraphServerReply(run_seconds=holder.run_seconds()))
            supervisor.recv()
    os._exit(0)


class _Holder:
    def __init__(self, device: Device, threads: int) -> None:
        self._device, self._threads = device, threads
        self._asked: SimpleQueue[_Asked] = SimpleQueue()
        self._bundles: dict[str, Bundle] = {}
        self._connected: dict[str, int] = defaultdict(int)
        self._opening = Lock()
        self._run_began: float | None = None  # by the monotonic clock; of the run that goes on

    def run_seconds(self) -> float:
        """How long the run of a graph takes that is computed now; 0 if there is none."""
        began = self._run_began
        return 0.0 if began is None else time.monotonic() - began

    def accept(self, listening: socket.socket) -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:  # too many open files
                time.sleep(_ACCEPT_PAUSE)
                continue
            _limit(plain)
            connection = Connection(plain.detach())
            Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: Connection) -> None:
        """Takes what one worker asks for, until it hangs up. Whoever is no worker is not heard."""
        with connection, suppress(EOFError, OSError, AuthenticationError):
            deliver_challenge(connection, current_process().authkey)
            answer_challenge(connection, current_process().authkey)
            opened: _Open = _received(connection, _MESSAGE_SECONDS)
            try:
                bundle = self._opened(opened)
            except BundleError as error:
                connection.send(_Fault(str(error)))
                return
            try:
                connection.send(None)
                while True:
                    self._asked.put(_Asked(connection, bundle, _received(connection, None)))
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
        self._run_began = time.monotonic()
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
        finally:
            self._run_began = None
        for one, answer in zip(asked, answers, strict=True):
            try:
                one.connection.send(answer)
            except OSError:  # a worker that died, or hangs: a part of an answer is none
                _shut(one.connection)


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
