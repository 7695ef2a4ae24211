"""A queue by priority, and the thread that computes what waits in it.

What the thread finds waiting becomes its next batch, up to what BATCH_SECONDS allow. What is no
longer wanted (its deadline has passed, its client has disconnected) is not computed, and what runs
already ends at the next check.
"""

import asyncio  # noqa: TC003 - of the annotations of dataclasses
import gc
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Generic, Literal, Protocol, TypeVar

from service.errors import DeadlineExceeded
from service.telemetry.metrics import Metrics

Priority = Literal["urgent", "bulk"]
PRIORITIES: tuple[Priority, ...] = ("urgent", "bulk")

# How long a batch may take, as far as its costs are known; one request may take longer. An urgent
# request that comes while bulk is computed waits no longer than for such a batch.
BATCH_SECONDS: dict[Priority, float] = {"urgent": 0.02, "bulk": 0.005}
_RECENT = 0.1  # the weight of the latest batch in what a request takes
_SHORTEST = 1e-4  # seconds, when a batch's time is shared by its jobs

J = TypeVar("J")
R = TypeVar("R")
P = TypeVar("P")
J_contra = TypeVar("J_contra", contravariant=True)
Answer = bytes | Exception


class Kernel(Protocol[J_contra, R, P]):
    """What is computed. Several threads may ask at once."""

    def kind(self, job: J_contra) -> Hashable:
        """Jobs of one kind take about as long."""

    def read(self, job: J_contra) -> R:
        """What the job asks for. Takes time by its bytes. What it raises is the answer."""

    def expected(self, read: R) -> float:
        """How many seconds the rest takes."""

    def prepare(self, read: R, check: Callable[[], None]) -> P:
        """What can be done of a job alone. What it raises is the answer to the job.

        `check` is called now and then, also in `run`, and raises once the answer is not wanted.
        """

    def run(self, prepared: Sequence[P]) -> list[Answer]:
        """The answers of a batch, in order."""

    def count(self, prepared: Sequence[P]) -> None:
        """Writes down what became of a batch. Comes after its answers were given: none waits."""


@dataclass
class Work(Generic[J, R]):
    """A job, or a task that only the thread may do.

    `read` and `seconds`: what is known of the job once it was read.
    """

    job: J | Callable[[], Any]
    priority: Priority
    deadline: float
    answer: "asyncio.Future[Any]"
    kind: Hashable = None
    read: R | None = None
    seconds: float | None = None

    def check(self) -> None:
        """Raises DeadlineExceeded once the answer is not wanted any more."""
        if self.answer.done() or time.monotonic() > self.deadline:
            raise DeadlineExceeded


Answered = tuple["asyncio.Future[Any]", Any]
Batch = list[tuple[Work[J, R], P]]


class Lane(Generic[J, R, P]):
    """To be used from one event loop.

    `longest`: the seconds that a job may be expected to take here; `pass_on` gets the others.
    """

    def __init__(
        self,
        name: str,
        kernel: Kernel[J, R, P],
        metrics: Metrics,
        longest: float = float("inf"),
        pass_on: Callable[[Work[J, R]], None] | None = None,
    ) -> None:
        self._kernel, self._metrics = kernel, metrics
        self._longest, self._pass_on = longest, pass_on
        self._waiting: dict[Priority, deque[Work[J, R]]] = {p: deque() for p in PRIORITIES}
        self._arrived: SimpleQueue[bool] = SimpleQueue()  # False: there will be no more
        self._typical: dict[Hashable, float] = {}  # seconds of a job, by kind
        self._computing = Lock()
        self._ends = 0.0  # when the batch that is computed now is expected to end
        self._thread = Thread(target=self._compute_all, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Once what waits is computed. Nothing may be asked any more."""
        self._arrived.put(item=False)
        self._thread.join()

    # ---- for all threads -------------------------------------------------------------------------

    def put(self, work: Work[J, R], *, first: bool = False) -> None:
        """`first`: before all others of its priority."""
        queue = self._waiting[work.priority]
        (queue.appendleft if first else queue.append)(work)

    def wake(self, count: int = 1) -> None:
        """Has the thread look at what was put."""
        for _ in range(count):
            self._arrived.put(item=True)

    def ahead(self, priority: Priority) -> float:
        """How many seconds those take that come before a job of this priority."""
        before = PRIORITIES[: PRIORITIES.index(priority) + 1]
        waiting = [work for p in before for work in list(self._waiting[p])]
        running = max(0.0, self._ends - time.monotonic())
        return running + sum(map(self._seconds_of, waiting))

    def _seconds_of(self, work: Work[J, R]) -> float:
        return self._typical.get(work.kind, 0.0) if work.seconds is None else work.seconds

    # ---- in the event loop -----------------------------------------------------------------------

    def compute_alone(self, work: Work[J, R], most_seconds: float) -> bool:
        """Computes the work here, if it is short, nothing else waits, and the thread is idle."""
        if not self._computing.acquire(blocking=False):
            return False
        try:
            waiting = [one for queue in self._waiting.values() for one in list(queue)]
            if waiting != [work]:
                return False  # there are others, or the thread was faster
            self._waiting[work.priority].popleft()
            began = time.monotonic()
            batch: Batch[J, R, P] = []
            answered = []
            try:
                if self._read(work) > most_seconds:
                    self.put(work, first=True)
                    return False
                batch = [(work, self._prepare(work))]
                answered = self._computed(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                answered = [(work.answer, error)]
            _set(answered)
        finally:
            self._computing.release()
        work.answer.get_loop().call_soon(self._count, batch, time.monotonic() - began)
        return True

    # ---- in the thread ---------------------------------------------------------------------------

    def _compute_all(self) -> None:
        while self._arrived.get() or any(self._waiting.values()):
            self._compute_batch()

    def _compute_batch(self) -> None:
        with self._computing, nullcontext() if self._pass_on else COLLECTION.paused():
            began = time.monotonic()
            batch = self._gather(began)
            answered = self._computed(batch)
            self._ends = 0.0
        seconds = time.monotonic() - began
        self._deliver(answered)
        self._count(batch, seconds)

    def _gather(self, began: float) -> Batch[J, R, P]:
        """Those that are computed now, prepared. What needs no model is answered meanwhile."""
        batch: Batch[J, R, P] = []
        expected = 0.0
        starts_with: Priority | None = None
        while True:
            priority = next((p for p in PRIORITIES if self._waiting[p]), None)
            if priority is None or (starts_with == "urgent" and priority == "bulk"):
                return batch
            work = self._waiting[priority].popleft()
            if work.answer.done():
                continue
            try:
                work.check()
                if callable(work.job):
                    self._deliver([(work.answer, work.job())])
                    continue
                seconds = self._read(work)
                work.check()
                if seconds > self._longest and self._pass_on is not None:
                    self._pass_on(work)
                    continue
                self._ends = min(time.monotonic() + expected + seconds, work.deadline)
                prepared = self._prepare(work)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                self._deliver([(work.answer, error)])
                continue
            starts_with = starts_with or priority
            batch.append((work, prepared))
            expected += seconds
            if max(time.monotonic() - began, expected) >= BATCH_SECONDS[priority]:
                return batch

    def _read(self, work: Work[J, R]) -> float:
        """How long the work is expected to take."""
        if work.seconds is None:
            work.read = self._kernel.read(work.job)  # type: ignore[arg-type]  # it is no task
            work.seconds = self._kernel.expected(work.read)
        return work.seconds

    def _prepare(self, work: Work[J, R]) -> P:
        read, work.read = work.read, None  # not kept beyond what is made of it
        return self._kernel.prepare(read, work.check)  # type: ignore[arg-type]  # it was read

    def _computed(self, batch: Batch[J, R, P]) -> list[Answered]:
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

    def _count(self, batch: Batch[J, R, P], seconds: float) -> None:
        """Learns how long a job of each kind takes, and counts them: nobody waits for it."""
        if not batch:
            return
        expected = [max(work.seconds or 0.0, _SHORTEST) for work, _ in batch]
        for (work, _), share in zip(batch, expected, strict=True):
            each = seconds * share / sum(expected)
            # By ratios: a batch that the machine kept waiting must not have others refused.
            typical = self._typical.get(work.kind, each)
            self._typical[work.kind] = typical ** (1 - _RECENT) * each**_RECENT
        self._metrics.batch(len(batch))
        self._kernel.count([prepared for _, prepared in batch])


class _Collection:
    """The garbage collector. `paused` may be entered several times at once."""

    def __init__(self) -> None:
        self._pauses, self._lock = 0, Lock()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While a large body is read, the collector would look through all that was read, again
        and again, and hold the event loop for up to a second.
        """
        self._pause(1)
        try:
            yield
        finally:
            self._pause(-1)

    def _pause(self, by: int) -> None:
        with self._lock:
            self._pauses += by
            (gc.disable if self._pauses else gc.enable)()


COLLECTION = _Collection()


def _set(answered: Sequence[Answered]) -> None:
    for answer, found in answered:
        if answer.done():
            continue
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)
