"""What all contenders serve: the very code of the service, one request after the other.

Nothing is kept from one request to the next: whoever picks a framework has no such cache.
"""

import os
from pathlib import Path
from typing import Any

from schemas.features import unlimited
from service.cache.embedding_cache import Cache
from service.prediction.predictor import Job, Options, Predictor
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.telemetry.metrics import Metrics


class Model:
    """From the bytes of a request to the bytes of its answer, on one thread."""

    def __init__(self) -> None:
        self.engine = Engine(Bundle.load(Path(os.environ["M3H_BUNDLE"]), "cpu", threads=1))
        metrics = Metrics()
        self.predictor = Predictor(self.engine, Cache(0, None, metrics), metrics)

    def answer(self, content: bytes | dict[str, Any]) -> bytes:
        """Of a body, or of what a framework has made of it."""
        read = self.predictor.read(Job(content, Options()))
        prepared = [self.predictor.prepare(read, unlimited)]
        (answer,) = self.predictor.run(prepared)
        self.predictor.count(prepared)
        if isinstance(answer, Exception):
            raise answer
        return answer
