"""Who waits is computed together as soon as the last batch is done; nobody waits for a timer.

The event loop admits requests and answers them; one thread computes. What it finds waiting becomes
its next batch, up to what BATCH_SECONDS allow. What is no longer wanted (its deadline has passed or
cannot be kept, its caller hung up) is never computed. A short request that comes alone is computed
in the event loop, since the way to the thread and back would take a tenth of its time.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Generic, Literal, Protocol, Self, TypeVar

from starlette.requests import ClientDisconnect

from service import problems
from service.metrics import Metrics

Priority = Literal["urgent", "bulk"]
PRIORITIES: tuple[Priority, ...] = ("urgent", "bulk")

# How long a batch may take, as far as its costs are known; one request may take longer. An urgent
# request that comes while bulk is computed waits no longer than for such a batch.
BATCH_SECONDS: dict[Priority, float] = {"urgent": 0.02, "bulk": 0.005}
# What the event loop may compute itself, during which it does nothing else.
ALONE_BYTES, ALONE_SECONDS = 64 * 2**10, 0.005
_RECENT = 0.1  # the weight of the latest batch in what a request takes

J = TypeVar("J")
J_contra = TypeVar("J_contra", contravariant=True)
P = TypeVar("P")


class Kernel(Protocol[J_contra, P]):
    """What is computed, by one thread at a time."""

    def prepare(self, job: J_contra) -> P:
        """What can be done of a job alone. What it raises is the answer to the job."""

    def seconds(self, prepared: P) -> float:
        """How long it is expected to take in a batch."""

    def run(self, prepared: Sequence[P]) -> list[bytes]:
        """The answers of a batch, in order."""

    def count(self, prepared: Sequence[P]) -> None:
        """Writes down what became of a batch. Comes after its answers were given: none waits."""


class Call:
    """One request's place in the house, from before its body is read until it is answered.

    `taken`: the bytes of all bodies of each priority. `deadline`: by the monotonic clock.
    """

    def __init__(
        self, priority: Priority, size: int, deadline: float, taken: dict[Priority, int]
    ) -> None:
        self.priority, self.size, self.deadline = priority, size, deadline
        self.answers: list[asyncio.Future[bytes]] = []
        self._taken = taken

    def __enter__(self) -> Self:
        self._taken[self.priority] += self.size
        return self

    def __exit__(self, *_: object) -> None:
        self._taken[self.priority] -= self.size

    def end(self, error: Exception) -> None:
        """Whatever is not answered yet is not wanted any more."""
        for answer in self.answers:
            if not answer.done():
                answer.set_exception(error)


@dataclass(frozen=True)
class _Work(Generic[J]):
    """A job, or something else that only the thread may do."""

    job: J | Callable[[], None]
    deadline: float
    answer: "asyncio.Future[bytes]"


Answered = tuple["asyncio.Future[bytes]", bytes | Exception]


class Batcher(Generic[J, P]):
    """Queues before one kernel. To be used from one event loop.

    `most_ms`: how long those ahead of a request may take; `most_bytes`: of the bodies of all
    requests that are in the house at once, half of which bulk may have.
    """

    def __init__(
        self, kernel: Kernel[J, P], metrics: Metrics, most_ms: int, most_bytes: int
    ) -> None:
        self._kernel, self._metrics = kernel, metrics
        self._most_ms, self._most_bytes = most_ms, most_bytes
        self._bytes = dict.fromkeys(PRIORITIES, 0)
        self._waiting: dict[Priority, deque[_Work[J]]] = {p: deque() for p in PRIORITIES}
        self._arrived: SimpleQueue[bool] = SimpleQueue()  # False: there will be no more
        self._seconds = 0.0  # that a request takes of the thread; 0 while nobody knows
        self._computing = Lock()
        self._begun: list[tuple[_Work[J], P]] = []  # prepared, and too long for the event loop
        self._thread = Thread(target=self._work, name="m3h-kernel", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Once what waits is computed. Nothing may be asked any more."""
        self._arrived.put(item=False)
        self._thread.join()

    # ---- in the event loop -----------------------------------------------------------------------

    def admitted(self, priority: Priority, size: int, milliseconds: int) -> Call:
        """A place for a request with a body of `size` bytes, to be answered in so many ms.

        Raises Refused: 503 if there is none, 504 if those ahead take longer than that.
        """
        ahead = self._ahead(priority)
        urgent, bulk = self._bytes["urgent"], self._bytes["bulk"]
        bytes_left = self._most_bytes - urgent - bulk
        if priority == "bulk":
            bytes_left = min(bytes_left, self._most_bytes // 2 - bulk)
        if ahead * 1000 > self._most_ms or size > bytes_left:
            raise problems.busy(max(1, math.ceil(ahead)))
        if ahead * 1000 >= milliseconds:
            raise problems.late()
        return Call(priority, size, time.monotonic() + milliseconds / 1000, self._bytes)

    def _ahead(self, priority: Priority) -> float:
        """How long those that come before take."""
        waiting = [self._waiting[p] for p in PRIORITIES[: PRIORITIES.index(priority) + 1]]
        return sum(map(len, waiting)) * self._seconds

    async def answer(
        self, call: Call, jobs: Sequence[J], gone: Callable[[], Awaitable[object]]
    ) -> list[bytes | Exception]:
        """The answer to each job, or what was raised. `gone` returns if the caller hangs up.

        Raises ClientDisconnect then. A job that misses the deadline gets Refused, a 504.
        """
        loop = asyncio.get_running_loop()
        call.answers = [loop.create_future() for _ in jobs]
        for job, answer in zip(jobs, call.answers, strict=True):
            self._waiting[call.priority].append(_Work(job, call.deadline, answer))
        await asyncio.sleep(0)  # who comes at the same moment does not come alone
        if len(jobs) > 1 or call.size > ALONE_BYTES or not self._computed_here(call):
            for _ in jobs:
                self._arrived.put(item=True)
            await self._answered(call, gone)
        found = [answer.exception() or answer.result() for answer in call.answers]
        for one in found:
            if isinstance(one, ClientDisconnect) or not isinstance(one, bytes | Exception):
                raise one
        return [one for one in found if isinstance(one, bytes | Exception)]

    async def _answered(self, call: Call, gone: Callable[[], Awaitable[object]]) -> None:
        """By the thread, or by the deadline, or because nobody is there to be answered."""
        late = asyncio.get_running_loop().call_at(call.deadline, _too_late, call)
        watch = asyncio.ensure_future(gone())
        watch.add_done_callback(partial(_hung_up, call))
        try:
            await asyncio.wait(call.answers)
        finally:
            late.cancel()
            watch.cancel()

    def _computed_here(self, call: Call) -> bool:
        """Computes the call, if it is short, nobody else waits, and the thread is idle."""
        if not self._computing.acquire(blocking=False):
            return False
        try:
            waiting = [work.answer for queue in self._waiting.values() for work in queue]
            if waiting != call.answers:
                return False  # there are others, or the thread was faster
            began = time.monotonic()
            batch, answered = self._batch(began)
            if sum(self._kernel.seconds(one) for _, one in batch) > ALONE_SECONDS:
                self._begun = batch
                return False
            _set(answered + self._computed(batch))
        finally:
            self._computing.release()
        asyncio.get_running_loop().call_soon(self._count, batch, time.monotonic() - began)
        return True

    async def between(self, task: Callable[[], None], seconds: float) -> None:
        """Has the thread do something between batches; it waits as an urgent request does.

        Raises what the task raises, and TimeoutError if it is not done in time.
        """
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting["urgent"].append(_Work(task, time.monotonic() + seconds, answer))
        self._arrived.put(item=True)
        await asyncio.wait_for(answer, seconds)

    # ---- in the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        while self._arrived.get() or any(self._waiting.values()):
            with self._computing:
                began = time.monotonic()
                batch, answered = self._batch(began)
                answered += self._computed(batch)
            seconds = time.monotonic() - began
            self._deliver(answered)
            self._count(batch, seconds)

    def _batch(self, began: float) -> tuple[list[tuple[_Work[J], P]], list[Answered]]:
        """Those that are computed now, prepared; and those that were answered by that."""
        batch, self._begun = self._begun, []
        answered: list[Answered] = []
        expected = sum(self._kernel.seconds(prepared) for _, prepared in batch)
        starts_with: Priority | None = "urgent" if batch else None
        while True:
            priority = next((p for p in PRIORITIES if self._waiting[p]), None)
            if priority is None or (starts_with == "urgent" and priority == "bulk"):
                return batch, answered
            work = self._waiting[priority].popleft()
            if work.answer.done():
                continue
            if time.monotonic() + self._seconds > work.deadline:
                answered.append((work.answer, problems.late()))
                continue
            try:
                if callable(work.job):
                    work.job()
                    answered.append((work.answer, b""))
                    continue
                prepared = self._kernel.prepare(work.job)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                answered.append((work.answer, error))
                continue
            starts_with = starts_with or priority
            batch.append((work, prepared))
            expected += self._kernel.seconds(prepared)
            if time.monotonic() - began + expected >= BATCH_SECONDS[priority]:
                return batch, answered

    def _computed(self, batch: Sequence[tuple[_Work[J], P]]) -> list[Answered]:
        """Each on its own if one of them fails the others."""
        if not batch:
            return []
        try:
            found = self._kernel.run([prepared for _, prepared in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            if len(batch) == 1:
                return [(batch[0][0].answer, error)]
            return [one for alone in batch for one in self._computed([alone])]
        return [(work.answer, one) for (work, _), one in zip(batch, found, strict=True)]

    def _deliver(self, answered: Sequence[Answered]) -> None:
        if answered:
            # A loop that is closed has nobody left to tell.
            with suppress(RuntimeError):
                answered[0][0].get_loop().call_soon_threadsafe(_set, answered)

    def _count(self, batch: Sequence[tuple[_Work[J], P]], seconds: float) -> None:
        """Learns how long one takes, and writes down what became of them: nobody waits for it."""
        if batch:
            each = seconds / len(batch)
            # By ratios: a batch that the machine kept waiting must not have others refused.
            self._seconds = (self._seconds or each) ** (1 - _RECENT) * each**_RECENT
            self._metrics.batch(len(batch))
            self._kernel.count([prepared for _, prepared in batch])


def _too_late(call: Call) -> None:
    call.end(problems.late())


def _hung_up(call: Call, watch: "asyncio.Future[object]") -> None:
    if not watch.cancelled():
        call.end(ClientDisconnect())


def _set(answered: Sequence[Answered]) -> None:
    for answer, found in answered:
        if answer.done():
            continue
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)
