"""Answers 503 once no worker has served for some time, so that clients do not wait for ever."""

import asyncio
import socket
from contextlib import suppress

from service.http import problems

_MAX_CLIENTS = 100  # at a time; others wait in the queue of the socket
_PAUSE_SECONDS = 0.1  # when _MAX_CLIENTS is reached
# A request is read before its connection is closed. Otherwise the client loses the response.
_READ_SECONDS = 2.0
_READ_BYTES = 2**20


class Standby:
    """Accepts connections between `start` and `stop`, beginning `wait` seconds after `start`.

    Until then, connections wait in the queue of the socket for a worker. Use it in one event loop.
    """

    def __init__(self, listening: socket.socket, wait: float) -> None:
        self._listening, self._wait = listening, wait
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None  # when it accepts again
        self._clients: set[asyncio.Task[None]] = set()

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
            if len(self._clients) < _MAX_CLIENTS:
                connection, _ = self._listening.accept()
                client = self._loop.create_task(self._refuse(connection))
                self._clients.add(client)
                client.add_done_callback(self._clients.discard)
                return
        except BlockingIOError:  # a worker that has just started has accepted it
            return
        except OSError:  # too many open files
            pass
        self._loop.remove_reader(self._listening)
        self._next = self._loop.call_later(_PAUSE_SECONDS, self._open)

    async def _refuse(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, TimeoutError):
            connection.setblocking(False)
            async with asyncio.timeout(_READ_SECONDS):
                await self._loop.sock_recv(connection, 2**16)
                await self._loop.sock_sendall(connection, _response())
                connection.shutdown(socket.SHUT_WR)
                left = _READ_BYTES
                while left > 0 and (read := await self._loop.sock_recv(connection, 2**16)):
                    left -= len(read)


def _response() -> bytes:
    error = problems.not_ready("no worker serves yet")
    body = error.problem.json_bytes()
    fields = {
        **error.headers,
        **problems.NO_STORE,
        "Content-Type": problems.MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\n".encode() + body
