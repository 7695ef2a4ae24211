"""The HTTP server of one worker: it accepts connections, bounds them, and drains before it ends."""

import asyncio
import errno
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import uvicorn
from starlette.types import Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from service.http import problems
from service.http.allowed_hosts import AllowedHosts
from service.http.server.connection import Connection, refusal
from service.http.server.refused_connections import Refusals
from service.settings import Settings
from service.telemetry.metrics import Metrics

_TICK = 0.05  # seconds
# A connection on which nothing is asked is kept for longer than proxies keep theirs (nginx and
# cloud load balancers: 60 seconds): whoever closes first may miss a request that is on its way.
_KEEP_ALIVE = 75  # seconds
_LAST_IDLE = 5.0  # and so long once no more callers are let in
# A worker lets in an eighth as many as it has at once, or a thousand who come would wait. Then it
# pauses, for each that it has and at most so long: who comes meanwhile is for one that has fewer.
_AT_ONCE, _PAUSE, _LONGEST_PAUSE = 8, 0.0002, 0.005
_CHECK_SECONDS = 0.25  # from one look at the time limits of all connections to the next
# Connections beyond the limit, of which only health probes are answered; and files that the process
# may open besides connections. Each has a quarter at most where files are few.
_SPARE = 32
_REPLACED = 16  # one in so many connections that wait is closed to make room
_NO_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Served(Protocol):
    """What is served. It starts once the event loop runs and closes when all is answered."""

    async def serve(self) -> None: ...

    async def close(self) -> None: ...


class DrainingApp(Protocol):
    """An ASGI app. Once `draining` is set, its answers ask clients to close the connection."""

    draining: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class HttpServer(uvicorn.Server):
    """The server of one worker. It closes its connections before it ends.

    `listens` is called once connections are accepted.
    """

    def __init__(
        self,
        served: Served,
        app: DrainingApp,
        settings: Settings,
        log: FilteringBoundLogger,
        metrics: Metrics,
        listens: Callable[[], None],
    ) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,  # nothing depends on who the caller is
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
        super().__init__(config)
        self._served, self._app, self._settings = served, app, settings
        self._listens = listens
        self._hosts = AllowedHosts(settings.allowed_hosts, settings.host)
        self._refusals = Refusals(log, metrics)
        self._limit, self._reserve = most_connections(settings.max_connections, log)
        # Connections that are let in now.
        self._made: dict[asyncio.Task[object], Connection] = {}
        self._closing = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._served.serve()
        await super().startup([])
        self._checking = asyncio.create_task(self._check_connections())
        for one in sockets or []:
            one.setblocking(False)
            self._open_door(one)
        self._listens()

    # An event loop's own server lets in all who wait: one worker would have sixteen connections and
    # the other none.

    def _open_door(self, listening: socket.socket) -> None:
        if not self._closing:
            asyncio.get_running_loop().add_reader(listening, self._one_waits, listening)

    def _one_waits(self, listening: socket.socket) -> None:
        loop, count = asyncio.get_running_loop(), len(self.server_state.connections)
        try:
            for _ in range(1 + count // _AT_ONCE):
                self._let_in(listening)
        except BlockingIOError:  # no more are there, or another worker was faster
            return
        except OSError as error:
            pause = _TICK
            if error.errno in _NO_FILES:
                self._refusals.add("too_many_open_files")
                self._make_room(1)
        else:
            pause = min(_PAUSE * count, _LONGEST_PAUSE)
        loop.remove_reader(listening)
        loop.call_later(pause, self._open_door, listening)

    def _let_in(self, listening: socket.socket) -> None:
        """Raises BlockingIOError if nobody waits, OSError if there are too many open files."""
        accepted, _ = listening.accept()
        beyond = self._open - self._limit
        if beyond >= 0:
            self._make_room(beyond + 1)
            beyond = self._open - self._limit
        accepted.setblocking(False)
        if beyond >= self._reserve:
            self._turn_away(accepted)
            return
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(
            self.config,
            self.server_state,
            self.lifespan.state,
            settings=self._settings,
            hosts=self._hosts,
            refusals=self._refusals,
            over_limit=beyond >= 0,
        )
        loop = asyncio.get_running_loop()
        made: asyncio.Task[object] = loop.create_task(
            loop.connect_accepted_socket(lambda: connection, accepted)
        )
        self._made[made] = connection
        made.add_done_callback(self._made.pop)

    def _turn_away(self, accepted: socket.socket) -> None:
        self._refusals.add("too_many_connections")
        refused = problems.too_many_connections()
        with accepted, suppress(OSError):
            accepted.send(refusal(refused, self.server_state.default_headers, b"GET"))

    @property
    def _open(self) -> int:
        # One that is being made joins `connections` before its task is done: it counts once.
        made = sum(one.transport is None for one in self._made.values())
        return len(self.server_state.connections) + made

    def _make_room(self, least: int) -> None:
        """Closes connections on which nothing is asked, those first whose time is over first."""
        now = asyncio.get_running_loop().time()
        waiting = [one for one in self._connections() if one.is_replaceable(now)]
        waiting.sort(key=lambda one: one.ends_at)
        for one in waiting[: max(least, len(waiting) // _REPLACED)]:
            self._refusals.add("too_many_connections")
            one.drop()

    def _connections(self) -> list[Connection]:
        return [one for one in self.server_state.connections if isinstance(one, Connection)]

    async def _check_connections(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            for one in self._connections():
                one.check(now())
            self._refusals.log_waiting()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Not ready, and still answering, until callers have gone elsewhere; then the end."""
        self._app.draining = True
        # All of it, also while nobody is in: who still thinks that it is ready comes anew.
        await asyncio.sleep(self._settings.drain_seconds)
        self._closing = True
        for one in sockets or []:
            asyncio.get_running_loop().remove_reader(one)
            one.listen(0)  # no more come than are let in now
            with suppress(OSError):
                while True:
                    self._let_in(one)
            one.close()
        await asyncio.gather(*self._made, return_exceptions=True)
        # Who is in is answered. A connection on which nothing is asked has its time limit.
        await self._emptied(_LAST_IDLE)
        await super().shutdown(sockets)
        self._checking.cancel()
        await self._served.close()

    async def _emptied(self, seconds: float) -> None:
        """No connection is open any more, or so much time is over."""
        now = asyncio.get_running_loop().time
        end = now() + seconds
        while self.server_state.connections and now() < end:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(_TICK)


def most_connections(wanted: int, log: FilteringBoundLogger) -> tuple[int, int]:
    """How many connections there may be, and how many more for health probes.

    `wanted`, or as many as the process may open files for. Raises its soft limit to the hard one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return wanted, _SPARE
    free = soft - len(list(Path("/dev/fd").iterdir()))
    spare = max(1, min(_SPARE, free // 4))
    possible = max(1, free - 2 * spare)
    if possible < wanted:
        log.warning("fewer connections than M3H_MAX_CONNECTIONS", connections=possible, files=soft)
    return min(wanted, possible), spare
