"""The HTTP server of one worker: accepts connections, limits their number, drains on shutdown."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import uvicorn
from starlette.types import Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from service.http import problems
from service.http.allowed_hosts import AllowedHosts
from service.http.server.connection import Connection
from service.http.server.connection_limit import RESOURCE_ERRORS, connection_limit
from service.http.server.cycle import raw_response
from service.http.server.refused_connections import RefusedConnections
from service.settings import Settings
from service.telemetry.metrics import Metrics

_TICK = 0.05  # seconds between two polls
# Idle connections stay open for longer than proxies keep theirs (nginx and cloud load balancers: 60
# seconds). The side that closes first can lose a request that is in transit.
_KEEP_ALIVE = 75  # seconds
_DRAIN_IDLE_SECONDS = 5.0  # the same, once no more connections are accepted
# A worker accepts a batch of connections, an eighth of those it has, and then pauses in proportion
# to those it has. So a worker with fewer connections accepts more of the new ones.
_BATCH_DIVISOR, _PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 8, 0.0002, 0.005
_CHECK_SECONDS = 0.25  # interval between checks of the connections' time limits
_CLOSED_DIVISOR = 16  # a sixteenth of the idle connections is closed for new ones


class Served(Protocol):
    """The lifecycle of the app. `serve` runs in the event loop; `close` after the last response."""

    async def serve(self) -> None: ...

    async def close(self) -> None: ...


class DrainingApp(Protocol):
    """An ASGI app. Once `draining` is set, its answers ask clients to close the connection."""

    draining: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class HttpServer(uvicorn.Server):
    """The server of one worker. It closes its connections before it ends.

    `on_listening` is called once the server accepts connections.
    """

    def __init__(
        self,
        served: Served,
        app: DrainingApp,
        settings: Settings,
        log: FilteringBoundLogger,
        metrics: Metrics,
        on_listening: Callable[[], None],
    ) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,  # nothing depends on the address of the client
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
        super().__init__(config)
        self._served, self._app, self._settings = served, app, settings
        self._on_listening = on_listening
        self._hosts = AllowedHosts(settings.allowed_hosts, settings.host)
        self._refused = RefusedConnections(log, metrics)
        self._limit, self._reserve = connection_limit(settings.max_connections, log)
        # Connections whose transport is being made.
        self._pending: dict[asyncio.Task[object], Connection] = {}
        self._closing = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._served.serve()
        await super().startup([])
        self._checking = asyncio.create_task(self._check_connections())
        for listening in sockets or []:
            listening.setblocking(False)
            self._start_accepting(listening)
        self._on_listening()

    # asyncio's own server accepts all waiting connections at once: one worker could get sixteen
    # connections and another none.

    def _start_accepting(self, listening: socket.socket) -> None:
        if not self._closing:
            asyncio.get_running_loop().add_reader(listening, self._accept_batch, listening)

    def _accept_batch(self, listening: socket.socket) -> None:
        loop, count = asyncio.get_running_loop(), len(self.server_state.connections)
        try:
            for _ in range(1 + count // _BATCH_DIVISOR):
                self._accept(listening)
        except BlockingIOError:  # no connection waits, or another worker has accepted it
            return
        except OSError as error:
            pause = _TICK
            if error.errno in RESOURCE_ERRORS:
                self._refused.add("too_many_open_files")
                self._make_room(1)
        else:
            pause = min(_PAUSE_SECONDS * count, _MAX_PAUSE_SECONDS)
        loop.remove_reader(listening)
        loop.call_later(pause, self._start_accepting, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Raises BlockingIOError if no connection waits, OSError if too many files are open."""
        accepted, _ = listening.accept()
        excess = self._open - self._limit
        if excess >= 0:
            self._make_room(excess + 1)
            excess = self._open - self._limit
        accepted.setblocking(False)
        if excess >= self._reserve:
            self._refuse(accepted)
            return
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(
            self.config,
            self.server_state,
            self.lifespan.state,
            settings=self._settings,
            hosts=self._hosts,
            refused=self._refused,
            over_limit=excess >= 0,
        )
        loop = asyncio.get_running_loop()
        connecting: asyncio.Task[object] = loop.create_task(
            loop.connect_accepted_socket(lambda: connection, accepted)
        )
        self._pending[connecting] = connection
        connecting.add_done_callback(self._pending.pop)

    def _refuse(self, accepted: socket.socket) -> None:
        self._refused.add("too_many_connections")
        error = problems.too_many_connections()
        with accepted, suppress(OSError):
            accepted.send(raw_response(error, self.server_state.default_headers, b"GET"))

    @property
    def _open(self) -> int:
        # A connection joins `connections` before its task is done. Count it once.
        pending = sum(connection.transport is None for connection in self._pending.values())
        return len(self.server_state.connections) + pending

    def _make_room(self, minimum: int) -> None:
        """Closes idle connections, in the order of their deadlines."""
        now = asyncio.get_running_loop().time()
        idle = [c for c in self._connections() if c.is_replaceable(now)]
        idle.sort(key=lambda connection: connection.deadline)
        for connection in idle[: max(minimum, len(idle) // _CLOSED_DIVISOR)]:
            self._refused.add("too_many_connections")
            connection.drop()

    def _connections(self) -> list[Connection]:
        return [c for c in self.server_state.connections if isinstance(c, Connection)]

    async def _check_connections(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            for connection in self._connections():
                connection.check(now())
            self._refused.log_due()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Reports not ready and still serves for M3H_DRAIN_SECONDS, then closes all connections."""
        self._app.draining = True
        # Wait even if no connection is open: a load balancer may still send new ones.
        await asyncio.sleep(self._settings.drain_seconds)
        self._closing = True
        for listening in sockets or []:
            asyncio.get_running_loop().remove_reader(listening)
            listening.listen(0)  # the queue takes no more connections; accept those in it
            with suppress(OSError):
                while True:
                    self._accept(listening)
            listening.close()
        await asyncio.gather(*self._pending, return_exceptions=True)
        # Requests are answered. Idle connections may stay open for a limited time.
        await self._wait_until_empty(_DRAIN_IDLE_SECONDS)
        await super().shutdown(sockets)
        self._checking.cancel()
        await self._served.close()

    async def _wait_until_empty(self, seconds: float) -> None:
        """Returns when no connection is open, or after `seconds`."""
        now = asyncio.get_running_loop().time
        end = now() + seconds
        while self.server_state.connections and now() < end:  # noqa: ASYNC110 - uvicorn has no event
            await asyncio.sleep(_TICK)
