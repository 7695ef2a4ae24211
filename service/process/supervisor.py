"""The main process of `m3h-serve`: it listens, starts the workers and stops them on a signal.

One worker process per CPU, all on one socket: half of the work for a request is Python, which uses
one CPU per process, and no request travels between processes. On a CPU each worker has its own
copy of the weights (20 MB); on a GPU one graph server has them for all workers.
"""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from multiprocessing import get_context

import uvicorn
from structlog.typing import FilteringBoundLogger

from service.http.cds_hooks.authentication import check_key_file
from service.http.server.sockets import ListenError, listen, listen_for_admin, listen_for_mllp
from service.http.server.standby import Standby
from service.process.admin import create_admin
from service.process.graph_supervisor import GraphSupervisor
from service.process.worker_pool import WorkerPool
from service.runtime.bundle import select_device
from service.settings import Settings, available_cpus


class Supervisor:
    """Runs the service: its sockets, its worker pool, its graph server and its admin API."""

    def __init__(self, settings: Settings, log: FilteringBoundLogger) -> None:
        """Raises BundleError if the requested device is not available."""
        cpus, device = available_cpus(), select_device(settings.device)
        self._workers = settings.workers or cpus
        self._shared = settings.graphs == "shared" or (settings.graphs, device) == ("auto", "cuda")
        threads = settings.threads or max(1, cpus // (1 if self._shared else self._workers))
        self._settings = settings.model_copy(update={"threads": threads})
        self._log = log
        self._context = get_context("spawn")
        self._stop = asyncio.Event()

    async def run(self, on_serving: Callable[[str, int], None]) -> str | None:
        """Serves until SIGTERM, SIGINT, SIGHUP or SIGQUIT. Returns the fault if it cannot start.

        `on_serving` is called with the model and the port once all workers serve.
        """
        self._handle_signals()
        settings = self._settings
        if (key_fault := check_key_file(settings)) is not None:
            return key_fault
        try:
            listening = listen(settings)
            admin = listen_for_admin(settings, self._log)
            mllp = listen_for_mllp(settings)
        except ListenError as error:
            return str(error)
        sockets = (listening,) if mllp is None else (listening, mllp)
        with admin, ExitStack() as opened:
            for each in sockets:
                opened.enter_context(each)
            async with self._graph_server() as (address, fault):
                return fault or await self._serve(sockets, admin, address, on_serving)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` ignores SIGHUP
                loop.add_signal_handler(number, self._stop.set)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            loop.add_signal_handler(number, self._log_signal, number.name)

    def _log_signal(self, name: str) -> None:
        self._log.warning("signal ignored", signal=name)

    @asynccontextmanager
    async def _graph_server(self) -> AsyncIterator[tuple[str | None, str]]:
        """Runs the graph server, if the workers share one. Yields its address, and its fault.

        The fault is "" if the server has started.
        """
        if not self._shared:
            yield None, ""
            return
        graphs = GraphSupervisor(self._settings, self._log, self._context)
        async with asyncio.TaskGroup() as group:
            supervising = group.create_task(graphs.supervise_graph_server())
            try:
                yield graphs.address, await graphs.first_fault
            finally:
                supervising.cancel()

    async def _serve(
        self,
        sockets: tuple[socket.socket, ...],
        admin: socket.socket,
        graphs: str | None,
        on_serving: Callable[[str, int], None],
    ) -> str | None:
        """Serves on `sockets`: that of HTTP, and that of MLLP if there is one."""
        listening, *mllp = sockets
        standby = Standby(listening, self._settings.deadline_ms / 1000)
        pool = WorkerPool(
            self._settings, self._workers, graphs, self._log, self._context, standby, self._stop
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._close_when_stopped(sockets, standby))
                for started in asyncio.as_completed(pool.start(group, sockets)):
                    reply = await started
                    if self._stop.is_set():
                        return None
                    if reply.fault:
                        self._stop.set()
                        return reply.fault
                group.create_task(self._serve_admin(admin, pool))
                self._log.info("admin", port=admin.getsockname()[1])
                for each in mllp:
                    self._log.info("mllp", port=each.getsockname()[1])
                on_serving(reply.model, listening.getsockname()[1])
        finally:
            await pool.close()
        return None

    async def _close_when_stopped(
        self, sockets: tuple[socket.socket, ...], standby: Standby
    ) -> None:
        """Closes the sockets on stop. Clients could otherwise connect after the workers' close."""
        await self._stop.wait()
        standby.stop()
        for each in sockets:
            each.close()

    async def _serve_admin(self, listening: socket.socket, pool: WorkerPool) -> None:
        config = uvicorn.Config(
            create_admin(pool.reload, self._settings),
            log_config=None,
            access_log=False,
            server_header=False,
        )
        server = _AdminServer(config)
        serving = asyncio.create_task(server.serve([listening]))
        await self._stop.wait()
        server.should_exit = True
        await serving


class _AdminServer(uvicorn.Server):
    """A server without signal handlers. The supervisor handles signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
