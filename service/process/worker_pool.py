"""The worker processes: starts them, replaces dead ones, reloads their bundle, stops them."""

import asyncio
import socket
import time
from dataclasses import replace
from multiprocessing.context import SpawnContext
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from service.http.server.standby import Standby
from service.process.child_process import Backoff, ChildEnded, ChildProcess
from service.process.messages import WorkerCommand, WorkerReply
from service.process.worker import FLUSH_SECONDS, run_worker
from service.settings import Settings, available_cpus
from service.telemetry.shared_counters import SharedCounters

# Added to the time limits of drain and shutdown before a worker is killed.
_EXTRA_STOP_SECONDS = 5.0 + FLUSH_SECONDS
_REPLY_SECONDS = 10.0  # time limit of a worker to reply to "serve" or "drop"
_STOPPING = WorkerReply(fault="the service is shutting down", retry=True)


class WorkerPool:
    """The workers of the service. All serve the same bundle.

    `graphs`: address of the graph server, if the workers share one. `standby` answers clients
    while no worker serves. Once `stop` is set, the pool starts no worker and stops all.
    """

    def __init__(
        self,
        settings: Settings,
        count: int,
        graphs: str | None,
        log: FilteringBoundLogger,
        context: SpawnContext,
        standby: Standby,
        stop: asyncio.Event,
    ) -> None:
        self._settings, self._count, self._graphs, self._log = settings, count, graphs, log
        self._context, self._standby, self._stop = context, standby, stop
        self._counters = SharedCounters.create(count)
        # Loading a bundle takes a CPU: more loads at once would only delay each other.
        self._loading = asyncio.Semaphore(max(2, available_cpus()))
        # Held during a reload, and while a worker joins those that serve.
        self._changing = asyncio.Lock()
        self._serving: set[ChildProcess] = set()
        self._children: set[ChildProcess] = set()  # also those that do not serve yet
        self._load_served = WorkerCommand("load", settings.bundle)
        self._reloaded = asyncio.Event()  # set by a reload, which then replaces it

    def start(
        self, group: asyncio.TaskGroup, sockets: tuple[socket.socket, ...]
    ) -> list["asyncio.Future[WorkerReply]"]:
        """Starts and supervises all workers in `group`. Returns the first reply of each."""
        replies = []
        for number in range(self._count):
            replies.append(asyncio.get_running_loop().create_future())
            group.create_task(self.supervise_worker(number, sockets, replies[-1]))
        return replies

    async def close(self) -> None:
        """Kills the processes that are left."""
        for child in tuple(self._children):
            await self._discard(child)

    # ---- one worker ------------------------------------------------------------------------------

    async def supervise_worker(
        self, number: int, sockets: tuple[socket.socket, ...], first: "asyncio.Future[WorkerReply]"
    ) -> None:
        """Runs one worker, and replaces it whenever it dies, until the service stops.

        Sets `first` to the reply of the first worker. Returns if that has a fault.
        """
        backoff = Backoff()
        while not self._stop.is_set():
            started = time.monotonic()
            worker, reply = await self._start_serving(number, sockets)
            if not first.done():
                first.set_result(reply)
                if reply.fault:
                    return
            if worker is not None:
                await self._until_stopped(worker.ended)
                self._serving.discard(worker)
                if self._stop.is_set():
                    await self._terminate(worker)
                    return
                if not self._serving:
                    self._standby.start()
                await self._discard(worker)
                self._counters.clear_gauges(number)
            if self._stop.is_set():
                return
            again_in = backoff.next(time.monotonic() - started if worker else 0.0)
            self._log_failure(worker, reply, again_in)
            reloaded = self._reloaded
            await self._until_stopped(reloaded, again_in)
            if reloaded.is_set():
                backoff.reset()

    def _log_failure(
        self, worker: ChildProcess | None, reply: WorkerReply, again_in: float
    ) -> None:
        if worker is None:
            self._log.error("worker does not serve", fault=reply.fault, again_in=again_in)
        else:
            exit_code = worker.exit_code
            self._log.error("worker died", pid=worker.pid, exit=exit_code, again_in=again_in)

    async def _start_serving(
        self, number: int, sockets: tuple[socket.socket, ...]
    ) -> tuple[ChildProcess | None, WorkerReply]:
        """Starts a worker that serves the same bundle as the others.

        A reload may replace the bundle while the worker loads it. The worker then loads again.
        """
        async with self._loading:
            if self._stop.is_set():
                return None, _STOPPING
            try:
                worker = self._start_process(self._graphs, sockets, number)
            except OSError as error:
                return None, WorkerReply(fault=f"cannot start a process: {error.strerror}")
            limit = self._settings.load_seconds
            reply = await self._send(worker, self._load_served, limit)
        while not reply.fault:
            async with self._changing:
                if self._load_served.digest in (None, reply.digest):
                    reply = await self._execute(worker, WorkerCommand("serve"))
                    if not reply.fault:
                        self._load_served = replace(self._load_served, digest=reply.digest)
                        self._serving.add(worker)
                        self._standby.stop()
                        return worker, reply
            if not reply.fault:
                reply = await self._execute(worker, self._load_served)
        await self._discard(worker)
        return None, reply

    def _start_process(
        self, graphs: str | None, sockets: tuple[socket.socket, ...], number: int | None = None
    ) -> ChildProcess:
        """Starts a process that executes commands. Raises OSError."""
        counters = None if number is None else (self._counters, number)
        child = ChildProcess(
            self._context, "m3h-worker", run_worker, self._settings, sockets, graphs, counters
        )
        self._children.add(child)
        return child

    async def _terminate(self, worker: ChildProcess) -> None:
        """Lets a worker finish its requests. Kills it if that takes too long."""
        settings = self._settings
        seconds = settings.drain_seconds + settings.shutdown_seconds + _EXTRA_STOP_SECONDS
        worker.process.terminate()
        try:
            async with asyncio.timeout(seconds):
                await worker.ended.wait()
        except TimeoutError:
            self._log.error("worker did not stop", pid=worker.pid)
        await self._discard(worker)

    async def _discard(self, child: ChildProcess) -> None:
        await child.kill()
        child.close()
        self._children.discard(child)

    async def _until_stopped(self, event: asyncio.Event, seconds: float | None = None) -> None:
        """Returns when the event is set, the service stops, or the time is over."""
        waiting = {asyncio.create_task(awaited.wait()) for awaited in (event, self._stop)}
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()

    # ---- hot reload ------------------------------------------------------------------------------

    async def reload(self, bundle: Path | None) -> WorkerReply:
        """Makes all workers load a bundle beside the served one, then serve it.

        If a worker reports a fault, all workers keep the bundle that they have.
        """
        async with self._changing:
            if self._stop.is_set():
                return _STOPPING
            await self._execute_in_all(WorkerCommand("drop"))  # kills workers that hang
            command = WorkerCommand("load", bundle or self._load_served.bundle)
            reply = await self._load_in_test_process(command)
            if not reply.fault:
                # The digest makes sure that all workers load the bundle that was tested.
                command = replace(command, digest=reply.digest)
                replies = await self._execute_in_all(command)
                reply = next((other for other in replies if other.fault), reply)
            if reply.fault:
                await self._execute_in_all(WorkerCommand("drop"))
                self._log.error("bundle refused", fault=reply.fault)
                return reply
            self._load_served = command
            await asyncio.gather(*(self._serve_or_kill(worker) for worker in self._serving))
            self._reloaded.set()  # ends the backoff of workers that wait for a restart
            self._reloaded = asyncio.Event()
            self._log.info("bundle served", model=reply.model, digest=reply.digest)
            return reply

    async def _load_in_test_process(self, command: WorkerCommand) -> WorkerReply:
        """Loads a bundle in a separate process, so that a bad bundle cannot harm a worker."""
        try:
            child = self._start_process(None, ())
        except OSError as error:
            return WorkerReply(fault=f"cannot start a process: {error.strerror}", retry=True)
        child.kill_first_when_out_of_memory()
        reply = await self._execute(child, command)
        await self._discard(child)
        if reply.retry and not self._stop.is_set():
            return WorkerReply(fault=f"{command.bundle} failed to load: {reply.fault}")
        return reply

    async def _serve_or_kill(self, worker: ChildProcess) -> None:
        reply = await self._execute(worker, WorkerCommand("serve"))
        if reply.fault and not self._stop.is_set():
            await worker.kill()  # it must not serve the old bundle

    async def _execute_in_all(self, command: WorkerCommand) -> list[WorkerReply]:
        return await asyncio.gather(*(self._execute(worker, command) for worker in self._serving))

    async def _execute(self, worker: ChildProcess, command: WorkerCommand) -> WorkerReply:
        """Sends a command and returns the reply."""
        if command.action != "load":
            return await self._send(worker, command, _REPLY_SECONDS)
        async with self._loading:
            return await self._send(worker, command, self._settings.load_seconds)

    async def _send(
        self, worker: ChildProcess, command: WorkerCommand, seconds: float
    ) -> WorkerReply:
        """Sends a command and returns the reply, or a fault at once if the service stops.

        A worker that does not reply in time is killed.
        """
        exchange = asyncio.create_task(_exchange(worker, command, seconds))
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({exchange, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return exchange.result() if exchange.done() else _STOPPING
        except ChildEnded:
            exit_code = await worker.wait_exit_code()
            return WorkerReply(fault=f"the process ended (exit {exit_code})", retry=True)
        except TimeoutError:
            await worker.kill()
            limit = " (M3H_LOAD_SECONDS)" if command.action == "load" else ""
            fault = f"the process did not {command.action} within {seconds:g} s{limit}"
            return WorkerReply(fault=f"{fault} and was killed", retry=True)
        finally:
            stopped.cancel()
            exchange.cancel()


async def _exchange(worker: ChildProcess, command: WorkerCommand, seconds: float) -> WorkerReply:
    worker.send(command)
    reply: WorkerReply = await worker.receive(seconds)
    return reply
