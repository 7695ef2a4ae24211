"""Admission, priorities, deadlines and the two lanes of the batcher."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from threading import Event, current_thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ClientDisconnected, DeadlineExceeded, Overloaded
from service.prediction.batcher import (
    INLINE_BYTES,
    INLINE_SECONDS,
    SHORT_BYTES,
    SHORT_SECONDS,
    Batcher,
)
from service.prediction.lane import BATCH_SECONDS, Priority
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


@pytest.fixture
def harness(bundle) -> Callable[..., Any]:
    @asynccontextmanager
    async def start(
        max_wait_ms: int = LONG, max_bytes: int = 10 * INLINE_BYTES
    ) -> AsyncIterator[Harness]:
        started = Harness(Metrics(), max_wait_ms, max_bytes)
        started.batcher.start()
        try:
            yield started
        finally:
            started.processor.open.set()
            await asyncio.to_thread(started.batcher.close)

    return start


def test_a_short_request_that_arrives_alone_is_computed_in_the_event_loop(harness):
    async def run() -> None:
        async with harness() as h:
            h.processor.open.set()
            assert await h.ask("a") == [b"a"]
            assert h.processor.threads == [current_thread().name]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("jobs", "size", "cost"),
    [
        pytest.param(["a"], INLINE_BYTES + 1, 0.0, id="large"),
        pytest.param(["a"], 1, 2 * INLINE_SECONDS, id="long"),
        pytest.param(["a", "b"], 1, 0.0, id="several"),
    ],
)
def test_large_long_and_multiple_jobs_are_computed_in_the_thread(harness, jobs, size, cost):
    async def run() -> None:
        async with harness() as h:
            h.processor.open.set()
            h.processor.costs = {"a": cost}
            await h.ask(*jobs, size=size)
            assert h.processor.computed == jobs
            assert set(h.processor.threads) == {"m3h-short"}

    asyncio.run(run())


def test_simultaneous_requests_form_one_batch_and_are_recorded_once(harness):
    async def run() -> None:
        async with harness() as h:
            h.processor.open.set()
            await asyncio.gather(*map(h.ask, "abc"))
            assert sorted(h.processor.computed) == ["a", "b", "c"]
            assert set(h.processor.threads) == {"m3h-short"}
            await h.ask("d")
            await asyncio.sleep(0.01)
            assert sorted(h.processor.recorded) == ["a", "b", "c", "d"]

    asyncio.run(run())


def test_requests_that_arrive_during_a_batch_form_the_next_one(harness):
    async def run() -> None:
        async with harness() as h:
            tasks = [await h.occupy(), *[await h.queue(name) for name in "abc"]]
            h.processor.open.set()
            assert await asyncio.gather(*tasks) == [[b"first"], [b"a"], [b"b"], [b"c"]]
            assert h.processor.batches == [["first"], ["a", "b", "c"]]

    asyncio.run(run())


@pytest.mark.parametrize("priority", ["urgent", "bulk"])
def test_a_batch_ends_at_its_limit_of_estimated_time(harness, priority: Priority):
    async def run() -> None:
        async with harness() as h:
            h.processor.costs = dict.fromkeys("abcd", 0.6 * BATCH_SECONDS[priority]) | {"e": 0.09}
            first = await h.occupy()
            rest = await h.queue(*"abcde", priority=priority)
            h.processor.open.set()
            await asyncio.gather(first, rest)
            assert h.processor.batches == [["first"], ["a", "b"], ["c", "d"], ["e"]]

    asyncio.run(run())


def test_an_urgent_batch_goes_first_and_contains_no_bulk_job(harness):
    async def run() -> None:
        async with harness() as h:
            first = await h.occupy()
            bulk = await h.queue("a", "b", priority="bulk")
            urgent = await h.queue("c")
            h.processor.open.set()
            await asyncio.gather(first, bulk, urgent)
            assert h.processor.batches == [["first"], ["c"], ["a", "b"]]

    asyncio.run(run())


def test_a_failing_job_does_not_fail_the_rest_of_its_batch(harness):
    async def run() -> None:
        async with harness() as h:
            first = await h.occupy()
            rest = await h.queue("a", "unreadable", "malformed", "poison", "b")
            h.processor.open.set()
            await first
            a, unreadable, malformed, poison, b = await rest
            assert (a, b) == (b"a", b"b")
            assert isinstance(unreadable, ValueError)
            assert isinstance(malformed, ValueError)
            assert isinstance(poison, ArithmeticError)

    asyncio.run(run())


def test_a_job_is_answered_at_its_deadline_and_dropped(harness):
    async def run() -> None:
        async with harness() as h:
            first = await h.occupy()
            began = time.monotonic()
            (error,) = await h.ask("late", ms=50)
            assert isinstance(error, DeadlineExceeded)
            assert time.monotonic() - began < 5  # the processor is still busy
            h.processor.open.set()
            await first
            await h.ask("next")
            assert h.processor.computed == ["first", "next"]

    asyncio.run(run())


def test_a_request_is_refused_if_the_estimated_wait_exceeds_its_deadline(harness):
    async def run() -> None:
        async with harness() as h:
            h.processor.open.set()
            h.processor.prepare = lambda job, _: time.sleep(0.02) or job
            await h.ask("a 0")
            h.processor.open.clear()
            h.processor.busy.clear()
            tasks = [await h.occupy(), await h.queue(*[f"a {i}" for i in range(9)])]
            with pytest.raises(DeadlineExceeded):
                await h.ask("a 9", ms=100)
            h.processor.open.set()
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_a_full_queue_refuses_with_a_time_to_retry(harness):
    async def run() -> None:
        async with harness(max_wait_ms=50) as h:
            h.processor.open.set()
            h.processor.prepare = lambda job, _: time.sleep(0.02) or job
            await h.ask("a 0")  # the batcher learns how long a job takes
            h.processor.open.clear()
            h.processor.busy.clear()
            tasks = [await h.occupy(), await h.queue("a 1", "a 2", "a 3")]
            with pytest.raises(Overloaded) as full:
                await h.ask("e")
            assert full.value.retry_after >= 1
            h.processor.open.set()
            await asyncio.gather(*tasks)
            assert await h.ask("e") == [b"e"]

    asyncio.run(run())


def test_bulk_bodies_may_hold_half_of_the_memory_limit(harness):
    async def run() -> None:
        async with harness(max_bytes=10) as h:
            tasks = [await h.occupy()]
            tasks.append(await h.queue("bulk", size=5, priority="bulk"))
            for size, priority in ((1, "bulk"), (5, "urgent")):
                with pytest.raises(Overloaded):
                    await h.ask("a", size=size, priority=priority)
            tasks.append(await h.queue("b", size=4))
            h.processor.open.set()
            await asyncio.gather(*tasks)
            assert await h.ask("c", size=10) == [b"c"]  # the bytes are released

    asyncio.run(run())


def test_a_queued_request_is_dropped_when_its_client_disconnects(harness):
    async def run() -> None:
        async with harness() as h:
            first = await h.occupy()
            disconnected = asyncio.get_running_loop().create_future()
            client = await h.queue("gone", disconnected=disconnected)
            disconnected.set_result(None)
            with pytest.raises(ClientDisconnected):
                await client
            h.processor.open.set()
            await first
            await h.ask("next")
            assert h.processor.computed == ["first", "next"]

    asyncio.run(run())


def test_queued_requests_are_computed_before_the_batcher_closes(harness):
    async def run() -> None:
        async with harness() as h:
            tasks = [await h.occupy(), await h.queue("a"), await h.queue("b")]
            closing = asyncio.create_task(asyncio.to_thread(h.batcher.close))
            await asyncio.sleep(0.005)
            h.processor.open.set()
            await closing
            assert await asyncio.gather(*tasks) == [[b"first"], [b"a"], [b"b"]]

    asyncio.run(run())


def test_an_exclusive_task_runs_between_batches_and_raises_its_exception(harness):
    async def run() -> None:
        async with harness() as h:
            done: list[str] = []
            first = await h.occupy()
            task = asyncio.create_task(h.batcher.run_exclusive(lambda: done.append("x"), 10))
            with pytest.raises(TimeoutError):
                await h.batcher.run_exclusive(lambda: done.append("late"), 0.05)
            h.processor.open.set()
            await asyncio.gather(first, task)
            assert done == ["x"]
            with pytest.raises(ZeroDivisionError):
                await h.batcher.run_exclusive(lambda: 1 // 0, 10)

    asyncio.run(run())


@settings(max_examples=30, deadline=None)
@given(
    clients=st.lists(
        st.tuples(
            st.lists(
                st.sampled_from(["job", "unreadable", "malformed", "poison"]),
                min_size=1,
                max_size=4,
            ),
            st.sampled_from(["urgent", "bulk"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_each_client_gets_the_answers_to_its_own_jobs_in_order(bundle, clients):
    async def run() -> None:
        h = Harness(Metrics(), LONG, 1000)
        h.batcher.start()
        h.processor.open.set()
        requests = [
            ([f"{kind} {i} {k}" for k, kind in enumerate(jobs)], priority)
            for i, (jobs, priority) in enumerate(clients)
        ]
        pending = [h.ask(*jobs, priority=priority) for jobs, priority in requests]
        for (jobs, _), answers in zip(requests, await asyncio.gather(*pending), strict=True):
            for job, answer in zip(jobs, answers, strict=True):
                expected = {
                    "unreadable": ValueError,
                    "malformed": ValueError,
                    "poison": ArithmeticError,
                }
                kind = job.split(maxsplit=1)[0]
                if kind in expected:
                    assert isinstance(answer, expected[kind])
                else:
                    assert answer == job.encode()
        await asyncio.to_thread(h.batcher.close)

    asyncio.run(run())


def test_a_job_that_the_thread_has_taken_is_not_computed_again_in_the_event_loop(harness):
    async def later(h: Harness) -> Results:
        await asyncio.sleep(0)
        time.sleep(0.05)  # noqa: ASYNC251 - the event loop is busy while the thread computes
        return await h.ask("c")

    async def run() -> None:
        async with harness() as h:
            h.processor.open.set()
            # The thread computes "b" with the first two, before the event loop finds "c" queued.
            answers = await asyncio.gather(h.ask("a", "a"), later(h), h.ask("b"))
            assert answers == [[b"a", b"a"], [b"c"], [b"b"]]

    asyncio.run(run())


# ---------------------------------------------------------------------------- short and long jobs


@pytest.mark.parametrize(
    ("cost", "size"),
    [
        pytest.param(2 * SHORT_SECONDS, 1, id="expected to take long"),
        pytest.param(0.0, SHORT_BYTES + 1, id="a large body"),
    ],
)
def test_a_short_request_does_not_wait_for_a_long_one(harness, cost, size):
    async def run() -> None:
        async with harness(max_bytes=10 * SHORT_BYTES) as h:
            h.processor.open.set()
            h.processor.costs = {"endless": cost}
            disconnected = asyncio.get_running_loop().create_future()
            long = await h.queue("endless", size=size, disconnected=disconnected)
            await asyncio.to_thread(h.processor.endless.wait, 60)
            assert await h.ask("short") == [b"short"]
            assert await h.ask("a", "b") == [b"a", b"b"]
            assert not long.done()
            disconnected.set_result(None)
            with pytest.raises(ClientDisconnected):
                await long

    asyncio.run(run())


def test_a_running_job_is_answered_at_its_deadline_and_ends(harness):
    async def run() -> None:
        async with harness() as h:
            h.processor.open.set()
            h.processor.costs = dict.fromkeys(["endless", "next"], 2 * SHORT_SECONDS)
            (error,) = await h.ask("endless", ms=50)
            assert isinstance(error, DeadlineExceeded)
            # The lane is free again and computes the next job.
            assert await h.ask("next") == [b"next"]
            assert h.processor.computed == ["next"]

    asyncio.run(run())


def test_a_running_job_ends_when_its_client_disconnects(harness):
    async def run() -> None:
        async with harness() as h:
            h.processor.open.set()
            h.processor.costs = dict.fromkeys(["endless", "rest", "next"], 2 * SHORT_SECONDS)
            disconnected = asyncio.get_running_loop().create_future()
            client = await h.queue("endless", "rest", disconnected=disconnected)
            await asyncio.to_thread(h.processor.endless.wait, 60)
            disconnected.set_result(None)
            with pytest.raises(ClientDisconnected):
                await client
            assert await h.ask("next") == [b"next"]
            assert h.processor.computed == ["next"]

    asyncio.run(run())


def test_queued_long_jobs_cause_refusals_of_long_jobs_only(harness):
    async def run() -> None:
        async with harness() as h:
            h.processor.open.set()
            h.processor.costs = {"endless": 60.0, "hopeless": 1.0}
            disconnected = asyncio.get_running_loop().create_future()
            long = await h.queue("endless", disconnected=disconnected)
            await asyncio.to_thread(h.processor.endless.wait, 60)
            began = time.monotonic()
            (error,) = await h.ask("hopeless", ms=30_000)
            assert isinstance(error, DeadlineExceeded)
            assert time.monotonic() - began < 10
            assert await h.ask("short", ms=30_000) == [b"short"]
            disconnected.set_result(None)
            with pytest.raises(ClientDisconnected):
                await long

    asyncio.run(run())


def test_the_estimated_wait_distinguishes_cost_classes(harness):
    async def run() -> None:
        async with harness(max_wait_ms=80) as h:
            h.processor.open.set()
            h.processor.prepare = lambda job, _: (
                (job.startswith("full") and time.sleep(0.05)) or job
            )
            await h.ask("full 0")
            await h.ask("none 0")
            h.processor.open.clear()
            h.processor.busy.clear()
            first = await h.queue("none 1")
            await asyncio.to_thread(h.processor.busy.wait, 60)
            waiting = [await h.queue(f"none {i}") for i in range(2, 12)]
            waiting.append(await h.queue("full 1"))
            waiting.append(await h.queue("full 2"))
            with pytest.raises(Overloaded):
                await h.ask("none 12")
            h.processor.open.set()
            await asyncio.gather(first, *waiting)

    asyncio.run(run())


def test_a_failed_job_is_answered_before_the_next_one_is_computed(harness):
    async def run() -> None:
        async with harness() as h:
            h.processor.open.set()
            h.processor.costs = dict.fromkeys(["first", "malformed", "endless"], 2 * SHORT_SECONDS)
            h.processor.open.clear()
            first = await h.occupy()
            refused = await h.queue("malformed")
            disconnected = asyncio.get_running_loop().create_future()
            endless = await h.queue("endless", disconnected=disconnected)
            h.processor.open.set()
            await first
            assert isinstance((await refused)[0], ValueError)
            assert not endless.done()
            disconnected.set_result(None)
            with pytest.raises(ClientDisconnected):
                await endless

    asyncio.run(run())
