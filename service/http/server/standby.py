"""Answers 503 while no worker serves: a caller must not wait for ever in the queue of the port."""

import asyncio
import socket
from contextlib import suppress

from service.http import problems

_CALLERS = 100  # at once; others wait in the queue of the port
_PAUSE = 0.1  # seconds, if there are as many
_READ_SECONDS = 2.0  # for what a caller has sent: unread, it would cost the caller the answer
_READ_BYTES = 2**20


class Standby:
    """To be used from one event loop. Answers from `start` to `stop`, after `wait` seconds."""

    def __init__(self, listening: socket.socket, wait: float) -> None:
        self._listening, self._wait = listening, wait
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None  # when callers are accepted again
        self._callers: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        if self._next is None:
            self._next = self._loop.call_later(self._wait, self._open)

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
            self._loop.remove_reader(self._listening)

    def _open(self) -> None:
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        try:
            if len(self._callers) < _CALLERS:
                connection, _ = self._listening.accept()
                caller = self._loop.create_task(self._refuse(connection))
                self._callers.add(caller)
                caller.add_done_callback(self._callers.discard)
                return
        except BlockingIOError:  # a worker that has begun was faster
            return
        except OSError:  # too many open files
            pass
        self._loop.remove_reader(self._listening)
        self._next = self._loop.call_later(_PAUSE, self._open)

    async def _refuse(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, TimeoutError):
            connection.setblocking(False)
            async with asyncio.timeout(_READ_SECONDS):
                await self._loop.sock_recv(connection, 2**16)
                await self._loop.sock_sendall(connection, _answer())
                connection.shutdown(socket.SHUT_WR)
                left = _READ_BYTES
                while left > 0 and (read := await self._loop.sock_recv(connection, 2**16)):
                    left -= len(read)


def _answer() -> bytes:
    refused = problems.not_ready("no worker serves; one is being started")
    body = refused.problem.json_bytes()
    fields = {
        **refused.headers,
        **problems.UNCACHED,
        "Content-Type": problems.MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\n".encode() + body
