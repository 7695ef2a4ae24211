"""As many processes as there are processors, each with the model, behind one socket.

Measured: half of a request's work is Python, and one process does one thing of that at a time; with
a process for each processor, all is done side by side, and no request travels between processes.
On a CPU the weights of each are its own (20 MB).
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from structlog.typing import FilteringBoundLogger

from schemas.manifest import BundleError
from service.app import create_app
from service.bundle import Bundle, chosen_device
from service.engine import Engine
from service.log import FromLibraries, make_log
from service.settings import Settings, available_cpus

# Where prometheus_client keeps what all processes have counted.
_COUNTED_IN = "PROMETHEUS_MULTIPROC_DIR"
_SPARE_SECONDS = 5.0  # beyond shutdown_seconds, before a process is killed
_BACKLOG = 2048
_AGAIN_SECONDS = 1.0  # before a process that died is started again


@dataclass(frozen=True)
class Told:
    """What a worker says once: what it serves, or why it does not."""

    serves: str = ""
    fault: str = ""


# ---- one worker ----------------------------------------------------------------------------------


def work(
    settings: Settings, threads: int, sockets: Sequence[socket.socket], told: Connection
) -> None:
    """Verifies the bundle, then serves it until SIGTERM, or until nobody listens to it."""
    log = make_log(settings.log_level, sys.stderr)
    logging.basicConfig(handlers=[FromLibraries(log)], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    Thread(target=_end_with, args=(told,), daemon=True).start()
    try:
        engine = Engine(Bundle.load(settings.bundle, settings.device, threads))
        engine.replay_golden()
    except BundleError as error:
        told.send(Told(fault=str(error)))
        return
    config = uvicorn.Config(
        create_app(engine, settings, log),
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    manifest, device = engine.bundle.manifest, engine.bundle.device
    serves = f"{manifest.name} {manifest.version} ({len(manifest.tasks)} tasks, {device})"
    _Telling(config, lambda: told.send(Told(serves=serves))).run(list(sockets))


def _end_with(supervisor: Connection) -> None:
    """A worker whose supervisor was killed would hold the port for ever."""
    try:
        supervisor.recv()
    except EOFError:
        os.kill(os.getpid(), signal.SIGTERM)


class _Telling(uvicorn.Server):
    """Tells once that it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._then = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._then()


# ---- all of them ---------------------------------------------------------------------------------


class Supervisor:
    """Starts the workers, starts those anew that die, and ends them all together."""

    def __init__(self, settings: Settings, log: FilteringBoundLogger) -> None:
        self._settings, self._log = settings, log
        device = chosen_device(settings.device)
        # Every process would have weights of its own on the GPU.
        self._count = settings.workers or (1 if device == "cuda" else available_cpus())
        self._threads = settings.threads or max(1, available_cpus() // self._count)
        self._context = get_context("spawn")
        self._stop = asyncio.Event()

    async def run(self, announce: Callable[[str, int], None]) -> str | None:
        """Serves until SIGTERM or SIGINT. Gives what was wrong if it could not begin.

        `announce` is called once all listen, with what is served and on which port.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        host, port = self._settings.host, self._settings.port
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            return f"cannot listen on {host}:{port}: {error.strerror}"
        with listening, TemporaryDirectory(prefix="m3h-") as counted:
            os.environ[_COUNTED_IN] = counted
            async with asyncio.TaskGroup() as group:
                begun: list[asyncio.Future[Told]] = [
                    loop.create_future() for _ in range(self._count)
                ]
                for told in begun:
                    group.create_task(self._keep(listening, told, Path(counted)))
                for said in await asyncio.gather(*begun):
                    if said.fault:
                        self._stop.set()
                        return said.fault
                if not self._stop.is_set():
                    announce(said.serves, listening.getsockname()[1])
        return None

    async def _keep(
        self, listening: socket.socket, begun: "asyncio.Future[Told]", counted: Path
    ) -> None:
        """One worker, and another whenever it dies, until all are to stop."""
        stopped = asyncio.create_task(self._stop.wait())
        while not self._stop.is_set():
            mine, its = self._context.Pipe()
            process = self._context.Process(
                target=work,
                args=(self._settings, self._threads, [listening], its),
                name="m3h-worker",
                daemon=True,
            )
            process.start()
            its.close()
            ended = asyncio.create_task(asyncio.to_thread(process.join))
            telling = asyncio.create_task(asyncio.to_thread(_told, mine))
            await asyncio.wait({telling, stopped}, return_when=asyncio.FIRST_COMPLETED)
            said = telling.result() if telling.done() else Told()
            if not begun.done():
                begun.set_result(said)
            elif said.fault:
                self._log.error("worker does not serve", fault=said.fault)
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                process.terminate()
                await self._joined(process, ended)
            await telling
            mine.close()
            mark_process_dead(process.pid, str(counted))  # type: ignore[no-untyped-call]
            if not self._stop.is_set():
                self._log.error("worker died", pid=process.pid, exit=process.exitcode)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _joined(self, process: BaseProcess, ended: "asyncio.Task[None]") -> None:
        patience = self._settings.shutdown_seconds + _SPARE_SECONDS
        try:
            await asyncio.wait_for(asyncio.shield(ended), patience)
        except TimeoutError:
            self._log.error("worker did not stop", pid=process.pid)
            process.kill()
            await ended


def _told(worker: Connection) -> Told:
    try:
        told: Told = worker.recv()
    except EOFError:
        return Told(fault="a worker ended before it served")
    return told
