"""The service's prediction code without HTTP and batching: one request at a time, on one thread.

All compared frameworks serve it without the cache, which is a feature of the service.
"""

import os
from pathlib import Path
from typing import Any

from schemas.features import no_time_limit
from service.cache.embedding_cache import EmbeddingCache
from service.prediction.jobs import Job, Options, PreparedJob
from service.prediction.predictor import Predictor
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.telemetry.metrics import Metrics


class Model:
    """Computes the response bytes of a request body. Default bundle: M3H_BUNDLE."""

    def __init__(self, bundle: Bundle | None = None, cache_bytes: int = 0) -> None:
        if bundle is None:
            bundle = Bundle.load(Path(os.environ["M3H_BUNDLE"]), "cpu", threads=1)
        self.engine = Engine(bundle)
        metrics = Metrics()
        self.predictor = Predictor(self.engine, EmbeddingCache(cache_bytes, None, metrics), metrics)

    def prepare(self, content: bytes | dict[str, Any], explain: Any = "default") -> PreparedJob:
        """Returns the features of a body: bytes, or the object that a framework parsed."""
        parsed = self.predictor.parse(Job(content, Options(explain=explain)))
        return self.predictor.prepare(parsed, no_time_limit)

    def answer(self, content: bytes | dict[str, Any], explain: Any = "default") -> bytes:
        """Returns the response to a body. Raises ServiceError: if the prediction fails."""
        prepared = [self.prepare(content, explain)]
        (answer,) = self.predictor.run(prepared)
        self.predictor.record(prepared)
        if isinstance(answer, Exception):
            raise answer
        return answer
