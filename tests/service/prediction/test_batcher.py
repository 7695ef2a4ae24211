"""Who waits, who goes first, and who is never computed."""

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
    ALONE_BYTES,
    ALONE_SECONDS,
    BATCH_SECONDS,
    SHORT_BYTES,
    SHORT_SECONDS,
    Batcher,
    Priority,
)
from service.telemetry.metrics import Metrics

LONG = 60_000  # ms
Found = list[bytes | Exception]


@dataclass
class Kernel:
    """Answers a job with its own name. `open`: it may compute; `costs`: what each job takes.

    A job is of the kind of its first word. While it is not open, a job takes too long for the event
    loop. One that is called "endless" runs until its check ends it.
    """

    open: Event = field(default_factory=Event)
    costs: dict[str, float] = field(default_factory=dict)
    batches: list[list[str]] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)
    busy: Event = field(default_factory=Event)
    endless: Event = field(default_factory=Event)

    def kind(self, job: str) -> str:
        return job.split(maxsplit=1)[0]

    def read(self, job: str) -> str:
        if job.startswith("unreadable"):
            raise ValueError(job)
        return job

    def expected(self, read: str) -> float:
        return self.costs.get(read, 0.0 if self.open.is_set() else 2 * ALONE_SECONDS)

    def prepare(self, read: str, check: Callable[[], None]) -> str:
        if read.startswith("malformed"):
            raise ValueError(read)
        while read == "endless":
            self.endless.set()
            check()
        return read

    def run(self, prepared: Sequence[str]) -> list[bytes | Exception]:
        self.busy.set()
        assert self.open.wait(60)
        self.batches.append(list(prepared))
        self.threads.append(current_thread().name)
        if any(one.startswith("poison") for one in prepared):
            raise ArithmeticError
        return [one.encode() for one in prepared]

    def count(self, prepared: Sequence[str]) -> None:
        self.counted += prepared

    @property
    def computed(self) -> list[str]:
        return [job for batch in self.batches for job in batch]


class House:
    """A batcher, the kernel behind it, and callers."""

    def __init__(self, metrics: Metrics, most_ms: int, most_bytes: int) -> None:
        self.kernel = Kernel()
        self.batcher: Batcher[str, str, str] = Batcher(self.kernel, metrics, most_ms, most_bytes)

    async def ask(
        self,
        *jobs: str,
        priority: Priority = "urgent",
        ms: int = LONG,
        size: int = 1,
        gone: Awaitable[object] | None = None,
    ) -> Found:
        with self.batcher.admitted(priority, size, ms) as call:
            call.hold(size)
            forever = asyncio.get_running_loop().create_future()
            return await self.batcher.answer(call, jobs, lambda: gone or forever)

    async def waits(self, *jobs: str, **how: Any) -> "asyncio.Task[Found]":
        """Asks, and comes back once that is in the queue."""
        task = asyncio.create_task(self.ask(*jobs, **how))
        await asyncio.sleep(0.005)
        return task

    async def occupied(self) -> "asyncio.Task[Found]":
        """The kernel is busy with a first job until it is opened."""
        task = await self.waits("first")
        await asyncio.to_thread(self.kernel.busy.wait, 10)
        return task


@pytest.fixture
def house(bundle) -> Callable[..., Any]:
    @asynccontextmanager
    async def made(most_ms: int = LONG, most_bytes: int = 10 * ALONE_BYTES) -> AsyncIterator[House]:
        found = House(Metrics(), most_ms, most_bytes)
        found.batcher.start()
        try:
            yield found
        finally:
            found.kernel.open.set()
            await asyncio.to_thread(found.batcher.close)

    return made


def test_a_short_request_that_comes_alone_is_computed_where_it_came(house):
    async def run() -> None:
        async with house() as one:
            one.kernel.open.set()
            assert await one.ask("a") == [b"a"]
            assert one.kernel.threads == [current_thread().name]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("jobs", "size", "cost"),
    [
        pytest.param(["a"], ALONE_BYTES + 1, 0.0, id="large"),
        pytest.param(["a"], 1, 2 * ALONE_SECONDS, id="long"),
        pytest.param(["a", "b"], 1, 0.0, id="several"),
    ],
)
def test_what_is_large_or_long_or_several_keeps_nobody_else_waiting(house, jobs, size, cost):
    async def run() -> None:
        async with house() as one:
            one.kernel.open.set()
            one.kernel.costs = {"a": cost}
            await one.ask(*jobs, size=size)
            assert one.kernel.computed == jobs
            assert set(one.kernel.threads) == {"m3h-kernel"}

    asyncio.run(run())


def test_those_that_come_at_one_moment_are_computed_together_and_counted_once(house):
    async def run() -> None:
        async with house() as one:
            one.kernel.open.set()
            await asyncio.gather(*map(one.ask, "abc"))
            assert sorted(one.kernel.computed) == ["a", "b", "c"]
            assert set(one.kernel.threads) == {"m3h-kernel"}
            await one.ask("d")
            await asyncio.sleep(0.01)
            assert sorted(one.kernel.counted) == ["a", "b", "c", "d"]

    asyncio.run(run())


def test_those_that_come_while_it_computes_meet_in_one_batch(house):
    async def run() -> None:
        async with house() as one:
            tasks = [await one.occupied(), *[await one.waits(name) for name in "abc"]]
            one.kernel.open.set()
            assert await asyncio.gather(*tasks) == [[b"first"], [b"a"], [b"b"], [b"c"]]
            assert one.kernel.batches == [["first"], ["a", "b", "c"]]

    asyncio.run(run())


@pytest.mark.parametrize("priority", ["urgent", "bulk"])
def test_a_batch_is_no_larger_than_its_cost_allows(house, priority: Priority):
    async def run() -> None:
        async with house() as one:
            one.kernel.costs = dict.fromkeys("abcd", 0.6 * BATCH_SECONDS[priority]) | {"e": 0.09}
            first = await one.occupied()
            rest = await one.waits(*"abcde", priority=priority)
            one.kernel.open.set()
            await asyncio.gather(first, rest)
            assert one.kernel.batches == [["first"], ["a", "b"], ["c", "d"], ["e"]]

    asyncio.run(run())


def test_urgent_goes_before_bulk_and_takes_none_of_it_along(house):
    async def run() -> None:
        async with house() as one:
            first = await one.occupied()
            bulk = await one.waits("a", "b", priority="bulk")
            urgent = await one.waits("c")
            one.kernel.open.set()
            await asyncio.gather(first, bulk, urgent)
            assert one.kernel.batches == [["first"], ["c"], ["a", "b"]]

    asyncio.run(run())


def test_one_bad_job_never_fails_its_neighbours(house):
    async def run() -> None:
        async with house() as one:
            first = await one.occupied()
            rest = await one.waits("a", "unreadable", "malformed", "poison", "b")
            one.kernel.open.set()
            await first
            a, unreadable, malformed, poison, b = await rest
            assert (a, b) == (b"a", b"b")
            assert isinstance(unreadable, ValueError)
            assert isinstance(malformed, ValueError)
            assert isinstance(poison, ArithmeticError)

    asyncio.run(run())


def test_what_misses_its_deadline_is_answered_then_and_never_computed(house):
    async def run() -> None:
        async with house() as one:
            first = await one.occupied()
            began = time.monotonic()
            (error,) = await one.ask("late", ms=50)
            assert isinstance(error, DeadlineExceeded)
            assert time.monotonic() - began < 5  # the kernel is still busy
            one.kernel.open.set()
            await first
            await one.ask("next")
            assert one.kernel.computed == ["first", "next"]

    asyncio.run(run())


def test_a_deadline_that_those_ahead_do_not_leave_room_for_is_refused_at_once(house):
    async def run() -> None:
        async with house() as one:
            one.kernel.open.set()
            one.kernel.prepare = lambda job, _: time.sleep(0.02) or job
            await one.ask("a 0")
            one.kernel.open.clear()
            one.kernel.busy.clear()
            tasks = [await one.occupied(), await one.waits(*[f"a {i}" for i in range(9)])]
            with pytest.raises(DeadlineExceeded):
                await one.ask("a 9", ms=100)
            one.kernel.open.set()
            await asyncio.gather(*tasks)

    asyncio.run(run())


def test_beyond_its_bounds_the_queue_refuses_and_says_when_to_come_again(house):
    async def run() -> None:
        async with house(most_ms=50) as one:
            one.kernel.open.set()
            one.kernel.prepare = lambda job, _: time.sleep(0.02) or job
            await one.ask("a 0")  # now it knows how long one takes
            one.kernel.open.clear()
            one.kernel.busy.clear()
            tasks = [await one.occupied(), await one.waits("a 1", "a 2", "a 3")]
            with pytest.raises(Overloaded) as full:
                await one.ask("e")
            assert full.value.retry_after >= 1
            one.kernel.open.set()
            await asyncio.gather(*tasks)
            assert await one.ask("e") == [b"e"]

    asyncio.run(run())


def test_bodies_have_a_bound_of_which_bulk_leaves_half_to_urgent(house):
    async def run() -> None:
        async with house(most_bytes=10) as one:
            tasks = [await one.occupied()]
            tasks.append(await one.waits("bulk", size=5, priority="bulk"))
            for size, priority in ((1, "bulk"), (5, "urgent")):
                with pytest.raises(Overloaded):
                    await one.ask("a", size=size, priority=priority)
            tasks.append(await one.waits("b", size=4))
            one.kernel.open.set()
            await asyncio.gather(*tasks)
            assert await one.ask("c", size=10) == [b"c"]  # places are given back

    asyncio.run(run())


def test_a_caller_who_hung_up_is_not_computed(house):
    async def run() -> None:
        async with house() as one:
            first = await one.occupied()
            gone = asyncio.get_running_loop().create_future()
            caller = await one.waits("gone", gone=gone)
            gone.set_result(None)
            with pytest.raises(ClientDisconnected):
                await caller
            one.kernel.open.set()
            await first
            await one.ask("next")
            assert one.kernel.computed == ["first", "next"]

    asyncio.run(run())


def test_what_waits_when_it_closes_is_still_computed(house):
    async def run() -> None:
        async with house() as one:
            tasks = [await one.occupied(), await one.waits("a"), await one.waits("b")]
            closing = asyncio.create_task(asyncio.to_thread(one.batcher.close))
            await asyncio.sleep(0.005)
            one.kernel.open.set()
            await closing
            assert await asyncio.gather(*tasks) == [[b"first"], [b"a"], [b"b"]]

    asyncio.run(run())


def test_other_work_is_done_between_batches_and_says_what_went_wrong(house):
    async def run() -> None:
        async with house() as one:
            done: list[str] = []
            first = await one.occupied()
            task = asyncio.create_task(one.batcher.between(lambda: done.append("x"), 10))
            with pytest.raises(TimeoutError):
                await one.batcher.between(lambda: done.append("late"), 0.05)
            one.kernel.open.set()
            await asyncio.gather(first, task)
            assert done == ["x"]
            with pytest.raises(ZeroDivisionError):
                await one.batcher.between(lambda: 1 // 0, 10)

    asyncio.run(run())


@settings(max_examples=30, deadline=None)
@given(
    callers=st.lists(
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
def test_each_caller_gets_the_answers_to_its_own_jobs_in_order(bundle, callers):
    async def run() -> None:
        one = House(Metrics(), LONG, 1000)
        one.batcher.start()
        one.kernel.open.set()
        named = [
            ([f"{kind} {i} {k}" for k, kind in enumerate(jobs)], priority)
            for i, (jobs, priority) in enumerate(callers)
        ]
        asked = [one.ask(*jobs, priority=priority) for jobs, priority in named]
        for (jobs, _), found in zip(named, await asyncio.gather(*asked), strict=True):
            for job, answer in zip(jobs, found, strict=True):
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
        await asyncio.to_thread(one.batcher.close)

    asyncio.run(run())


def test_a_call_that_the_thread_was_faster_with_is_not_taken_for_the_one_that_waits(house):
    async def later(one: House) -> Found:
        await asyncio.sleep(0)
        time.sleep(0.05)  # noqa: ASYNC251 - the event loop is busy while the thread computes
        return await one.ask("c")

    async def run() -> None:
        async with house() as one:
            one.kernel.open.set()
            # "b" is computed with the first two, before it is its turn to look who waits: "c".
            found = await asyncio.gather(one.ask("a", "a"), later(one), one.ask("b"))
            assert found == [[b"a", b"a"], [b"c"], [b"b"]]

    asyncio.run(run())


# ---------------------------------------------------------------------------- short and long jobs


@pytest.mark.parametrize(
    ("cost", "size"),
    [
        pytest.param(2 * SHORT_SECONDS, 1, id="expected to take long"),
        pytest.param(0.0, SHORT_BYTES + 1, id="a large body"),
    ],
)
def test_a_short_request_does_not_wait_for_a_long_one(house, cost, size):
    async def run() -> None:
        async with house(most_bytes=10 * SHORT_BYTES) as one:
            one.kernel.open.set()
            one.kernel.costs = {"endless": cost}
            gone = asyncio.get_running_loop().create_future()
            long = await one.waits("endless", size=size, gone=gone)
            await asyncio.to_thread(one.kernel.endless.wait, 60)
            assert await one.ask("short") == [b"short"]
            assert await one.ask("a", "b") == [b"a", b"b"]
            assert not long.done()
            gone.set_result(None)
            with pytest.raises(ClientDisconnected):
                await long

    asyncio.run(run())


def test_what_runs_at_its_deadline_is_answered_then_and_ends(house):
    async def run() -> None:
        async with house() as one:
            one.kernel.open.set()
            one.kernel.costs = dict.fromkeys(["endless", "next"], 2 * SHORT_SECONDS)
            (error,) = await one.ask("endless", ms=50)
            assert isinstance(error, DeadlineExceeded)
            # The lane is free again: it would not compute the next one otherwise.
            assert await one.ask("next") == [b"next"]
            assert one.kernel.computed == ["next"]

    asyncio.run(run())


def test_what_runs_when_its_caller_hangs_up_ends(house):
    async def run() -> None:
        async with house() as one:
            one.kernel.open.set()
            one.kernel.costs = dict.fromkeys(["endless", "rest", "next"], 2 * SHORT_SECONDS)
            gone = asyncio.get_running_loop().create_future()
            caller = await one.waits("endless", "rest", gone=gone)
            await asyncio.to_thread(one.kernel.endless.wait, 60)
            gone.set_result(None)
            with pytest.raises(ClientDisconnected):
                await caller
            assert await one.ask("next") == [b"next"]
            assert one.kernel.computed == ["next"]

    asyncio.run(run())


def test_long_jobs_ahead_refuse_a_long_job_without_hope_and_no_short_one(house):
    async def run() -> None:
        async with house() as one:
            one.kernel.open.set()
            one.kernel.costs = {"endless": 60.0, "hopeless": 1.0}
            gone = asyncio.get_running_loop().create_future()
            long = await one.waits("endless", gone=gone)
            await asyncio.to_thread(one.kernel.endless.wait, 60)
            began = time.monotonic()
            (error,) = await one.ask("hopeless", ms=30_000)
            assert isinstance(error, DeadlineExceeded)
            assert time.monotonic() - began < 10
            assert await one.ask("short", ms=30_000) == [b"short"]
            gone.set_result(None)
            with pytest.raises(ClientDisconnected):
                await long

    asyncio.run(run())


def test_a_cheap_request_is_not_refused_for_what_another_kind_took(house):
    async def run() -> None:
        async with house(most_ms=80) as one:
            one.kernel.open.set()
            one.kernel.prepare = lambda job, _: (job.startswith("full") and time.sleep(0.05)) or job
            await one.ask("full 0")
            await one.ask("none 0")
            one.kernel.open.clear()
            one.kernel.busy.clear()
            first = await one.waits("none 1")
            await asyncio.to_thread(one.kernel.busy.wait, 60)
            waiting = [await one.waits(f"none {i}") for i in range(2, 12)]
            waiting.append(await one.waits("full 1"))
            waiting.append(await one.waits("full 2"))
            with pytest.raises(Overloaded):
                await one.ask("none 12")
            one.kernel.open.set()
            await asyncio.gather(first, *waiting)

    asyncio.run(run())


def test_a_job_that_is_refused_is_answered_before_the_next_one_is_computed(house):
    async def run() -> None:
        async with house() as one:
            one.kernel.open.set()
            one.kernel.costs = dict.fromkeys(["first", "malformed", "endless"], 2 * SHORT_SECONDS)
            one.kernel.open.clear()
            first = await one.occupied()
            refused = await one.waits("malformed")
            gone = asyncio.get_running_loop().create_future()
            endless = await one.waits("endless", gone=gone)
            one.kernel.open.set()
            await first
            assert isinstance((await refused)[0], ValueError)
            assert not endless.done()
            gone.set_result(None)
            with pytest.raises(ClientDisconnected):
                await endless

    asyncio.run(run())
