"""Keeps one graph server running: starts it, asks it for a sign of life, replaces it."""

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

_PING_SECONDS = 1.0  # from one sign of life to the next question for it


class GraphSupervisor:
    """`address`: where workers find the server. `first_fault`: the fault, if any, of its start."""

    def __init__(
        self, settings: Settings, log: FilteringBoundLogger, context: SpawnContext
    ) -> None:
        self._settings, self._log, self._context = settings, log, context
        # In Linux's abstract namespace: no file is left behind, no path is too long, no disk full.
        # Who connects must know the key of this service's processes.
        self.address = f"\0m3h-graphs-{secrets.token_hex(16)}"
        self.first_fault: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until cancelled, or until the first start fails."""
        if sys.platform != "linux":
            self.first_fault.set_result("M3H_GRAPHS=shared needs Linux")
            return
        backoff = Backoff()
        while True:
            began = time.monotonic()
            fault = await self._run_one()
            if not self.first_fault.done():
                self.first_fault.set_result(f"the graph server did not start: {fault}")
                return
            again_in = backoff.next(time.monotonic() - began)
            self._log.error("graph server died", fault=fault, again_in=again_in)
            await asyncio.sleep(again_in)

    async def _run_one(self) -> str:
        """Starts a server and watches it. Returns why it is there no more."""
        try:
            server = ChildProcess(
                self._context, "m3h-graphs", run_graph_server, self.address, self._settings
            )
        except OSError as error:
            return f"no process can be started: {error.strerror}"
        try:
            return await self._watch(server)
        except ChildEnded:
            return f"exit {await server.exit_code_soon()}"
        except TimeoutError:
            return "it gave no sign of life"
        finally:
            await server.kill()
            server.close()

    async def _watch(self, server: ChildProcess) -> str:
        """Returns what is wrong with it. Raises ChildEnded, and TimeoutError if it is silent."""
        reply: GraphServerReply = await server.receive(self._settings.load_seconds)
        while not reply.fault and reply.run_seconds < RUN_SECONDS:
            if not self.first_fault.done():
                self.first_fault.set_result("")
            await asyncio.sleep(_PING_SECONDS)
            server.send(None)
            reply = await server.receive(self._settings.graphs_seconds)
        return reply.fault or f"a run took more than {RUN_SECONDS:g} s"
