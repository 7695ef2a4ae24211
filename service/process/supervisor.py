"""As many workers as there are processors, behind one socket.

Measured: half of a request's work is Python, and one process does one thing of that at a time; with
a process for each processor, all is done side by side, and no request travels between processes.
On a CPU the weights of each are its own (20 MB); on a GPU one process has them for all.
"""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import uvicorn
from structlog.typing import FilteringBoundLogger

from service.http.server.sockets import ListenError, listen, listen_for_admin
from service.http.server.standby import Standby
from service.process.admin import create_admin
from service.process.child_process import Backoff, ChildEnded, ChildProcess
from service.process.graph_supervisor import GraphSupervisor
from service.process.messages import WorkerCommand, WorkerReply
from service.process.worker import FLUSH_SECONDS, run_worker
from service.runtime.bundle import select_device
from service.settings import Settings, available_cpus
from service.telemetry.shared_counters import SharedCounters

# Beyond those for draining and shutting down, before a process is killed.
_SPARE_SECONDS = 5.0 + FLUSH_SECONDS
_ANSWER_SECONDS = 10.0  # for a worker to serve, or to drop, what it has loaded
_ENDING = WorkerReply(fault="the service is ending", retry=True)


class Supervisor:
    """Starts the workers, starts those anew that die, changes their bundle, ends them together."""

    def __init__(self, settings: Settings, log: FilteringBoundLogger) -> None:
        """Raises BundleError for a device that was asked for and is not there."""
        cpus, device = available_cpus(), select_device(settings.device)
        self._count = settings.workers or cpus
        self._shared = settings.graphs == "shared" or (settings.graphs, device) == ("auto", "cuda")
        threads = settings.threads or max(1, cpus // (1 if self._shared else self._count))
        self._settings = settings.model_copy(update={"threads": threads})
        self._log = log
        self._context = get_context("spawn")
        self._stop = asyncio.Event()
        # Loading takes a processor: more at once would only make each of them late.
        self._loading = asyncio.Semaphore(max(2, cpus))
        # Held while a bundle is changed, and while a worker joins those that serve.
        self._changing = asyncio.Lock()
        self._workers: set[ChildProcess] = set()
        self._children: set[ChildProcess] = set()  # these, and those that do not serve yet
        self._served = WorkerCommand("load", settings.bundle)
        self._reloaded = asyncio.Event()  # replaced when it is set
        self._standby: Standby | None = None
        self._counters = SharedCounters.create(self._count)
        self._graphs: str | None = None  # the address of the graph server

    async def run(self, announce: Callable[[str, int], None]) -> str | None:
        """Serves until SIGTERM, SIGINT, SIGHUP or SIGQUIT. Gives the fault if it could not begin.

        `announce` is called once all listen, with what is served and on which port.
        """
        self._handle_signals()
        settings = self._settings
        try:
            listening = listen(settings)
            admin = listen_for_admin(settings, self._log)
        except ListenError as error:
            return str(error)
        with listening, admin:
            try:
                async with self._graph_server() as fault:
                    return fault or await self._serve(listening, admin, announce)
            finally:
                for child in tuple(self._children):
                    await self._discard(child)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has SIGHUP
                loop.add_signal_handler(number, self._stop.set)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            loop.add_signal_handler(number, self._log_signal, number.name)

    def _log_signal(self, name: str) -> None:
        self._log.warning("signal ignored", signal=name)

    @asynccontextmanager
    async def _graph_server(self) -> AsyncIterator[str]:
        """The process of the graphs, if they are shared, for longer than the workers need it.

        Gives the fault if it cannot start.
        """
        if not self._shared:
            yield ""
            return
        graphs = GraphSupervisor(self._settings, self._log, self._context)
        self._graphs = graphs.address
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(graphs.run())
            try:
                yield await graphs.first_fault
            finally:
                keeping.cancel()

    async def _serve(
        self, listening: socket.socket, admin: socket.socket, announce: Callable[[str, int], None]
    ) -> str | None:
        loop = asyncio.get_running_loop()
        self._standby = Standby(listening, self._settings.deadline_ms / 1000)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._close_when_stopped(listening))
            first: list[asyncio.Future[WorkerReply]] = []
            for number in range(self._count):
                first.append(loop.create_future())
                group.create_task(self._supervise_worker(number, listening, first[-1]))
            for started in asyncio.as_completed(first):
                reply = await started
                if self._stop.is_set():
                    return None
                if reply.fault:
                    self._stop.set()
                    return reply.fault
            group.create_task(self._administer(admin))
            self._log.info("admin", port=admin.getsockname()[1])
            announce(reply.model, listening.getsockname()[1])
        return None

    async def _close_when_stopped(self, listening: socket.socket) -> None:
        """What is still open here when the workers close it would let callers in to nobody."""
        await self._stop.wait()
        if self._standby is not None:
            self._standby.stop()
        listening.close()

    # ---- another bundle --------------------------------------------------------------------------

    async def reload(self, bundle: Path | None) -> WorkerReply:
        """Has all workers load a bundle beside the one that is served, then serve it.

        With a fault, of any worker, all go on with the one that they have.
        """
        async with self._changing:
            if self._stop.is_set():
                return _ENDING
            await self._ask_all(WorkerCommand("drop"))  # ends workers that hang
            command = WorkerCommand("load", bundle or self._served.bundle)
            reply = await self._tried(command)
            if not reply.fault:
                # Whatever lies in the folder later: this one is loaded and served.
                command = replace(command, digest=reply.digest)
                replies = await self._ask_all(command)
                reply = next((one for one in replies if one.fault), reply)
            if reply.fault:
                await self._ask_all(WorkerCommand("drop"))
                self._log.error("bundle refused", fault=reply.fault)
                return reply
            self._served = command
            await asyncio.gather(*(self._serve_or_end(worker) for worker in self._workers))
            self._reloaded.set()  # workers that wait to be started anew need wait no longer
            self._reloaded = asyncio.Event()
            self._log.info("bundle served", model=reply.model, digest=reply.digest)
            return reply

    async def _tried(self, command: WorkerCommand) -> WorkerReply:
        """Loads a bundle in a process of its own: whatever it does there, no worker is harmed."""
        try:
            child = self._start(None, ())
        except OSError as error:
            return WorkerReply(fault=f"no process can be started: {error.strerror}", retry=True)
        child.end_first()
        reply = await self._ask(child, command)
        await self._discard(child)
        if reply.retry and not self._stop.is_set():
            return WorkerReply(fault=f"{command.bundle} was tried, and {reply.fault}")
        return reply

    async def _serve_or_end(self, worker: ChildProcess) -> None:
        reply = await self._ask(worker, WorkerCommand("serve"))
        if reply.fault and not self._stop.is_set():
            await worker.kill()  # none goes on with another bundle

    async def _ask_all(self, command: WorkerCommand) -> list[WorkerReply]:
        return await asyncio.gather(*(self._ask(worker, command) for worker in self._workers))

    async def _ask(self, worker: ChildProcess, command: WorkerCommand) -> WorkerReply:
        """The reply; a worker that has ended, or that gives none in time and is killed, is a fault.

        Does not wait once the service is to end.
        """
        if command.action != "load":
            return await self._ask_within(worker, command, _ANSWER_SECONDS)
        async with self._loading:
            return await self._ask_within(worker, command, self._settings.load_seconds)

    async def _ask_within(
        self, worker: ChildProcess, command: WorkerCommand, seconds: float
    ) -> WorkerReply:
        asking = asyncio.create_task(_exchange(worker, command, seconds))
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({asking, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else _ENDING
        except ChildEnded:
            exit_code = await worker.exit_code_soon()
            return WorkerReply(fault=f"a process ended (exit {exit_code})", retry=True)
        except TimeoutError:
            await worker.kill()
            limit = " (M3H_LOAD_SECONDS)" if command.action == "load" else ""
            fault = f"a process did not {command.action} within {seconds:g} s{limit}"
            return WorkerReply(fault=f"{fault} and was killed", retry=True)
        finally:
            stopped.cancel()
            asking.cancel()

    async def _administer(self, listening: socket.socket) -> None:
        config = uvicorn.Config(
            create_admin(self.reload, self._settings),
            log_config=None,
            access_log=False,
            server_header=False,
        )
        server = _Quiet(config)
        serving = asyncio.create_task(server.serve([listening]))
        await self._stop.wait()
        server.should_exit = True
        await serving

    # ---- one worker after another ----------------------------------------------------------------

    async def _supervise_worker(
        self, number: int, listening: socket.socket, first: "asyncio.Future[WorkerReply]"
    ) -> None:
        """A worker, and another whenever it dies, until all are to stop."""
        backoff = Backoff()
        while not self._stop.is_set():
            began = time.monotonic()
            worker, reply = await self._join(number, listening)
            if not first.done():
                first.set_result(reply)
                if reply.fault:
                    return  # the service does not begin
            if worker is not None:
                await self._until_stopped(worker.ended)
                self._workers.discard(worker)
                if self._stop.is_set():
                    await self._end(worker)
                    return
                if self._standby is not None and not self._workers:
                    self._standby.start()
                await self._discard(worker)
                self._counters.clear_gauges(number)
            if self._stop.is_set():
                return
            again_in = backoff.next(time.monotonic() - began if worker else 0.0)
            if worker is None:
                self._log.error("worker does not serve", fault=reply.fault, again_in=again_in)
            else:
                exit_code = worker.exit_code
                self._log.error("worker died", pid=worker.pid, exit=exit_code, again_in=again_in)
            reloaded = self._reloaded
            await self._until_stopped(reloaded, again_in)
            if reloaded.is_set():
                backoff.reset()

    async def _join(
        self, number: int, listening: socket.socket
    ) -> tuple[ChildProcess | None, WorkerReply]:
        """Starts a worker. It serves only what all others serve at the moment that it joins them;
        what it has loaded meanwhile may have been replaced.
        """
        async with self._loading:
            if self._stop.is_set():
                return None, _ENDING
            try:
                worker = self._start(self._graphs, (listening,), number)
            except OSError as error:
                return None, WorkerReply(fault=f"no process can be started: {error.strerror}")
            limit = self._settings.load_seconds
            reply = await self._ask_within(worker, self._served, limit)
        while not reply.fault:
            async with self._changing:
                if self._served.digest in (None, reply.digest):
                    reply = await self._ask(worker, WorkerCommand("serve"))
                    if not reply.fault:
                        self._served = replace(self._served, digest=reply.digest)
                        self._workers.add(worker)
                        if self._standby is not None:
                            self._standby.stop()
                        return worker, reply
            if not reply.fault:
                reply = await self._ask(worker, self._served)
        await self._discard(worker)
        return None, reply

    def _start(
        self, graphs: str | None, sockets: tuple[socket.socket, ...], number: int | None = None
    ) -> ChildProcess:
        """A process that loads and serves what it is told. Raises OSError."""
        counters = None if number is None else (self._counters, number)
        child = ChildProcess(
            self._context, "m3h-worker", run_worker, self._settings, sockets, graphs, counters
        )
        self._children.add(child)
        return child

    async def _end(self, worker: ChildProcess) -> None:
        """Lets it answer those that it has; kills it if it does not end in time."""
        settings = self._settings
        patience = settings.drain_seconds + settings.shutdown_seconds + _SPARE_SECONDS
        worker.process.terminate()
        try:
            async with asyncio.timeout(patience):
                await worker.ended.wait()
        except TimeoutError:
            self._log.error("worker did not stop", pid=worker.pid)
        await self._discard(worker)

    async def _discard(self, child: ChildProcess) -> None:
        await child.kill()
        child.close()
        self._children.discard(child)

    async def _until_stopped(self, event: asyncio.Event, seconds: float | None = None) -> None:
        """Returns once the event is set, all are to stop, or the time is over."""
        waiting = {asyncio.create_task(one.wait()) for one in (event, self._stop)}
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


async def _exchange(worker: ChildProcess, command: WorkerCommand, seconds: float) -> WorkerReply:
    worker.send(command)
    reply: WorkerReply = await worker.receive(seconds)
    return reply


class _Quiet(uvicorn.Server):
    """Leaves signals to the supervisor."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
