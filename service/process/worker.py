"""One of the processes that serve: it verifies a bundle, serves it, and takes another when told."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from threading import Thread
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from schemas.bundle_files import BundleError, single_line
from service.http.app import create_app
from service.http.server.server import HttpServer
from service.prediction.golden import check_golden_answers
from service.process.child_process import ignore_terminal_signals
from service.process.hot_reload import Switch, settle
from service.process.messages import WorkerCommand, WorkerReply
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.runtime.graph_client import open_remote_graphs
from service.settings import Settings
from service.telemetry.logging import log_uncaught_in, make_log, run_child, where
from service.telemetry.metrics import Metrics
from service.telemetry.shared_counters import SharedCounters

if TYPE_CHECKING:
    from service.telemetry.otlp import Traces

FLUSH_SECONDS = 2.0  # that a worker's last traces have, once all is answered


def run_worker(
    settings: Settings,
    sockets: Sequence[socket.socket],
    graphs: str | None,
    counters: tuple[SharedCounters, int] | None,
    supervisor: Connection,
) -> None:
    """Obeys the supervisor; serves from its first "serve" until SIGTERM, or until it is gone.

    `graphs`: the address of the graph server, if there is one. `counters`: those of all workers,
    and which of them this one is.
    """
    ignore_terminal_signals()
    log = make_log(settings.log_level, sys.stderr)

    def main() -> None:
        worker = _Worker(settings, log, graphs, Metrics(*(counters or ())))
        if worker.await_serve(supervisor):
            worker.server(partial(worker.listens, supervisor)).run(list(sockets))

    run_child(log, main)


class _Worker:
    def __init__(
        self,
        settings: Settings,
        log: FilteringBoundLogger,
        graphs: str | None,
        counted: Metrics,
    ) -> None:
        self._settings, self._log = settings, log
        self._elsewhere = None
        if graphs is not None:
            self._elsewhere = partial(open_remote_graphs, graphs, settings.load_seconds)
        self._counted = counted
        self._traces = _traces(settings, log)
        self._switch = Switch()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loaded = WorkerReply(fault="nothing was loaded", retry=True)

    def await_serve(self, supervisor: Connection) -> bool:
        """Loads what the supervisor wants until it wants that served. False if it is gone."""
        try:
            while (command := supervisor.recv()).action != "serve":
                supervisor.send(self._executed(command))
        except (EOFError, OSError):
            return False
        return True

    def listens(self, supervisor: Connection) -> None:
        """It serves: says so, and obeys from now on in a thread."""
        supervisor.send(self._loaded)
        Thread(target=self._obey, args=(supervisor,), name="m3h-commands", daemon=True).start()

    def load(self, command: WorkerCommand) -> WorkerReply:
        """Verifies a bundle and replays its golden answers, which also warms it up.

        Whatever is wrong with it is a fault in one line, and what is served goes on.
        """
        settings = self._settings
        try:
            bundle = Bundle.load(
                command.bundle, settings.device, settings.threads or 1, self._elsewhere
            )
            if command.digest not in (None, bundle.digest):
                fault = f"{command.bundle} is not the bundle that is served any more"
                return WorkerReply(fault=fault)
            engine = Engine(bundle)
            engine.replay_golden()
            check_golden_answers(engine, self._counted)
            app = create_app(engine, settings, self._log, self._counted, self._traces)
        except BundleError as error:
            return WorkerReply(fault=single_line(str(error)))
        except Exception as error:  # noqa: BLE001 - no bundle may end the worker
            name = type(error).__name__
            self._log.error("bundle does not load", error=name, at=where(error))
            return WorkerReply(fault=single_line(f"{command.bundle} does not load: {name}"))
        self._switch.next = app
        facts = bundle.manifest
        model = f"{facts.name} {facts.version} ({len(facts.tasks)} tasks, {bundle.device})"
        self._loaded = WorkerReply(model, bundle.digest)
        return self._loaded

    async def serve(self) -> None:
        """What was loaded is served from now on."""
        self._loop = asyncio.get_running_loop()
        log_uncaught_in(self._loop, self._log)
        await self._switch.swap()

    async def close(self) -> None:
        """Once all is answered."""
        await self._switch.close()
        if self._traces is not None:
            self._traces.close(FLUSH_SECONDS)

    def _obey(self, supervisor: Connection) -> None:
        """A worker whose supervisor was killed would hold the port for ever."""
        try:
            while True:
                supervisor.send(self._executed(supervisor.recv()))
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGTERM)

    def _executed(self, command: WorkerCommand) -> WorkerReply:
        if command.action == "load":
            return self.load(command)
        if command.action == "drop":
            if self._switch.next is not None:
                self._switch.next = None
                settle()  # an app is full of cycles, and holds its graphs until they are collected
        elif self._loop is not None:
            asyncio.run_coroutine_threadsafe(self.serve(), self._loop).result()
        return WorkerReply()

    def server(self, listens: Callable[[], None]) -> HttpServer:
        return HttpServer(self, self._switch, self._settings, self._log, self._counted, listens)


def _traces(settings: Settings, log: FilteringBoundLogger) -> "Traces | None":
    if settings.otlp_endpoint is None:
        return None
    from service.telemetry.otlp import (  # noqa: PLC0415 - a quarter second, for those who want them
        Traces,
    )

    return Traces(settings.otlp_endpoint, settings.trace_ratio, log)
