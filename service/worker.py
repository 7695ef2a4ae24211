"""One of the processes that serve: it verifies a bundle, serves it, and takes another when told."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Literal

import uvicorn
from structlog.typing import FilteringBoundLogger

from schemas.manifest import BundleError
from service import shared_graphs
from service.app import create_app
from service.bundle import Bundle
from service.engine import Engine
from service.log import FromLibraries, make_log, quote_nothing_uncaught
from service.metrics import Metrics
from service.settings import Settings
from service.switch import Switch

if TYPE_CHECKING:
    from service.traces import Traces

FLUSH_SECONDS = 2.0  # that a worker's last traces have, once all is answered
_TICK = 0.05  # seconds
# A connection on which nothing is asked is kept for longer than proxies keep theirs (nginx and
# cloud load balancers: 60 seconds): whoever closes first may miss a request that is on its way.
_KEEP_ALIVE = 75  # seconds
_LAST_IDLE = 5.0  # and so long once no more callers are let in
# A worker lets in an eighth as many as it has at once, or a thousand who come would wait. Then it
# pauses, for each that it has and at most so long: who comes meanwhile is for one that has fewer.
_AT_ONCE, _PAUSE, _LONGEST_PAUSE = 8, 0.0002, 0.005


@dataclass(frozen=True)
class Order:
    """What the supervisor wants: a bundle loaded beside the one that is served; that one served, or
    dropped.

    `digest`: the bundle that it must be, if that is known.
    """

    what: Literal["load", "serve", "drop"]
    bundle: Path = Path()
    digest: str | None = None


@dataclass(frozen=True)
class Told:
    """What a worker has loaded or serves; or the fault that it has with it."""

    model: str = ""
    digest: str = ""
    fault: str = ""


def work(
    settings: Settings,
    first: Order,
    sockets: Sequence[socket.socket],
    supervisor: Connection,
    graphs: str | None,
) -> None:
    """Serves until SIGTERM, or until nobody is there to send it.

    `graphs`: where the process is that holds them, if there is one.
    """
    # Control and C is for the supervisor.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log = make_log(settings.log_level, sys.stderr)
    logging.basicConfig(handlers=[FromLibraries(log)], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    quote_nothing_uncaught(log)
    worker = _Worker(settings, log, graphs)
    told = worker.load(first)
    if told.fault:
        supervisor.send(told)
        return

    def listen() -> None:
        supervisor.send(told)
        Thread(target=worker.obey, args=(supervisor,), daemon=True).start()

    worker.server(listen).run(list(sockets))


class _Worker:
    def __init__(self, settings: Settings, log: FilteringBoundLogger, graphs: str | None) -> None:
        self._settings, self._log = settings, log
        self._elsewhere = None if graphs is None else partial(shared_graphs.opened, graphs)
        self._counted = Metrics()
        self._traces = _traces(settings, log)
        self._switch = Switch()
        self._loop: asyncio.AbstractEventLoop | None = None

    def load(self, order: Order) -> Told:
        """Verifies a bundle and replays its golden answers, which also warms it up."""
        settings = self._settings
        try:
            bundle = Bundle.load(
                order.bundle, settings.device, settings.threads or 1, self._elsewhere
            )
            if order.digest not in (None, bundle.digest):
                return Told(fault=f"{order.bundle} is not the bundle that is served any more")
            engine = Engine(bundle)
            engine.replay_golden()
        except BundleError as error:
            return Told(fault=str(error))
        self._switch.next = create_app(engine, settings, self._log, self._counted, self._traces)
        facts = bundle.manifest
        model = f"{facts.name} {facts.version} ({len(facts.tasks)} tasks, {bundle.device})"
        return Told(model, bundle.digest)

    async def serve(self) -> None:
        """What was loaded is served from now on."""
        self._loop = asyncio.get_running_loop()
        await self._switch.swap()

    async def close(self) -> None:
        """Once all is answered."""
        await self._switch.close()
        if self._traces is not None:
            self._traces.close(FLUSH_SECONDS)

    def obey(self, supervisor: Connection) -> None:
        """In a thread. A worker whose supervisor was killed would hold the port for ever."""
        while True:
            try:
                order: Order = supervisor.recv()
            except (EOFError, OSError):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            supervisor.send(self._obeyed(order))

    def _obeyed(self, order: Order) -> Told:
        if order.what == "load":
            return self.load(order)
        if order.what == "drop":
            self._switch.next = None
        elif self._loop is not None:
            asyncio.run_coroutine_threadsafe(self.serve(), self._loop).result()
        return Told()

    def server(self, listens: Callable[[], None]) -> uvicorn.Server:
        config = uvicorn.Config(
            self._switch,
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,  # nothing depends on who the caller is
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=self._settings.shutdown_seconds,
        )
        return _Server(config, self, self._switch, self._settings.drain_seconds, listens)


def _traces(settings: Settings, log: FilteringBoundLogger) -> "Traces | None":
    if settings.otlp_endpoint is None:
        return None
    from service.traces import Traces  # noqa: PLC0415 - a quarter second, for those who want them

    return Traces(settings.otlp_endpoint, settings.trace_ratio, log)


class _Server(uvicorn.Server):
    """A server that is emptied before it ends."""

    def __init__(
        self,
        config: uvicorn.Config,
        worker: _Worker,
        switch: Switch,
        drain_seconds: float,
        listens: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._worker, self._switch = worker, switch
        self._drain_seconds, self._listens = drain_seconds, listens
        self._made: set[asyncio.Task[object]] = set()  # connections that are let in now
        self._closing = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._worker.serve()
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
        await self._worker.close()

    async def _emptied(self, seconds: float) -> None:
        """No connection is open any more, or so much time is over."""
        now = asyncio.get_running_loop().time
        end = now() + seconds
        while self.server_state.connections and now() < end:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(_TICK)
