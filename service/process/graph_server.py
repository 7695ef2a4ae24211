"""The graph server: one process runs the graphs for all workers, with one copy of the weights.

Runs that workers request at the same time are computed in one batch. A bundle stays loaded as
long as a worker is connected for it. Clients: `service.runtime.graph_client`.
"""

import os
import signal
import socket
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError, current_process
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from queue import Empty, SimpleQueue
from threading import Lock, Thread

import numpy as np

from schemas.bundle_files import BundleError
from schemas.features import Floats
from service.process.child_process import ignore_terminal_signals
from service.process.messages import GraphServerReply
from service.runtime.bundle import Bundle
from service.runtime.graph_client import (
    MESSAGE_SECONDS,
    GraphFault,
    OpenBundle,
    RunGraph,
    limit_message_time,
    receive,
    shut_down,
)
from service.settings import Device, Settings
from service.telemetry.logging import make_log, run_child

MAX_BATCH_ROWS = 64
_BACKLOG = 128
_ACCEPT_PAUSE = 0.1  # seconds


@dataclass(frozen=True)
class PendingRun:
    """A run that a worker has requested."""

    connection: Connection
    bundle: Bundle
    run: RunGraph

    @property
    def rows(self) -> int:
        return len(next(iter(self.run.inputs.values())))


def run_graph_server(address: str, settings: Settings, supervisor: Connection) -> None:
    """Serves graphs at `address` until the supervisor ends or kills the process."""
    ignore_terminal_signals()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the workers need it while they drain

    def main() -> None:
        server = _GraphServer(settings.device, settings.threads or 1)
        with socket.socket(socket.AF_UNIX) as listening:
            try:
                listening.bind(address)
            except OSError as error:
                fault = f"it cannot listen: {error.strerror}"
                supervisor.send(GraphServerReply(fault=fault))
                return
            listening.listen(_BACKLOG)
            Thread(target=server.accept, args=(listening,), daemon=True).start()
            Thread(target=_answer_pings, args=(supervisor, server), daemon=True).start()
            while True:
                server.compute_pending()

    run_child(make_log(settings.log_level, sys.stderr), main)


def _answer_pings(supervisor: Connection, server: "_GraphServer") -> None:
    """Reports that the server listens, then replies to each ping. Ends with the supervisor."""
    with suppress(EOFError, OSError):
        while True:
            supervisor.send(GraphServerReply(run_seconds=server.run_seconds()))
            supervisor.recv()
    os._exit(0)


class _GraphServer:
    """Loaded bundles, and the queue of requested runs.

    A thread for each connection fills the queue; the main thread computes it.
    """

    def __init__(self, device: Device, threads: int) -> None:
        self._device, self._threads = device, threads
        self._pending: SimpleQueue[PendingRun] = SimpleQueue()
        self._bundles: dict[str, Bundle] = {}
        self._connections: dict[str, int] = defaultdict(int)  # their number, by bundle
        self._loading = Lock()
        self._run_began: float | None = None  # monotonic; None while no graph runs

    def run_seconds(self) -> float:
        """How long the current run has taken so far, in seconds; 0 if no graph runs."""
        began = self._run_began
        return 0.0 if began is None else time.monotonic() - began

    def accept(self, listening: socket.socket) -> None:
        """Accepts connections, each in a thread of its own."""
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:  # too many open files
                time.sleep(_ACCEPT_PAUSE)
                continue
            limit_message_time(plain)
            connection = Connection(plain.detach())
            Thread(target=self._receive_runs, args=(connection,), daemon=True).start()

    def _receive_runs(self, connection: Connection) -> None:
        """Authenticates a worker and queues its runs until it disconnects."""
        with connection, suppress(EOFError, OSError, AuthenticationError):
            deliver_challenge(connection, current_process().authkey)
            answer_challenge(connection, current_process().authkey)
            opening: OpenBundle = receive(connection, MESSAGE_SECONDS)
            try:
                bundle = self._acquire(opening)
            except BundleError as error:
                connection.send(GraphFault(str(error)))
                return
            try:
                connection.send(None)
                while True:
                    self._pending.put(PendingRun(connection, bundle, receive(connection, None)))
            finally:
                self._release(opening.digest)

    def _acquire(self, opening: OpenBundle) -> Bundle:
        """Returns the bundle for one more connection. Loads it for the first."""
        with self._loading:
            bundle = self._bundles.get(opening.digest)
            if bundle is None:
                bundle = Bundle.load(opening.bundle, self._device, self._threads)
                if bundle.digest != opening.digest:
                    raise BundleError(f"{opening.bundle} changed while it was read; try again")
                self._bundles[bundle.digest] = bundle
            self._connections[opening.digest] += 1
            return bundle

    def _release(self, digest: str) -> None:
        with self._loading:
            self._connections[digest] -= 1
            if not self._connections[digest]:
                del self._connections[digest], self._bundles[digest]

    def compute_pending(self) -> None:
        """Waits for a run, then computes all that are queued. Runs of one graph share a batch."""
        pending = [self._pending.get()]
        with suppress(Empty):
            while True:
                pending.append(self._pending.get_nowait())
        by_graph: dict[object, list[PendingRun]] = defaultdict(list)
        for run in pending:
            shapes = tuple(array.shape[1:] for array in run.run.inputs.values())
            by_graph[run.bundle.digest, run.run.file, shapes].append(run)
        for runs in by_graph.values():
            for batch in _batches(runs):
                self._compute(batch)

    def _compute(self, batch: Sequence[PendingRun]) -> None:
        """Computes a batch and sends the replies. If it fails, each run is computed alone."""
        self._run_began = time.monotonic()
        try:
            replies: list[dict[str, Floats] | GraphFault] = [*_outputs(batch)]
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base
            if len(batch) > 1:
                for run in batch:
                    self._compute([run])
                return
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__} in {batch[0].run.file}, {where.filename}:{where.lineno}"
            replies = [GraphFault(text)]
        finally:
            self._run_began = None
        for run, reply in zip(batch, replies, strict=True):
            try:
                run.connection.send(reply)
            except OSError:  # the worker died or hangs; part of a reply may have been sent
                shut_down(run.connection)


def _batches(runs: Sequence[PendingRun]) -> Iterator[list[PendingRun]]:
    """Splits runs into batches of at most MAX_BATCH_ROWS rows; a larger run is alone."""
    batch: list[PendingRun] = []
    rows = 0
    for run in runs:
        if batch and rows + run.rows > MAX_BATCH_ROWS:
            yield batch
            batch, rows = [], 0
        batch.append(run)
        rows += run.rows
    yield batch


def _outputs(batch: Sequence[PendingRun]) -> list[dict[str, Floats]]:
    """Runs a graph once for all and returns the outputs of each."""
    graph = batch[0].bundle.graph(batch[0].run.file)
    if len(batch) == 1:
        return [graph.run(batch[0].run.inputs)]
    names = batch[0].run.inputs
    outputs = graph.run(
        {name: np.concatenate([run.run.inputs[name] for run in batch]) for name in names}
    )
    ends = np.cumsum([run.rows for run in batch])
    return [
        {name: rows[end - run.rows : end] for name, rows in outputs.items()}
        for run, end in zip(batch, ends.tolist(), strict=True)
    ]
