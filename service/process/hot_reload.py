"""Hot reload: replaces the served bundle without losing a request.

A request finishes on the bundle that it started on.
"""

import asyncio
import gc
from contextlib import AsyncExitStack

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from service.http import problems
from service.http.probe_paths import READY


class MountedApp:
    """An ASGI app that forwards to the app of the served bundle.

    `next`: the loaded app that `swap` mounts. `draining`: the process is about to end; every
    response then asks the client to close its connection.
    """

    def __init__(self) -> None:
        self.draining = False
        self.next: FastAPI | None = None
        self._current: _RunningApp | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        current = self._current
        if current is None:
            raise RuntimeError("no app is mounted")
        if self.draining and scope["path"] == READY:
            refused = problems.not_ready("this process is shutting down")
            await problems.response(refused.problem, refused.headers)(scope, receive, send)
            return

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self.draining:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        with current:
            await current.app(scope, receive, send_and_close)

    async def swap(self) -> None:
        """Mounts the next app. The previous one is closed after its last response."""
        current = None
        if self.next is not None:
            current, self.next = _RunningApp(self.next), None
            await current.open()
        previous, self._current = self._current, current
        if previous is None:
            freeze_gc()
        else:
            closing = asyncio.create_task(previous.close_when_idle())
            self._closing.add(closing)
            closing.add_done_callback(self._finish_closing)

    def _finish_closing(self, closing: "asyncio.Task[None]") -> None:
        self._closing.discard(closing)
        freeze_gc()

    async def close(self) -> None:
        """Unmounts the app. Returns after the last response."""
        self.next = None
        await self.swap()
        await asyncio.gather(*self._closing)


class _RunningApp:
    """An app whose lifespan has started, and the number of its unfinished requests."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._lifespan = AsyncExitStack()

    def __enter__(self) -> None:
        self._requests += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self._requests -= 1
        if not self._requests:
            self._idle.set()

    async def open(self) -> None:
        await self._lifespan.enter_async_context(self.app.router.lifespan_context(self.app))

    async def close_when_idle(self) -> None:
        await self._idle.wait()
        await self._lifespan.aclose()


def freeze_gc() -> None:
    """Excludes all objects that exist now from garbage collection, after a last collection.

    Otherwise a busy process spends 70 ms of each second in the collector and answers nothing.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
