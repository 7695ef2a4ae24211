"""As many workers as there are processors, behind one socket.

Measured: half of a request's work is Python, and one process does one thing of that at a time; with
a process for each processor, all is done side by side, and no request travels between processes.
On a CPU the weights of each are its own (20 MB); on a GPU one process has them for all.
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from structlog.typing import FilteringBoundLogger

from service.admin import create_admin
from service.bundle import chosen_device
from service.metrics import COUNTED_IN
from service.settings import Settings, available_cpus
from service.shared_graphs import hold
from service.sockets import ListenError, listen, listen_for_admin
from service.worker import FLUSH_SECONDS, Order, Told, work

# Beyond those for draining and shutting down, before a process is killed.
_SPARE_SECONDS = 5.0 + FLUSH_SECONDS
_AGAIN_SECONDS = 1.0  # before a process that died is started again
_LOOK_SECONDS = 0.1  # from one look to the next whether the process of the graphs is there


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    orders: Connection

    async def told(self) -> Told:
        """What it says next."""
        try:
            told: Told = await asyncio.to_thread(self.orders.recv)
        except (EOFError, OSError):
            return Told(fault="a worker ended before it served")
        return told

    async def obey(self, order: Order) -> Told:
        try:
            self.orders.send(order)
        except OSError:
            return Told(fault="a worker has just ended; try again")
        return await self.told()


class Supervisor:
    """Starts the workers, starts those anew that die, changes their bundle, ends them together."""

    def __init__(self, settings: Settings, log: FilteringBoundLogger) -> None:
        """Raises BundleError for a device that was asked for and is not there."""
        cpus, device = available_cpus(), chosen_device(settings.device)
        self._count = settings.workers or cpus
        self._shared = settings.graphs == "shared" or (settings.graphs, device) == ("auto", "cuda")
        threads = settings.threads or max(1, cpus // (1 if self._shared else self._count))
        self._settings = settings.model_copy(update={"threads": threads})
        self._log = log
        self._context = get_context("spawn")
        self._stop = asyncio.Event()
        self._changing = asyncio.Lock()
        self._workers: set[_Worker] = set()
        self._served = Order("load", settings.bundle)
        self._address: str | None = None  # of the process of the graphs

    async def run(self, announce: Callable[[str, int], None]) -> str | None:
        """Serves until SIGTERM or SIGINT. Gives what was wrong if it could not begin.

        `announce` is called once all listen, with what is served and on which port.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        settings = self._settings
        try:
            listening = listen(settings)
            admin = listen_for_admin(settings, self._log)
        except ListenError as error:
            return str(error)
        with listening, admin, TemporaryDirectory(prefix="m3h-") as counted:
            os.environ[COUNTED_IN] = counted
            async with self._graphs(Path(counted)), asyncio.TaskGroup() as group:
                begun: list[asyncio.Future[Told]] = []
                for _ in range(self._count):
                    begun.append(loop.create_future())
                    group.create_task(self._keep(listening, begun[-1], Path(counted)))
                for told in await asyncio.gather(*begun):
                    if told.fault:
                        self._stop.set()
                        return told.fault
                self._served = replace(self._served, digest=told.digest)
                if not self._stop.is_set():
                    group.create_task(self._administer(admin))
                    self._log.info("admin", port=admin.getsockname()[1])
                    announce(told.model, listening.getsockname()[1])
        return None

    @asynccontextmanager
    async def _graphs(self, folder: Path) -> AsyncIterator[None]:
        """The process of the graphs, if they are shared, for longer than the workers need it."""
        if not self._shared:
            yield
            return
        listens = asyncio.Event()
        self._address = str(folder / "graphs")
        holding = asyncio.create_task(self._hold(self._address, listens))
        await listens.wait()
        yield
        holding.cancel()
        with suppress(asyncio.CancelledError):
            await holding

    async def _hold(self, address: str, listens: asyncio.Event) -> None:
        """The process of the graphs, and another whenever it dies."""
        while True:
            ours, its = self._context.Pipe()
            with ours:  # it ends when this is closed
                process = self._context.Process(
                    target=hold,
                    args=(address, self._settings, its),
                    name="m3h-graphs",
                    daemon=True,
                )
                process.start()
                its.close()
                with suppress(EOFError, OSError):
                    await asyncio.to_thread(ours.recv)
                    listens.set()
                while process.is_alive():  # noqa: ASYNC110 - a thread would hold the end up
                    await asyncio.sleep(_LOOK_SECONDS)
            self._log.error("graphs died", pid=process.pid, exit=process.exitcode)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def reload(self, bundle: Path | None) -> Told:
        """Has all workers load a bundle beside the one that is served, then serve it.

        With a fault, of any worker, all go on with the one that they have.
        """
        async with self._changing:
            order = Order("load", bundle or self._served.bundle)
            found = await self._all_obey(order) or [Told(fault="no worker is there; try again")]
            told = next((told for told in found if told.fault), found[0])
            if len({told.digest for told in found}) > 1 and not told.fault:
                told = Told(fault=f"{order.bundle} changed while it was read; try again")
            if told.fault:
                await self._all_obey(Order("drop"))
                self._log.error("bundle refused", fault=told.fault)
                return told
            # Whatever lies in the folder later: a worker that is started anew serves this one.
            self._served = replace(order, digest=told.digest)
            await self._all_obey(Order("serve"))
            self._log.info("bundle served", model=told.model, digest=told.digest)
            return told

    async def _all_obey(self, order: Order) -> list[Told]:
        return await asyncio.gather(*(worker.obey(order) for worker in self._workers))

    async def _administer(self, listening: socket.socket) -> None:
        config = uvicorn.Config(
            create_admin(self.reload), log_config=None, access_log=False, server_header=False
        )
        server = _Quiet(config)
        serving = asyncio.create_task(server.serve([listening]))
        await self._stop.wait()
        server.should_exit = True
        await serving

    async def _keep(
        self, listening: socket.socket, begun: "asyncio.Future[Told]", counted: Path
    ) -> None:
        """One worker, and another whenever it dies, until all are to stop."""
        stopped = asyncio.create_task(self._stop.wait())
        # What is still open here when the workers close it would let callers in to nobody.
        stopped.add_done_callback(lambda _: listening.close())
        while not self._stop.is_set():
            worker = await self._started(listening)
            ended = asyncio.create_task(asyncio.to_thread(worker.process.join))
            telling = asyncio.create_task(worker.told())
            await asyncio.wait({telling, stopped}, return_when=asyncio.FIRST_COMPLETED)
            told = telling.result() if telling.done() else Told()
            if not begun.done():
                begun.set_result(told)
                if told.fault:
                    await self._stop.wait()
            elif told.fault:
                self._log.error("worker does not serve", fault=told.fault)
            if not told.fault:
                self._workers.add(worker)
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            self._workers.discard(worker)
            if self._stop.is_set():
                worker.process.terminate()
                await self._joined(worker.process, ended)
            await telling
            worker.orders.close()
            mark_process_dead(worker.process.pid, str(counted))  # type: ignore[no-untyped-call]  # it has no types
            if not self._stop.is_set():
                exit_code = worker.process.exitcode
                self._log.error("worker died", pid=worker.process.pid, exit=exit_code)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _started(self, listening: socket.socket) -> _Worker:
        async with self._changing:  # so that it begins with what the others serve
            orders, its = self._context.Pipe()
            process = self._context.Process(
                target=work,
                args=(self._settings, self._served, [listening], its, self._address),
                name="m3h-worker",
                daemon=True,
            )
            process.start()
            its.close()
            return _Worker(process, orders)

    async def _joined(self, process: BaseProcess, ended: "asyncio.Task[None]") -> None:
        settings = self._settings
        patience = settings.drain_seconds + settings.shutdown_seconds + _SPARE_SECONDS
        try:
            await asyncio.wait_for(asyncio.shield(ended), patience)
        except TimeoutError:
            self._log.error("worker did not stop", pid=process.pid)
            process.kill()
            await ended


class _Quiet(uvicorn.Server):
    """Leaves signals to the supervisor."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
