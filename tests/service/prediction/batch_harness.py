"""A batcher with a fake processor, for the tests of admission, batching and lanes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, current_thread
from typing import Any

from service.prediction.scheduling.batcher import INLINE_SECONDS, Batcher
from service.prediction.scheduling.lane import Priority
from service.telemetry.metrics import Metrics

LONG = 60_000  # ms
Results = list[bytes | Exception]


@dataclass
class FakeProcessor:
    """Answers a job with its own name. `open`: set while it may compute.

    `costs`: estimated seconds of a job. A job's cost class is its first word. While `open` is not
    set, the estimate of each job is too long for the event loop. The job "endless" runs until its
    check raises.
    """

    open: Event = field(default_factory=Event)
    costs: dict[str, float] = field(default_factory=dict)
    batches: list[list[str]] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)
    busy: Event = field(default_factory=Event)
    endless: Event = field(default_factory=Event)

    def cost_class(self, job: str) -> str:
        return job.split(maxsplit=1)[0]

    def parse(self, job: str) -> str:
        if job.startswith("unreadable"):
            raise ValueError(job)
        return job

    def estimate_seconds(self, parsed: str) -> float:
        return self.costs.get(parsed, 0.0 if self.open.is_set() else 2 * INLINE_SECONDS)

    def prepare(self, parsed: str, check: Callable[[], None]) -> str:
        if parsed.startswith("malformed"):
            raise ValueError(parsed)
        while parsed == "endless":
            self.endless.set()
            check()
        return parsed

    def run(self, prepared: Sequence[str]) -> list[bytes | Exception]:
        self.busy.set()
        assert self.open.wait(60)
        self.batches.append(list(prepared))
        self.threads.append(current_thread().name)
        if any(job.startswith("poison") for job in prepared):
            raise ArithmeticError
        return [job.encode() for job in prepared]

    def record(self, prepared: Sequence[str]) -> None:
        self.recorded += prepared

    @property
    def computed(self) -> list[str]:
        return [job for batch in self.batches for job in batch]


class Harness:
    """A batcher with a fake processor, and its clients."""

    def __init__(self, metrics: Metrics, max_wait_ms: int, max_bytes: int) -> None:
        self.processor = FakeProcessor()
        self.batcher: Batcher[str, str, str] = Batcher(
            self.processor, metrics, max_wait_ms, max_bytes
        )

    async def ask(
        self,
        *jobs: str,
        priority: Priority = "urgent",
        ms: int = LONG,
        size: int = 1,
        disconnected: Awaitable[object] | None = None,
    ) -> Results:
        with self.batcher.admit(priority, size, ms) as admission:
            admission.reserve(size)
            forever = asyncio.get_running_loop().create_future()
            return await self.batcher.answer(admission, jobs, lambda: disconnected or forever)

    async def queue(self, *jobs: str, **options: Any) -> "asyncio.Task[Results]":
        """Sends a request and returns once it is queued."""
        task = asyncio.create_task(self.ask(*jobs, **options))
        await asyncio.sleep(0.005)
        return task

    async def occupy(self) -> "asyncio.Task[Results]":
        """Sends a first job, which is computed until the processor is opened."""
        task = await self.queue("first")
        await asyncio.to_thread(self.processor.busy.wait, 10)
        return task
