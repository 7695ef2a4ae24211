"""The golden requests, answered as requests are: a bundle that cannot is refused."""

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from schemas.bundle_files import BundleError, one_line
from schemas.features import unlimited
from schemas.manifest import GOLDEN
from schemas.response import Answer, Modality
from schemas.terminology import ucum
from service.cache.embedding_cache import Cache, Key
from service.prediction.predictor import Job, Options, Predictor
from service.runtime.engine import Embedded, Engine
from service.telemetry.logging import where
from service.telemetry.metrics import Metrics


class _Forgetful(Cache):
    """Keeps nothing and counts nothing."""

    def get(self, _: Mapping[Modality, Key]) -> dict[Modality, Embedded]:
        return {}

    def put(self, modality: Modality, key: Key, made: Embedded) -> None:
        pass


def rehearse(engine: Engine, metrics: Metrics) -> None:
    """Answers each golden request, the longest of them with all reasons. Nothing is counted.

    Also loads what only some requests need, so that none of them waits for it.

    Raises BundleError if one cannot be answered, or the answer is not as the interface says.
    """
    ucum.preload()
    predictor = Predictor(engine, _Forgetful(0, None, metrics), metrics)
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
            fault = f"{type(error).__name__} at {where(error)[-1]}"
            raise BundleError(
                one_line(f"{GOLDEN}, line {i + 1}: cannot be answered: {fault}")
            ) from error


def _answer(predictor: Predictor, line: bytes, options: Options) -> bytes:
    """Raises whatever stands in the way of an answer."""
    job = Job.waiting(to_json(from_json(line)["request"]), options, None)
    (answer,) = predictor.run([predictor.prepare(predictor.read(job), unlimited)])
    if isinstance(answer, Exception):
        raise answer
    return answer
