"""Admission, batching, priorities and deadlines of the batcher."""

import asyncio
import time
from threading import current_thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ClientDisconnected, DeadlineExceeded, Overloaded
from service.prediction.scheduling.batcher import INLINE_BYTES, INLINE_SECONDS
from service.prediction.scheduling.lane import BATCH_SECONDS, Priority
from service.telemetry.metrics import Metrics
from tests.service.prediction.batch_harness import LONG, Harness, Results


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
