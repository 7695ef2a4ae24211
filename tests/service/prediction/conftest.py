"""The harness of the batcher's tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.prediction.scheduling.batcher import INLINE_BYTES
from service.telemetry.metrics import Metrics
from tests.service.prediction.batch_harness import LONG, Harness


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
