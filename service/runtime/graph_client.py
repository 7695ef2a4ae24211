"""A client of the process that runs the graphs for all workers, and the messages between them.

A worker sends over a Unix socket, by one connection for each bundle that it has loaded.
"""

import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import AuthenticationError, current_process
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from threading import Lock
from typing import Any

from schemas.bundle_files import BundleError
from schemas.features import Array, Floats
from schemas.manifest import Graph
from service.errors import ModelUnavailable

RUN_SECONDS = 120.0  # limit of one run of a graph; the server is replaced after it
MESSAGE_SECONDS = 5.0  # limit to receive the rest of a message, and to send one


@dataclass(frozen=True)
class OpenBundle:
    """The first message of a connection: the bundle whose graphs it runs."""

    bundle: Path
    digest: str


@dataclass(frozen=True)
class RunGraph:
    """One run of a graph, by its file. The reply is its outputs by name."""

    file: str
    inputs: dict[str, Array]


@dataclass(frozen=True)
class GraphFault:
    """The reply to a message that failed. Holds no value of a request."""

    text: str


class GraphClient:
    """The graphs of one bundle in the graph server. Safe to call from several threads.

    `load_seconds`: time limit for the server to load the bundle.
    """

    def __init__(self, address: str, bundle: Path, digest: str, load_seconds: float) -> None:
        self._address, self._opening = address, OpenBundle(bundle.resolve(), digest)
        self._load_seconds = load_seconds
        self._connection: Connection | None = None
        self._lock = Lock()

    def run(self, file: str, inputs: dict[str, Array]) -> dict[str, Floats]:
        """Runs a graph and returns its outputs. Connects again to a server that was replaced.

        Raises RuntimeError if the run fails, ModelUnavailable if the server does not reply.
        """
        with self._lock:
            try:
                return self._run(RunGraph(file, inputs))
            except (OSError, EOFError, AuthenticationError):
                self._disconnect()
                detail = "the process that holds the graphs has ended; another is being started"
                raise ModelUnavailable(detail) from None
            except BundleError as error:  # a new server has another bundle at that path, or none
                raise ModelUnavailable(str(error)) from None

    def open(self) -> None:
        """Connects. Raises BundleError if the server does not reply or lacks the bundle."""
        with self._lock:
            try:
                self._connected()
            except (OSError, EOFError, AuthenticationError) as error:
                raise BundleError(f"the process of the graphs does not answer: {error}") from None

    def _run(self, message: RunGraph) -> dict[str, Floats]:
        connection = self._connected()
        connection.send(message)
        reply: dict[str, Floats] | GraphFault = receive(connection, RUN_SECONDS)
        if isinstance(reply, GraphFault):
            raise RuntimeError(reply.text)  # noqa: TRY004 - no fault of a caller
        return reply

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = _connect(self._address)
            try:
                connection.send(self._opening)
                reply: GraphFault | None = receive(connection, self._load_seconds)
            except (OSError, EOFError):
                connection.close()
                raise
            if reply is not None:
                connection.close()
                raise BundleError(reply.text)
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(frozen=True)
class RemoteGraph:
    """A graph in the graph server. Runs as a Session does."""

    client: GraphClient
    graph: Graph

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Floats]:
        feeds = {tensor.name: inputs[tensor.name] for tensor in self.graph.inputs}
        return self.client.run(self.graph.file, feeds)


def open_remote_graphs(
    address: str, load_seconds: float, bundle: Path, digest: str
) -> Callable[[Graph], RemoteGraph]:
    """Connects to the graph server for one bundle and returns a constructor of its graphs.

    Raises BundleError as `GraphClient.open` does.
    """
    client = GraphClient(address, bundle, digest, load_seconds)
    client.open()
    return partial(RemoteGraph, client)


def _connect(address: str) -> Connection:
    """Connects and authenticates. Raises OSError, EOFError and AuthenticationError."""
    with socket.socket(socket.AF_UNIX) as plain:
        limit_message_time(plain)
        plain.connect(address)
        connection = Connection(plain.detach())
    try:
        answer_challenge(connection, current_process().authkey)
        deliver_challenge(connection, current_process().authkey)
    except BaseException:
        connection.close()
        raise
    return connection


def limit_message_time(plain: socket.socket) -> None:
    """Makes a socket raise BlockingIOError if a message stalls for MESSAGE_SECONDS."""
    seconds = struct.pack("ll", int(MESSAGE_SECONDS), 0)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        plain.setsockopt(socket.SOL_SOCKET, option, seconds)


def shut_down(connection: Connection) -> None:
    """Ends the connection for both sides. The thread that receives from it closes it."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as plain:
        plain.shutdown(socket.SHUT_RDWR)


def receive(connection: Connection, seconds: float | None) -> Any:
    """Returns the next message; None waits without limit.

    Raises EOFError and OSError; the latter includes TimeoutError.
    """
    if not connection.poll(seconds):
        raise TimeoutError(f"no answer within {seconds:g} s")
    return connection.recv()
