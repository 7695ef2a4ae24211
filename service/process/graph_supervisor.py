"""Keeps one graph server running: starts it, pings it, replaces it when it fails."""

import asyncio
import secrets
import sys
import time
from multiprocessing.context import SpawnContext
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from service.process.child_process import Backoff, ChildEnded, ChildProcess
from service.process.graph_server import run_graph_server
from service.runtime.graph_client import RUN_SECONDS
from service.settings import Settings

if TYPE_CHECKING:
    from service.process.messages import GraphServerReply

_PING_SECONDS = 1.0  # between a reply and the next ping


class GraphSupervisor:
    """Supervises the graph server.

    `address`: where the server listens for workers. `first_fault`: the fault of the first start,
    or "" if the server has started.
    """

    def __init__(
        self, settings: Settings, log: FilteringBoundLogger, context: SpawnContext
    ) -> None:
        self._settings, self._log, self._context = settings, log, context
        # An abstract Unix socket leaves no file behind and has no limit of path length. A client
        # must know the authentication key of this service's processes.
        self.address = f"\0m3h-graphs-{secrets.token_hex(16)}"
        self.first_fault: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def supervise_graph_server(self) -> None:
        """Runs until it is cancelled or the first start fails."""
        if sys.platform != "linux":
            self.first_fault.set_result("M3H_GRAPHS=shared needs Linux; set M3H_GRAPHS=own")
            return
        backoff = Backoff()
        while True:
            started = time.monotonic()
            fault = await self._run_server()
            if not self.first_fault.done():
                self.first_fault.set_result(f"the graph server did not start: {fault}")
                return
            again_in = backoff.next(time.monotonic() - started)
            self._log.error("graph server died", fault=fault, again_in=again_in)
            await asyncio.sleep(again_in)

    async def _run_server(self) -> str:
        """Starts a server and pings it until it fails. Returns the fault."""
        try:
            server = ChildProcess(
                self._context, "m3h-graphs", run_graph_server, self.address, self._settings
            )
        except OSError as error:
            return f"cannot start a process: {error.strerror}"
        try:
            return await self._ping(server)
        except ChildEnded:
            return f"exit {await server.wait_exit_code()}"
        except TimeoutError:
            return "it did not reply to a ping"
        finally:
            await server.kill()
            server.close()

    async def _ping(self, server: ChildProcess) -> str:
        """Pings a server until it fails. Returns the fault. Raises ChildEnded, TimeoutError."""
        reply: GraphServerReply = await server.receive(self._settings.load_seconds)
        while not reply.fault and reply.run_seconds < RUN_SECONDS:
            if not self.first_fault.done():
                self.first_fault.set_result("")
            await asyncio.sleep(_PING_SECONDS)
            server.send(None)
            reply = await server.receive(self._settings.graphs_seconds)
        return reply.fault or f"a graph ran for more than {RUN_SECONDS:g} s"
