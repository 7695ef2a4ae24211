"""One of the processes that serve: it verifies a bundle, serves it, and takes another when told."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Literal

from structlog.typing import FilteringBoundLogger

from schemas.manifest import BundleError
from service import shared_graphs
from service.app import create_app
from service.bundle import Bundle
from service.engine import Engine
from service.log import FromLibraries, make_log, quote_nothing_uncaught
from service.metrics import Metrics
from service.server import HttpServer
from service.settings import Settings
from service.switch import Switch

if TYPE_CHECKING:
    from service.traces import Traces

FLUSH_SECONDS = 2.0  # that a worker's last traces have, once all is answered


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

    def server(self, listens: Callable[[], None]) -> HttpServer:
        return HttpServer(self, self._switch, self._settings, self._log, self._counted, listens)


def _traces(settings: Settings, log: FilteringBoundLogger) -> "Traces | None":
    if settings.otlp_endpoint is None:
        return None
    from service.traces import Traces  # noqa: PLC0415 - a quarter second, for those who want them

    return Traces(settings.otlp_endpoint, settings.trace_ratio, log)
