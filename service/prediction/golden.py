"""Answers the golden requests of a bundle before the bundle is served."""

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from schemas.bundle_files import BundleError, single_line
from schemas.features import no_time_limit
from schemas.manifest import GOLDEN
from schemas.response import Answer, Modality
from schemas.terminology import ucum
from service.cache.embedding_cache import CacheKey, EmbeddingCache
from service.prediction.jobs import Job, Options
from service.prediction.predictor import Predictor
from service.runtime.engine import Embedding, Engine
from service.telemetry.logging import stack_frames
from service.telemetry.metrics import Metrics


class _NoCache(EmbeddingCache):
    """A cache that stores nothing and counts nothing."""

    def get(self, _: Mapping[Modality, CacheKey]) -> dict[Modality, Embedding]:
        return {}

    def put(self, modality: Modality, key: CacheKey, embedding: Embedding) -> None:
        pass


def check_golden_answers(engine: Engine, metrics: Metrics) -> None:
    """Answers each golden request, the longest with a full explanation, and validates the answers.

    No metric is updated. Also loads what only some requests need, so that no request waits for it.

    Raises BundleError if a request cannot be answered, or its answer does not fit the schema.
    """
    ucum.preload()
    predictor = Predictor(engine, _NoCache(0, None, metrics), metrics)
    lines = engine.bundle.golden.splitlines()
    longest = max(range(len(lines)), key=lambda i: len(lines[i]))
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        options = Options(explain="full" if i == longest else "default")
        try:
            Answer.model_validate_json(_answer(predictor, line, options))
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise BundleError(
                f"{GOLDEN}, line {i + 1}: its answer is not valid at {place}"
            ) from None
        except Exception as error:
            fault = f"{type(error).__name__} at {stack_frames(error)[-1]}"
            raise BundleError(
                single_line(f"{GOLDEN}, line {i + 1}: cannot be answered: {fault}")
            ) from error


def _answer(predictor: Predictor, line: bytes, options: Options) -> bytes:
    """Answers the request of one line. Raises any exception of the computation."""
    job = Job.queued(to_json(from_json(line)["request"]), options, None)
    (answer,) = predictor.run([predictor.prepare(predictor.parse(job), no_time_limit)])
    if isinstance(answer, Exception):
        raise answer
    return answer
