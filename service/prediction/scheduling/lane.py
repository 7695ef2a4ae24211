"""A priority queue of jobs, and the thread that computes them in batches.

Jobs that are queued when the thread becomes idle form its next batch, up to BATCH_SECONDS of
estimated time. A job whose deadline has passed or whose client has disconnected is dropped before
it is computed; one that runs ends at its next check.
"""

import asyncio  # noqa: TC003 - of the annotations of dataclasses
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Generic, Literal, Protocol, TypeVar

from service.errors import DeadlineExceeded
from service.prediction.scheduling.gc_pause import paused_gc
from service.runtime.cost_estimate import TypicalJobTime
from service.telemetry.metrics import Metrics

Priority = Literal["urgent", "bulk"]
PRIORITIES: tuple[Priority, ...] = ("urgent", "bulk")  # from first to last

# Limit of a batch's estimated time, in seconds; a single job may take longer. An urgent job that
# arrives while a bulk batch is computed waits for one such batch at most.
BATCH_SECONDS: dict[Priority, float] = {"urgent": 0.02, "bulk": 0.005}

JobT = TypeVar("JobT")
ParsedT = TypeVar("ParsedT")
PreparedT = TypeVar("PreparedT")
JobT_contra = TypeVar("JobT_contra", contravariant=True)
Answer = bytes | Exception


class JobProcessor(Protocol[JobT_contra, ParsedT, PreparedT]):
    """The computation of jobs, in steps. Safe to call from several threads."""

    def cost_class(self, job: JobT_contra) -> Hashable:
        """Jobs of one class take about the same time."""

    def parse(self, job: JobT_contra) -> ParsedT:
        """Parses the job. An exception is the answer to the job."""

    def estimate_seconds(self, parsed: ParsedT) -> float:
        """Estimates the time of the steps that follow, in seconds."""

    def prepare(self, parsed: ParsedT, check: Callable[[], None]) -> PreparedT:
        """Computes what does not need a batch. An exception is the answer to the job.

        `check` is called between steps, also in `run`. It raises when no answer is needed.
        """

    def run(self, prepared: Sequence[PreparedT]) -> list[Answer]:
        """Returns the answers of a batch, in order."""

    def record(self, prepared: Sequence[PreparedT]) -> None:
        """Updates the metrics after the answers of a batch have been delivered."""


@dataclass
class QueuedJob(Generic[JobT, ParsedT]):
    """A job in a lane, or a task that the lane's thread runs between batches.

    `deadline`: monotonic time in seconds. `parsed` and `seconds` (the estimated time): known once
    the job is parsed.
    """

    job: JobT | Callable[[], Any]
    priority: Priority
    deadline: float
    answer: "asyncio.Future[Any]"
    cost_class: Hashable = None
    parsed: ParsedT | None = None
    seconds: float | None = None

    def check(self) -> None:
        """Raises DeadlineExceeded if no answer is needed."""
        if self.answer.done() or time.monotonic() > self.deadline:
            raise DeadlineExceeded


@dataclass(frozen=True)
class _Delivery:
    """The result for one job: its answer, or the exception that it raised."""

    answer: "asyncio.Future[Any]"
    result: Any


Batch = list[tuple[QueuedJob[JobT, ParsedT], PreparedT]]


class Lane(Generic[JobT, ParsedT, PreparedT]):
    """A queue and its thread. To be used from one event loop.

    After parsing, `move_long_job` moves jobs with an estimate above `max_seconds` to another lane.
    """

    def __init__(
        self,
        name: str,
        processor: JobProcessor[JobT, ParsedT, PreparedT],
        metrics: Metrics,
        max_seconds: float = float("inf"),
        move_long_job: Callable[[QueuedJob[JobT, ParsedT]], None] | None = None,
    ) -> None:
        self._processor, self._metrics = processor, metrics
        self._max_seconds, self._move_long_job = max_seconds, move_long_job
        self._queues: dict[Priority, deque[QueuedJob[JobT, ParsedT]]] = {
            priority: deque() for priority in PRIORITIES
        }
        self._wakeups: SimpleQueue[bool] = SimpleQueue()  # False: close
        self._typical_time = TypicalJobTime()
        self._computing = Lock()
        self._batch_ends = 0.0  # estimated end of the current batch, monotonic
        self._thread = Thread(target=self._run_thread, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Computes the queued jobs and ends the thread. No job may be added afterwards."""
        self._wakeups.put(item=False)
        self._thread.join()

    # ---- called from any thread ------------------------------------------------------------------

    def put(self, queued: QueuedJob[JobT, ParsedT], *, first: bool = False) -> None:
        """Queues a job, if `first` before its priority's others. Does not wake the thread."""
        queue = self._queues[queued.priority]
        (queue.appendleft if first else queue.append)(queued)

    def wake(self, count: int = 1) -> None:
        """Wakes the thread, once for each of `count` queued jobs."""
        for _ in range(count):
            self._wakeups.put(item=True)

    def estimated_wait(self, priority: Priority) -> float:
        """Estimates how long a new job of this priority would wait, in seconds."""
        before = PRIORITIES[: PRIORITIES.index(priority) + 1]
        queued = [job for p in before for job in list(self._queues[p])]
        running = max(0.0, self._batch_ends - time.monotonic())
        return running + sum(map(self._estimated_seconds, queued))

    def _estimated_seconds(self, queued: QueuedJob[JobT, ParsedT]) -> float:
        if queued.seconds is None:
            return self._typical_time.of_class(queued.cost_class)
        return queued.seconds

    # ---- called in the event loop ----------------------------------------------------------------

    def compute_inline(self, queued: QueuedJob[JobT, ParsedT], max_seconds: float) -> bool:
        """Computes a queued job in the event loop, which saves the switch to the thread.

        Returns False and computes nothing if the estimate is above `max_seconds`, if another job is
        queued, or if the thread is busy.
        """
        if not self._computing.acquire(blocking=False):
            return False
        try:
            all_queued = [job for queue in self._queues.values() for job in list(queue)]
            if all_queued != [queued]:
                return False  # another job is queued, or the thread has taken this one
            self._queues[queued.priority].popleft()
            began = time.monotonic()
            batch: Batch[JobT, ParsedT, PreparedT] = []
            try:
                if self._parse(queued) > max_seconds:
                    self.put(queued, first=True)
                    return False
                batch = [(queued, self._prepare(queued))]
                deliveries = self._compute(batch)
            except Exception as error:  # noqa: BLE001 - the exception is the answer
                deliveries = [_Delivery(queued.answer, error)]
            _set_results(deliveries)
        finally:
            self._computing.release()
        queued.answer.get_loop().call_soon(self._record, batch, time.monotonic() - began)
        return True

    # ---- called in the lane's thread -------------------------------------------------------------

    def _run_thread(self) -> None:
        while self._wakeups.get() or any(self._queues.values()):
            self._compute_batch()

    def _compute_batch(self) -> None:
        is_long_lane = self._move_long_job is None
        with self._computing, paused_gc() if is_long_lane else nullcontext():
            began = time.monotonic()
            batch = self._gather(began)
            deliveries = self._compute(batch)
            self._batch_ends = 0.0
        seconds = time.monotonic() - began
        self._deliver(deliveries)
        self._record(batch, seconds)

    def _gather(self, began: float) -> Batch[JobT, ParsedT, PreparedT]:
        """Takes and prepares the jobs of the next batch. Jobs that fail are answered at once."""
        batch: Batch[JobT, ParsedT, PreparedT] = []
        estimated = 0.0
        first_priority: Priority | None = None
        while True:
            priority = next((p for p in PRIORITIES if self._queues[p]), None)
            if priority is None or (first_priority == "urgent" and priority == "bulk"):
                return batch
            queued = self._queues[priority].popleft()
            try:
                added = self._add(queued, batch, estimated)
            except Exception as error:  # noqa: BLE001 - the exception is the answer
                self._deliver([_Delivery(queued.answer, error)])
                continue
            if added:
                first_priority = first_priority or priority
                estimated += queued.seconds or 0.0
                if max(time.monotonic() - began, estimated) >= BATCH_SECONDS[priority]:
                    return batch

    def _add(
        self,
        queued: QueuedJob[JobT, ParsedT],
        batch: Batch[JobT, ParsedT, PreparedT],
        batch_seconds: float,
    ) -> bool:
        """Prepares a job and adds it to the batch, whose estimated time is `batch_seconds`.

        Returns False for a job that is dropped or moved to the other lane, and for a task.
        """
        if queued.answer.done():
            return False
        queued.check()
        if callable(queued.job):
            self._deliver([_Delivery(queued.answer, queued.job())])
            return False
        seconds = self._parse(queued)
        queued.check()
        if seconds > self._max_seconds and self._move_long_job is not None:
            self._move_long_job(queued)
            return False
        self._batch_ends = min(time.monotonic() + batch_seconds + seconds, queued.deadline)
        batch.append((queued, self._prepare(queued)))
        return True

    def _parse(self, queued: QueuedJob[JobT, ParsedT]) -> float:
        """Parses a job, unless it is parsed. Returns its estimated time in seconds."""
        if queued.seconds is None:
            queued.parsed = self._processor.parse(queued.job)  # type: ignore[arg-type]  # no task
            queued.seconds = self._processor.estimate_seconds(queued.parsed)
        return queued.seconds

    def _prepare(self, queued: QueuedJob[JobT, ParsedT]) -> PreparedT:
        parsed, queued.parsed = queued.parsed, None  # free it as soon as possible
        return self._processor.prepare(parsed, queued.check)  # type: ignore[arg-type]  # is parsed

    def _compute(self, batch: Batch[JobT, ParsedT, PreparedT]) -> list[_Delivery]:
        """Computes a batch. If it fails, computes each of its jobs alone."""
        if not batch:
            return []
        try:
            answers = self._processor.run([prepared for _, prepared in batch])
        except Exception as error:  # noqa: BLE001 - the exception is the answer
            if len(batch) == 1:
                return [_Delivery(batch[0][0].answer, error)]
            return [delivery for entry in batch for delivery in self._compute([entry])]
        return [
            _Delivery(queued.answer, answer)
            for (queued, _), answer in zip(batch, answers, strict=True)
        ]

    def _deliver(self, deliveries: Sequence[_Delivery]) -> None:
        if deliveries:
            with suppress(RuntimeError):  # the event loop is closed
                deliveries[0].answer.get_loop().call_soon_threadsafe(_set_results, deliveries)

    def _record(self, batch: Batch[JobT, ParsedT, PreparedT], seconds: float) -> None:
        """Updates estimates and metrics, after the answers have been delivered."""
        if not batch:
            return
        estimates = [(queued.cost_class, queued.seconds or 0.0) for queued, _ in batch]
        self._typical_time.update(estimates, seconds)
        self._metrics.observe_batch(len(batch))
        self._processor.record([prepared for _, prepared in batch])


def _set_results(deliveries: Sequence[_Delivery]) -> None:
    for delivery in deliveries:
        if delivery.answer.done():
            continue
        if isinstance(delivery.result, Exception):
            delivery.answer.set_exception(delivery.result)
        else:
            delivery.answer.set_result(delivery.result)
