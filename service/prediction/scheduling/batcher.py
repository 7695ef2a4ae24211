"""Admission control, and two lanes: short requests never wait for long ones.

The event loop admits requests and answers them. Continuous batching: requests that are queued when
a lane becomes idle form its next batch; there is no batching delay. A short request that arrives
alone is computed in the event loop, since a switch to a thread and back would take a tenth of its
time. The long lane computes requests with a large body, and those whose estimate after parsing is
above SHORT_SECONDS.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, Self

from service.errors import ClientDisconnected, DeadlineExceeded, Overloaded
from service.prediction.scheduling.lane import (
    PRIORITIES,
    JobProcessor,
    JobT,
    Lane,
    ParsedT,
    PreparedT,
    Priority,
    QueuedJob,
)
from service.telemetry.metrics import Metrics

# Limits of a request that the event loop computes itself, blocked meanwhile.
INLINE_BYTES, INLINE_SECONDS = 64 * 2**10, 0.005
# Limits of a request in the short lane.
SHORT_BYTES, SHORT_SECONDS = 2**20, 0.1


class Admission:
    """An admitted request. Holds the bytes of its body until it is answered.

    `deadline`: monotonic time in seconds. `body_bytes`: bytes of the body that have arrived.
    `reserve`: adds to the bytes that a priority holds, or raises Overloaded.
    """

    def __init__(
        self, priority: Priority, deadline: float, reserve: Callable[[Priority, int], None]
    ) -> None:
        self.priority, self.body_bytes, self.deadline = priority, 0, deadline
        self.answers: list[asyncio.Future[bytes]] = []
        self._reserve = reserve

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reserve(self.priority, -self.body_bytes)

    def reserve(self, size: int) -> None:
        """Holds `size` more bytes of the body. Raises Overloaded if the limit is reached."""
        self._reserve(self.priority, size)
        self.body_bytes += size

    def fail_pending(self, error: Exception) -> None:
        """Ends all answers that are still pending with `error`."""
        for answer in self.answers:
            if not answer.done():
                answer.set_exception(error)


class Batcher(Generic[JobT, ParsedT, PreparedT]):
    """Admission control and the lanes of one processor. To be used from one event loop.

    `max_wait_ms`: limit of the estimated wait of a new request. `max_bytes`: limit of all bodies
    that are held; bulk requests may hold half of it. `in_loop`: whether the event loop may compute
    a short request; it may not if the graphs are in another process, which could hang.
    """

    def __init__(
        self,
        processor: JobProcessor[JobT, ParsedT, PreparedT],
        metrics: Metrics,
        max_wait_ms: int,
        max_bytes: int,
        *,
        in_loop: bool = True,
    ) -> None:
        self._processor, self._in_loop = processor, in_loop
        self._max_wait_ms, self._max_bytes = max_wait_ms, max_bytes
        self._held_bytes = dict.fromkeys(PRIORITIES, 0)
        self._long: Lane[JobT, ParsedT, PreparedT] = Lane("m3h-long", processor, metrics)
        self._short: Lane[JobT, ParsedT, PreparedT] = Lane(
            "m3h-short", processor, metrics, SHORT_SECONDS, self._move_to_long_lane
        )

    def start(self) -> None:
        self._short.start()
        self._long.start()

    def close(self) -> None:
        """Computes all queued requests and ends the threads. Nothing may be admitted any more."""
        self._short.close()
        self._long.close()

    def admit(self, priority: Priority, size: int, deadline_ms: int) -> Admission:
        """Admits a request that announces a body of `size` bytes.

        Bytes are held as they arrive (`Admission.reserve`): a body that is announced and never
        sent occupies nothing. Raises Overloaded if the queue is full, DeadlineExceeded if the
        estimated wait is longer than the deadline.
        """
        wait = self._lane(size).estimated_wait(priority)
        if wait * 1000 > self._max_wait_ms or size > self._free_bytes(priority):
            raise Overloaded(_retry_after(wait))
        if wait * 1000 >= deadline_ms:
            raise DeadlineExceeded
        return Admission(priority, time.monotonic() + deadline_ms / 1000, self._reserve)

    def _free_bytes(self, priority: Priority) -> int:
        urgent, bulk = self._held_bytes["urgent"], self._held_bytes["bulk"]
        free = self._max_bytes - urgent - bulk
        return free if priority == "urgent" else min(free, self._max_bytes // 2 - bulk)

    def _reserve(self, priority: Priority, size: int) -> None:
        if size > self._free_bytes(priority):
            raise Overloaded(retry_after=1)
        self._held_bytes[priority] += size

    def _lane(self, size: int) -> Lane[JobT, ParsedT, PreparedT]:
        return self._short if size <= SHORT_BYTES else self._long

    def _move_to_long_lane(self, queued: QueuedJob[JobT, ParsedT]) -> None:
        """Raises DeadlineExceeded or Overloaded, by the estimated wait in the long lane."""
        wait = self._long.estimated_wait(queued.priority)
        if time.monotonic() + wait >= queued.deadline:
            raise DeadlineExceeded
        if wait * 1000 > self._max_wait_ms:
            raise Overloaded(_retry_after(wait))
        self._long.put(queued)
        self._long.wake()

    async def answer(
        self,
        admission: Admission,
        jobs: Sequence[JobT],
        disconnected: Callable[[], Awaitable[object]],
    ) -> list[bytes | Exception]:
        """Computes the jobs of a request. Returns the answer or the exception of each, in order.

        `disconnected` returns when the client disconnects; then ClientDisconnected is raised. A
        job that misses the deadline is answered with DeadlineExceeded.
        """
        loop = asyncio.get_running_loop()
        lane = self._lane(admission.body_bytes // max(1, len(jobs)))
        queued = [
            QueuedJob[JobT, ParsedT](
                job,
                admission.priority,
                admission.deadline,
                loop.create_future(),
                self._processor.cost_class(job),
            )
            for job in jobs
        ]
        admission.answers = [job.answer for job in queued]
        for job in queued:
            lane.put(job)
        await asyncio.sleep(0)  # lets requests that arrived at the same time queue up
        inline = self._in_loop and len(queued) == 1 and admission.body_bytes <= INLINE_BYTES
        if not inline or not lane.compute_inline(queued[0], INLINE_SECONDS):
            lane.wake(len(queued))
            await self._wait(admission, disconnected)
        results = [answer.exception() or answer.result() for answer in admission.answers]
        for result in results:
            if isinstance(result, ClientDisconnected) or not isinstance(result, bytes | Exception):
                raise result
        return [result for result in results if isinstance(result, bytes | Exception)]

    async def _wait(
        self, admission: Admission, disconnected: Callable[[], Awaitable[object]]
    ) -> None:
        """Waits for all answers, the deadline, or the client's disconnection."""
        timer = asyncio.get_running_loop().call_at(admission.deadline, _fail_at_deadline, admission)
        watch = asyncio.ensure_future(disconnected())
        watch.add_done_callback(partial(_fail_disconnected, admission))
        try:
            await asyncio.wait(admission.answers)
        finally:
            timer.cancel()
            watch.cancel()

    async def run_exclusive(self, task: Callable[[], None], seconds: float) -> None:
        """Runs a task in the short lane's thread, between batches. It queues as urgent.

        Raises the exception of the task, and TimeoutError after `seconds`.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._short.put(
            QueuedJob[JobT, ParsedT](task, "urgent", time.monotonic() + seconds, answer)
        )
        self._short.wake()
        await asyncio.wait_for(answer, seconds)


def _retry_after(wait_seconds: float) -> int:
    return max(1, math.ceil(wait_seconds))


def _fail_at_deadline(admission: Admission) -> None:
    admission.fail_pending(DeadlineExceeded())


def _fail_disconnected(admission: Admission, watch: "asyncio.Future[object]") -> None:
    if not watch.cancelled():
        admission.fail_pending(ClientDisconnected())
