"""The short and the long lane: short jobs never wait for long ones."""

import asyncio
import time

import pytest

from service.errors import ClientDisconnected, DeadlineExceeded, Overloaded
from service.prediction.scheduling.batcher import SHORT_BYTES, SHORT_SECONDS


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
