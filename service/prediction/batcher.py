"""Admission, and two lanes: what is short never waits for what is long.

The event loop admits requests and answers them. Requests that are queued when a lane becomes idle
form its next batch: there is no batching delay. A short request that comes alone is computed in the
event loop, since the way to a thread and back would take a tenth of its time. Large bodies, and
what is expected to take longer than SHORT_SECONDS once it was read, are computed in the long lane.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, Self

from service.errors import ClientDisconnected, DeadlineExceeded, Overloaded
from service.prediction.lane import BATCH_SECONDS, PRIORITIES, J, Kernel, Lane, P, Priority, R, Work
from service.telemetry.metrics import Metrics

__all__ = ["BATCH_SECONDS", "PRIORITIES", "Batcher", "Call", "Kernel", "Priority"]

# What the event loop may compute itself, during which it does nothing else.
ALONE_BYTES, ALONE_SECONDS = 64 * 2**10, 0.005
# What the short lane computes.
SHORT_BYTES, SHORT_SECONDS = 2**20, 0.1


class Call:
    """An admitted request, from before its body is read until it is answered.

    `deadline`: by the monotonic clock. `size`: bytes of its body that have arrived and are held.
    `hold`: adds to the bytes of all bodies of a priority, or raises Overloaded.
    """

    def __init__(
        self, priority: Priority, deadline: float, hold: Callable[[Priority, int], None]
    ) -> None:
        self.priority, self.size, self.deadline = priority, 0, deadline
        self.answers: list[asyncio.Future[bytes]] = []
        self._hold = hold

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hold(self.priority, -self.size)

    def hold(self, size: int) -> None:
        """Holds more bytes of the body. Raises Overloaded if all bodies have too many."""
        self._hold(self.priority, size)
        self.size += size

    def end(self, error: Exception) -> None:
        """Whatever is not answered yet is not wanted any more."""
        for answer in self.answers:
            if not answer.done():
                answer.set_exception(error)


class Batcher(Generic[J, R, P]):
    """Admission and the lanes before one kernel. To be used from one event loop.

    `most_ms`: how long those ahead of a request may take; `most_bytes`: of the bodies of all
    requests that are in the house at once, half of which bulk may have. `in_loop`: whether the
    event loop may compute a short request: not if the graphs are in a process that may hang.
    """

    def __init__(
        self,
        kernel: Kernel[J, R, P],
        metrics: Metrics,
        most_ms: int,
        most_bytes: int,
        *,
        in_loop: bool = True,
    ) -> None:
        self._kernel, self._in_loop = kernel, in_loop
        self._most_ms, self._most_bytes = most_ms, most_bytes
        self._bytes = dict.fromkeys(PRIORITIES, 0)
        self._long: Lane[J, R, P] = Lane("m3h-long", kernel, metrics)
        self._short: Lane[J, R, P] = Lane(
            "m3h-kernel", kernel, metrics, SHORT_SECONDS, self._pass_on
        )

    def start(self) -> None:
        self._short.start()
        self._long.start()

    def close(self) -> None:
        """Once what waits is computed. Nothing may be asked any more."""
        self._short.close()
        self._long.close()

    def admitted(self, priority: Priority, size: int, milliseconds: int) -> Call:
        """A place for a request whose body is to have `size` bytes, to be answered in so many ms.

        The bytes are held as they arrive (`Call.hold`): a body that never comes takes no room.
        Raises Overloaded if there is no room, DeadlineExceeded if those ahead take too long.
        """
        ahead = self._lane(size).ahead(priority)
        if ahead * 1000 > self._most_ms or size > self._bytes_left(priority):
            raise Overloaded(max(1, math.ceil(ahead)))
        if ahead * 1000 >= milliseconds:
            raise DeadlineExceeded
        return Call(priority, time.monotonic() + milliseconds / 1000, self._hold)

    def _bytes_left(self, priority: Priority) -> int:
        urgent, bulk = self._bytes["urgent"], self._bytes["bulk"]
        left = self._most_bytes - urgent - bulk
        return left if priority == "urgent" else min(left, self._most_bytes // 2 - bulk)

    def _hold(self, priority: Priority, size: int) -> None:
        if size > self._bytes_left(priority):
            raise Overloaded(1)
        self._bytes[priority] += size

    def _lane(self, size: int) -> Lane[J, R, P]:
        return self._short if size <= SHORT_BYTES else self._long

    def _pass_on(self, work: Work[J, R]) -> None:
        """To the long lane. Raises DeadlineExceeded, or Overloaded, if its queue is too long."""
        ahead = self._long.ahead(work.priority)
        if time.monotonic() + ahead >= work.deadline:
            raise DeadlineExceeded
        if ahead * 1000 > self._most_ms:
            raise Overloaded(max(1, math.ceil(ahead)))
        self._long.put(work)
        self._long.wake()

    async def answer(
        self, call: Call, jobs: Sequence[J], gone: Callable[[], Awaitable[object]]
    ) -> list[bytes | Exception]:
        """The answer to each job, or what was raised. `gone` returns if the caller hangs up.

        Raises ClientDisconnected then. A job that misses the deadline gets DeadlineExceeded.
        """
        loop = asyncio.get_running_loop()
        lane = self._lane(call.size // max(1, len(jobs)))
        works = [
            Work[J, R](
                job, call.priority, call.deadline, loop.create_future(), self._kernel.kind(job)
            )
            for job in jobs
        ]
        call.answers = [work.answer for work in works]
        for work in works:
            lane.put(work)
        await asyncio.sleep(0)  # who comes at the same moment does not come alone
        alone = self._in_loop and len(works) == 1 and call.size <= ALONE_BYTES
        if not alone or not lane.compute_alone(works[0], ALONE_SECONDS):
            lane.wake(len(works))
            await self._answered(call, gone)
        found = [answer.exception() or answer.result() for answer in call.answers]
        for one in found:
            if isinstance(one, ClientDisconnected) or not isinstance(one, bytes | Exception):
                raise one
        return [one for one in found if isinstance(one, bytes | Exception)]

    async def _answered(self, call: Call, gone: Callable[[], Awaitable[object]]) -> None:
        """By a lane, or by the deadline, or because nobody is there to be answered."""
        late = asyncio.get_running_loop().call_at(call.deadline, _too_late, call)
        watch = asyncio.ensure_future(gone())
        watch.add_done_callback(partial(_hung_up, call))
        try:
            await asyncio.wait(call.answers)
        finally:
            late.cancel()
            watch.cancel()

    async def between(self, task: Callable[[], None], seconds: float) -> None:
        """Has the short lane do something between batches; it waits as an urgent request does.

        Raises what the task raises, and TimeoutError if it is not done in time.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._short.put(Work[J, R](task, "urgent", time.monotonic() + seconds, answer))
        self._short.wake()
        await asyncio.wait_for(answer, seconds)


def _too_late(call: Call) -> None:
    call.end(DeadlineExceeded())


def _hung_up(call: Call, watch: "asyncio.Future[object]") -> None:
    if not watch.cancelled():
        call.end(ClientDisconnected())
