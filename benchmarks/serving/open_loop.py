"""Callers who do not wait for each other: requests come at a rate, whatever becomes of the last.

Unlike `wrk`, whose connections wait for their answers, this goes on sending when the service is
slow, as hospitals do.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import uvloop


@dataclass
class Found:
    """Of each status: how long after it was due each request was answered, in seconds."""

    sent: int = 0
    in_time: int = 0  # answered with 200 while requests still came
    seconds: dict[int, list[float]] = field(default_factory=dict)
    without_retry_after: int = 0
    unanswered: int = 0

    def within(self, status: int, share: float) -> float:
        return float(np.quantile(self.seconds.get(status, [0.0]), share))


class _Connection(asyncio.Protocol):
    """HTTP/1.1, one request at a time; knows just enough of it."""

    def __init__(self, owner: "_Callers") -> None:
        self.owner = owner
        self.buffer = bytearray()
        self.due = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, request: bytes, due: float) -> None:
        self.due, self.busy = due, True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[:end]).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self.buffer) >= end + 4 + length:
            del self.buffer[: end + 4 + length]
            self.busy = False
            self.owner.answered(self, int(head[9:12]), head)

    def connection_lost(self, _: Exception | None) -> None:
        self.owner.lost(self)


class _Callers:
    def __init__(self, url: str, bodies: Sequence[bytes]) -> None:
        where = urlsplit(url)
        self.host, self.port = str(where.hostname), where.port
        about = f"Host: {where.netloc}\r\nContent-Type: application/json"
        self.requests = [
            f"POST {where.path} HTTP/1.1\r\n{about}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
            for body in bodies
        ]
        self.idle: deque[_Connection] = deque()
        self.found = Found()
        self.open = 0
        self.until = 0.0

    def answered(self, connection: _Connection, status: int, head: bytes) -> None:
        now = time.perf_counter()
        self.found.seconds.setdefault(status, []).append(now - connection.due)
        self.found.in_time += status == 200 and now <= self.until
        if status == 503 and b"retry-after:" not in head:
            self.found.without_retry_after += 1
        self.open -= 1
        self.idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        if connection.busy:
            self.found.unanswered += 1
            self.open -= 1
        elif connection in self.idle:
            self.idle.remove(connection)

    async def send(self, number: int, due: float) -> None:
        self.open += 1
        request = self.requests[number % len(self.requests)]
        if self.idle:
            self.idle.popleft().ask(request, due)
            return
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self), self.host, self.port
        )
        connection.ask(request, due)

    async def run(self, rate: float, seconds: float) -> Found:
        gaps = np.random.default_rng(0).exponential(1 / rate, int(rate * seconds))
        due = time.perf_counter() + np.cumsum(gaps)
        self.until = float(due[-1])
        sending = set()
        for number, moment in enumerate(due.tolist()):
            if (wait := moment - time.perf_counter()) > 0.001:
                await asyncio.sleep(wait)
            elif number % 16 == 0:
                await asyncio.sleep(0)
            task = asyncio.create_task(self.send(number, moment))
            sending.add(task)
            task.add_done_callback(sending.discard)
        self.found.sent = len(due)
        end = time.perf_counter() + 30
        while self.open and time.perf_counter() < end:  # noqa: ASYNC110 - the simplest
            await asyncio.sleep(0.05)
        self.found.unanswered += self.open
        return self.found


def load(url: str, bodies: Sequence[bytes], rate: float, seconds: float) -> Found:
    """Poisson arrivals of `rate` requests in a second."""
    return uvloop.run(_Callers(url, bodies).run(rate, seconds))
