"""An open-loop load generator: requests arrive at a given rate, however slow the answers are.

`wrk` is closed-loop: each connection waits for its answer before the next request. Clients of a
hospital do not wait for each other.
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
class OpenLoopResult:
    """The result of a load test. `seconds`: latencies since the due time, by status."""

    sent: int = 0
    in_time: int = 0  # answered with 200 before the last arrival
    seconds: dict[int, list[float]] = field(default_factory=dict)
    without_retry_after: int = 0
    unanswered: int = 0

    def quantile(self, status: int, share: float) -> float:
        return float(np.quantile(self.seconds.get(status, [0.0]), share))


class _Connection(asyncio.Protocol):
    """A minimal HTTP/1.1 client connection, one request at a time."""

    def __init__(self, owner: "_Clients") -> None:
        self.owner = owner
        self.buffer = bytearray()
        self.due = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, request: bytes, due: float) -> None:
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


class _Clients:
    def __init__(self, url: str, bodies: Sequence[bytes]) -> None:
        parts = urlsplit(url)
        self.host, self.port = str(parts.hostname), parts.port
        headers = f"Host: {parts.netloc}\r\nContent-Type: application/json"
        head = f"POST {parts.path} HTTP/1.1\r\n{headers}"
        self.requests = [
            f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies
        ]
        self.idle: deque[_Connection] = deque()
        self.result = OpenLoopResult()
        self.pending = 0
        self.last_due = 0.0

    def answered(self, connection: _Connection, status: int, head: bytes) -> None:
        now = time.perf_counter()
        self.result.seconds.setdefault(status, []).append(now - connection.due)
        self.result.in_time += status == 200 and now <= self.last_due
        if status == 503 and b"retry-after:" not in head:
            self.result.without_retry_after += 1
        self.pending -= 1
        self.idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        if connection.busy:
            self.result.unanswered += 1
            self.pending -= 1
        elif connection in self.idle:
            self.idle.remove(connection)

    async def send(self, number: int, due: float) -> None:
        self.pending += 1
        request = self.requests[number % len(self.requests)]
        if self.idle:
            self.idle.popleft().send(request, due)
            return
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self), self.host, self.port
        )
        connection.send(request, due)

    async def run(self, rate: float, seconds: float) -> OpenLoopResult:
        gaps = np.random.default_rng(0).exponential(1 / rate, int(rate * seconds))
        due = time.perf_counter() + np.cumsum(gaps)
        self.last_due = float(due[-1])
        sending = set()
        for number, due_time in enumerate(due.tolist()):
            if (wait := due_time - time.perf_counter()) > 0.001:
                await asyncio.sleep(wait)
            elif number % 16 == 0:
                await asyncio.sleep(0)
            task = asyncio.create_task(self.send(number, due_time))
            sending.add(task)
            task.add_done_callback(sending.discard)
        self.result.sent = len(due)
        end = time.perf_counter() + 30
        while self.pending and time.perf_counter() < end:  # noqa: ASYNC110 - polling suffices
            await asyncio.sleep(0.05)
        self.result.unanswered += self.pending
        return self.result


def load(url: str, bodies: Sequence[bytes], rate: float, seconds: float) -> OpenLoopResult:
    """Sends Poisson arrivals at `rate` requests per second, and waits up to 30 s for answers."""
    return uvloop.run(_Clients(url, bodies).run(rate, seconds))
