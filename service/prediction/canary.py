"""The canary: replays a golden request at intervals, in the same queue as other requests."""

import asyncio
import itertools
from functools import partial

from structlog.typing import FilteringBoundLogger

from schemas.bundle_files import BundleError
from service.errors import ServiceError
from service.prediction.jobs import Job, ParsedJob, PreparedJob
from service.prediction.scheduling.batcher import Batcher
from service.runtime.engine import Engine
from service.telemetry.logging import stack_frames
from service.telemetry.metrics import CanaryResult, Metrics


async def run_canary(
    engine: Engine,
    batcher: Batcher[Job, ParsedJob, PreparedJob],
    seconds: float,
    log: FilteringBoundLogger,
    metrics: Metrics,
) -> None:
    """Replays a golden request every `seconds`, until it is cancelled.

    Any error counts as a failed canary. While the engine is not verified, the readiness probe
    replays all golden requests instead.
    """
    result: CanaryResult
    at: list[str]
    for number in itertools.count():
        await asyncio.sleep(seconds)
        if not engine.verified:
            continue
        fault, result, at = "", "passed", []
        try:
            await batcher.run_exclusive(partial(engine.replay, number), seconds)
        except (TimeoutError, ServiceError):  # the queue leaves no time for it
            fault, result = "no answer", "no_answer"
        except BundleError as error:
            fault, result = str(error), "failed"
        except Exception as error:  # noqa: BLE001 - the canary must go on
            fault, result, at = type(error).__name__, "failed", stack_frames(error)
        engine.hanging = result == "no_answer"
        metrics.count_canary(result, engine.difference)
        if fault:
            log.error("golden request failed", fault=fault, at=at)
