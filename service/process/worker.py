"""A worker process: verifies a bundle, serves it, and executes the supervisor's commands."""

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
from service.http.server.mllp import MllpServer
from service.http.server.server import HttpServer
from service.prediction.golden import check_golden_answers
from service.process.child_process import ignore_terminal_signals
from service.process.hot_reload import MountedApp, freeze_gc
from service.process.messages import WorkerCommand, WorkerReply
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.runtime.graph_client import open_remote_graphs
from service.security.used_tokens import UsedTokensInMemory
from service.settings import Settings
from service.telemetry.logging import log_uncaught_in, make_log, run_child, stack_frames
from service.telemetry.metrics import Metrics
from service.telemetry.shared_counters import SharedCounters

if TYPE_CHECKING:
    from service.telemetry.otlp import TraceExporter

FLUSH_SECONDS = 2.0  # time limit to send the last traces, after the last response


def run_worker(
    settings: Settings,
    sockets: Sequence[socket.socket],
    graphs: str | None,
    counters: tuple[SharedCounters, int] | None,
    supervisor: Connection,
) -> None:
    """The main function of a worker process.

    Executes commands until "serve", then serves until SIGTERM or until the supervisor has ended.

    `sockets`: that of HTTP, and that of MLLP if there is one. `graphs`: address of the graph
    server, if the workers share one. `counters`: the counters of all workers and the number of this
    worker.
    """
    ignore_terminal_signals()
    log = make_log(settings.log_level, sys.stderr)

    def main() -> None:
        worker = _Worker(settings, log, graphs, Metrics(*(counters or ())))
        if worker.load_until_serve(supervisor):
            listening, *mllp = sockets
            worker.mllp = [MllpServer(worker.mounted, each, settings, log) for each in mllp]
            worker.server(partial(worker.start_commands, supervisor)).run([listening])

    run_child(log, main)


class _Worker:
    def __init__(
        self,
        settings: Settings,
        log: FilteringBoundLogger,
        graphs: str | None,
        metrics: Metrics,
    ) -> None:
        self._settings, self._log, self._metrics = settings, log, metrics
        self._open_graphs = None
        if graphs is not None:
            self._open_graphs = partial(open_remote_graphs, graphs, settings.load_seconds)
        self._traces = _trace_exporter(settings, log)
        self._used_tokens = UsedTokensInMemory()
        self.mounted = MountedApp()
        self.mllp: list[MllpServer] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_serving = False
        self._loaded = WorkerReply(fault="no bundle is loaded", retry=True)

    def load_until_serve(self, supervisor: Connection) -> bool:
        """Executes commands until "serve". Returns False if the supervisor has ended."""
        try:
            while (command := supervisor.recv()).action != "serve":
                supervisor.send(self._execute(command))
        except (EOFError, OSError):
            return False
        return True

    def start_commands(self, supervisor: Connection) -> None:
        """Reports that this worker serves, then executes commands in a thread."""
        supervisor.send(self._loaded)
        thread = Thread(target=self._run_commands, args=(supervisor,), name="m3h-commands")
        thread.daemon = True
        thread.start()

    def _load(self, command: WorkerCommand) -> WorkerReply:
        """Loads a bundle, verifies it and replays its golden requests, which also warms it up.

        The served bundle is not affected, whatever is wrong with the new one.
        """
        settings = self._settings
        try:
            bundle = Bundle.load(
                command.bundle, settings.device, settings.threads or 1, self._open_graphs
            )
            if command.digest not in (None, bundle.digest):
                return WorkerReply(fault=f"{command.bundle} has changed since it was first loaded")
            engine = Engine(bundle)
            engine.replay_golden()
            check_golden_answers(engine, self._metrics)
            app = create_app(
                engine, settings, self._log, self._metrics, self._traces, self._used_tokens
            )
        except BundleError as error:
            return WorkerReply(fault=single_line(str(error)))
        except Exception as error:  # noqa: BLE001 - no bundle may end the worker
            name = type(error).__name__
            self._log.error("bundle does not load", error=name, at=stack_frames(error))
            return WorkerReply(fault=single_line(f"{command.bundle} does not load: {name}"))
        self.mounted.next = app
        manifest = bundle.manifest
        tasks = len(manifest.tasks)
        model = f"{manifest.name} {manifest.version} ({tasks} tasks, {bundle.device})"
        self._loaded = WorkerReply(model, bundle.digest)
        return self._loaded

    async def serve(self) -> None:
        """Serves the loaded bundle from now on."""
        self._loop = asyncio.get_running_loop()
        log_uncaught_in(self._loop, self._log)
        await self.mounted.swap()
        if not self._is_serving:
            self._is_serving = True
            for server in self.mllp:
                await server.start()

    async def close(self) -> None:
        """Closes the app after its last response, and sends the last traces."""
        for server in self.mllp:
            await server.close()
        await self.mounted.close()
        if self._traces is not None:
            self._traces.close(FLUSH_SECONDS)

    def _run_commands(self, supervisor: Connection) -> None:
        """Executes commands. Ends this process if the supervisor has ended, to free the port."""
        try:
            while True:
                supervisor.send(self._execute(supervisor.recv()))
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGTERM)

    def _execute(self, command: WorkerCommand) -> WorkerReply:
        if command.action == "load":
            return self._load(command)
        if command.action == "drop":
            if self.mounted.next is not None:
                self.mounted.next = None
                freeze_gc()  # an app has reference cycles, so its graphs live until a collection
        elif self._loop is not None:
            asyncio.run_coroutine_threadsafe(self.serve(), self._loop).result()
        return WorkerReply()

    def server(self, on_listening: Callable[[], None]) -> HttpServer:
        return HttpServer(
            self, self.mounted, self._settings, self._log, self._metrics, on_listening
        )


def _trace_exporter(settings: Settings, log: FilteringBoundLogger) -> "TraceExporter | None":
    if settings.otlp_endpoint is None:
        return None
    from service.telemetry.otlp import TraceExporter  # noqa: PLC0415 - the import takes 0.25 s

    return TraceExporter(settings.otlp_endpoint, settings.trace_ratio, log)
