"""Fixtures: the harness of the batcher's tests, and the computed answer of a patient."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from schemas.features import extract_features
from schemas.payload import as_payload
from service.prediction.scheduling.batcher import INLINE_BYTES
from service.telemetry.metrics import Metrics
from tests.service.prediction.batch_harness import LONG, Harness
from tests.service.prediction.computed_answer import Computed


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


@pytest.fixture
def computed(engine, payload) -> Computed:
    extracted = extract_features(as_payload(payload), engine.bundle.manifest.spec)
    outputs = engine.run([extracted.arrays])[0]
    return Computed(extracted, outputs, engine.bundle.manifest)
