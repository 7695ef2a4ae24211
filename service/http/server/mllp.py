"""MLLP: HL7 v2 messages over TCP (HL7 v2.5.1, appendix C of the implementation guide, release 1).

A frame is VT, the message, FS and CR. Each message becomes a `POST /hl7v2` to the app of the
worker, so admission, limits, deadlines, logs and metrics are those of HTTP. A connection has one
message at a time, as the protocol demands.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Scope
from structlog.typing import FilteringBoundLogger

from service.http.routes.hl7v2 import ER7
from service.interop.hl7v2.acknowledgement import Sender, acknowledge, joined
from service.settings import Settings

_START, _END = b"\x0b", b"\x1c"
_BETWEEN = b"\r\n"  # bytes that may stand between two frames
_CHUNK = 1 << 16
_LOG_SECONDS = 60.0
_SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/hl7v2",
    "raw_path": b"/hl7v2",
    "query_string": b"",
    "client": None,
    "server": None,
}
_HEADERS = [(b"content-type", ER7.encode()), (b"accept", ER7.encode())]
_FAILED = "the service could not read or answer the message"


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context of the listener; None without a certificate.

    Raises OSError (also ssl.SSLError): a file is absent or damaged.
    """
    if settings.mllp_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.mllp_certificate)
    if settings.mllp_client_ca is not None:
        context.load_verify_locations(settings.mllp_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class MllpServer:
    """The MLLP listener of one worker. All workers accept from the same socket."""

    def __init__(
        self,
        app: ASGIApp,
        listening: socket.socket,
        settings: Settings,
        log: FilteringBoundLogger,
    ) -> None:
        self._app, self._listening, self._settings, self._log = app, listening, settings, log
        self._connections: dict[asyncio.Task[object], _Connection] = {}
        self._closing = False
        self._refused, self._next_log = 0, 0.0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Starts to accept connections."""
        self._server = await asyncio.start_server(
            self._serve,
            sock=self._listening,
            ssl=tls_context(self._settings),
            limit=_CHUNK,
        )

    async def close(self) -> None:
        """Accepts no more connections, closes idle ones and answers the messages in progress."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        for task, connection in self._connections.items():
            connection.is_last = True
            if connection.is_idle:
                task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=self._settings.shutdown_seconds)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if self._closing or len(self._connections) >= self._settings.mllp_connections:
            self._refuse(writer)
            return
        connection = _Connection(self._app, reader, writer, self._settings)
        if task is not None:
            self._connections[task] = connection
        try:
            with suppress(asyncio.CancelledError, ConnectionError, TimeoutError, ssl.SSLError):
                await connection.run()
        finally:
            if task is not None:
                del self._connections[task]
            writer.close()

    def _refuse(self, writer: asyncio.StreamWriter) -> None:
        """Closes a connection. Logs the number of refused ones at most once a minute."""
        writer.close()
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now >= self._next_log:
            setting = "M3H_MLLP_CONNECTIONS"
            self._log.warning("mllp connections refused", count=self._refused, setting=setting)
            self._refused, self._next_log = 0, now + _LOG_SECONDS


class _Connection:
    """One connection. `is_idle`: no message is in progress. `is_last`: no more are read."""

    def __init__(
        self,
        app: ASGIApp,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        settings: Settings,
    ) -> None:
        self._app, self._reader, self._writer, self._settings = app, reader, writer, settings
        self.is_idle, self.is_last = True, False
        self._buffer = b""
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    async def run(self) -> None:
        """Answers messages until the client closes the connection or sends no frame."""
        while not self.is_last and await self._find_start():
            self.is_idle = False
            frame = _Frame(self)
            answer = await self._answer(frame)
            self._writer.write(_START + answer + _END + b"\r")
            async with asyncio.timeout(self._settings.write_seconds):
                await self._writer.drain()
            if not await frame.skip_rest(self._settings.max_body_bytes):
                return
            self.is_idle = True

    async def _find_start(self) -> bool:
        """Waits for the start of a frame. False if the client closes or sends other bytes."""
        while True:
            self._buffer = self._buffer.lstrip(_BETWEEN)
            if self._buffer:
                is_frame, self._buffer = self._buffer.startswith(_START), self._buffer[1:]
                return is_frame
            self._buffer = await self._reader.read(_CHUNK)
            if not self._buffer:
                return False

    async def chunks(self) -> AsyncIterator[tuple[bytes, bool]]:
        """Yields the parts of a frame, each with whether it is the last. Ends early at its end."""
        while True:
            part, end, rest = self._buffer.partition(_END)
            self._buffer = rest
            if part or end:
                yield part, bool(end)
            if end:
                return
            self._buffer = await self._reader.read(_CHUNK)
            if not self._buffer:
                return

    async def _answer(self, frame: "_Frame") -> bytes:
        """The acknowledgement of a message; AR if the app has no answer in ER7."""
        response: dict[str, Any] = {"headers": [], "body": bytearray()}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                response["headers"] = message["headers"]
            else:
                response["body"] += message.get("body", b"")

        scope: Scope = _SCOPE | {"headers": [*_HEADERS], "state": {}}
        await self._app(scope, frame.receive, send)
        media_types = [value for name, value in response["headers"] if name == b"content-type"]
        if media_types == [ER7.encode()]:
            return bytes(response["body"])
        return joined(acknowledge(Sender(), "AR", _FAILED))

    @property
    def seconds(self) -> float:
        return self._settings.body_seconds


class _Frame:
    """One message as the body of a request. It must arrive within M3H_BODY_SECONDS."""

    def __init__(self, connection: _Connection) -> None:
        self._chunks = connection.chunks()
        self._deadline = asyncio.get_running_loop().time() + connection.seconds
        self.is_complete = False

    async def receive(self) -> Message:
        """The next part of the body, as an ASGI server gives it."""
        if self.is_complete:
            await asyncio.Event().wait()  # a client that closes is noticed when it is answered
        try:
            async with asyncio.timeout_at(self._deadline):
                part, self.is_complete = await anext(self._chunks)
        except (StopAsyncIteration, TimeoutError, ConnectionError):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": not self.is_complete}

    async def skip_rest(self, limit: int) -> bool:
        """Skips what the app did not read. False if the end does not follow within `limit`."""
        skipped = 0
        while not self.is_complete and skipped <= limit:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                return False
            skipped += len(message["body"])
        return self.is_complete
