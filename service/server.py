"""The HTTP server of one worker: it accepts connections and drains them before it ends."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import uvicorn

from service.settings import Settings
from service.switch import Switch

_TICK = 0.05  # seconds
# A connection on which nothing is asked is kept for longer than proxies keep theirs (nginx and
# cloud load balancers: 60 seconds): whoever closes first may miss a request that is on its way.
_KEEP_ALIVE = 75  # seconds
_LAST_IDLE = 5.0  # and so long once no more callers are let in
# A worker lets in an eighth as many as it has at once, or a thousand who come would wait. Then it
# pauses, for each that it has and at most so long: who comes meanwhile is for one that has fewer.
_AT_ONCE, _PAUSE, _LONGEST_PAUSE = 8, 0.0002, 0.005


class Served(Protocol):
    """What is served. It starts once the event loop runs and closes when all is answered."""

    async def serve(self) -> None: ...

    async def close(self) -> None: ...


class HttpServer(uvicorn.Server):
    """The server of one worker. It closes its connections before it ends.

    `listens` is called once connections are accepted.
    """

    def __init__(
        self, served: Served, switch: Switch, settings: Settings, listens: Callable[[], None]
    ) -> None:
        config = uvicorn.Config(
            switch,
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,  # nothing depends on who the caller is
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
        super().__init__(config)
        self._served, self._switch = served, switch
        self._drain_seconds, self._listens = settings.drain_seconds, listens
        self._made: set[asyncio.Task[object]] = set()  # connections that are let in now
        self._closing = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._served.serve()
        await super().startup([])
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
        except OSError:  # too many open files
            pause = _TICK
        else:
            pause = min(_PAUSE * count, _LONGEST_PAUSE)
        loop.remove_reader(listening)
        loop.call_later(pause, self._open_door, listening)

    def _let_in(self, listening: socket.socket) -> None:
        """Raises BlockingIOError if nobody waits, OSError if there are too many open files."""
        connection, _ = listening.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        made: asyncio.Task[object] = loop.create_task(
            loop.connect_accepted_socket(self._protocol, connection)
        )
        self._made.add(made)
        made.add_done_callback(self._made.discard)

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(
            config=self.config,  # type: ignore[call-arg]  # as uvicorn has it
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        return made

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Not ready, and still answering, until callers have gone elsewhere; then the end."""
        self._switch.draining = True
        # All of it, also while nobody is in: who still thinks that it is ready comes anew.
        await asyncio.sleep(self._drain_seconds)
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
        await self._served.close()

    async def _emptied(self, seconds: float) -> None:
        """No connection is open any more, or so much time is over."""
        now = asyncio.get_running_loop().time
        end = now() + seconds
        while self.server_state.connections and now() < end:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(_TICK)
