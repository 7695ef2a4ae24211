"""Sends requests as bytes over a socket, also those that HTTP libraries do not send."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PATIENT = b'{"as_of":"2026-11-23T10:00:00Z","tabular":{"age":71}}'
JSON = {"Content-Type": "application/json"}
# The paths of the service by method.
GET = (
    *("/", "/page/app.js", "/tasks", "/variables", "/model", "/model-card", "/tim"),
    *("/openapi.json", "/health/live", "/health/ready", "/metrics", "/usage"),
    *("/fhir/metadata", "/fhir/OperationDefinition/m3h-predict", "/cds-services"),
)
POST = ("/predict", "/predict/batch")


@dataclass
class Received:
    """One response."""

    status: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


class Client:
    """One connection."""

    def __init__(self, url: str, receive_buffer: int | None = None) -> None:
        parts = urlsplit(url)
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", parts.port))
        self._received = b""

    def send(self, *parts: bytes) -> "Client":
        for part in parts:
            self.socket.sendall(part)
        return self

    def receive(self, method: str = "GET") -> Received:
        """The next response. Raises ConnectionError if the connection ends too early."""
        head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        status = int(head[0].split()[1])
        length = 0 if method == "HEAD" or status < 200 else int(headers.get("content-length", 0))
        while len(self._received) < length:
            self._receive_more()
        content, self._received = self._received[:length], self._received[length:]
        return Received(status, headers, content)

    def is_closed(self) -> bool:
        """Waits until the server closes the connection. False if it sends something instead."""
        try:
            return self._received == b"" and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            self._receive_more()
        head, self._received = self._received.split(end, 1)
        return head

    def _receive_more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the connection has ended")
        self._received += data


@contextmanager
def connected(url: str, **options: Any) -> Iterator[Client]:
    client = Client(url, **options)
    try:
        yield client
    finally:
        client.socket.close()


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    """A request with a Host header and, if it has a body, Content-Length."""
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{line} HTTP/1.1", "Host: localhost", *headers, *length]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def prediction(*headers: str, body: bytes = PATIENT) -> bytes:
    return request(
        "POST /predict?explain=none", "Content-Type: application/json", *headers, body=body
    )


def chunked(body: bytes, size: int = 10) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
