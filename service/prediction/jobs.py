"""A prediction job in its three states: queued, parsed, and prepared for a batch."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from schemas.features import Array, Features, Floats
from schemas.parsing.json_body import read_json, refuse_repeated_names
from schemas.parsing.validation import count_names
from schemas.payload import FieldError, InvalidPayload, Payload, as_payload, parse_payload
from schemas.response import Modality, Receipt
from service.cache.embedding_cache import CacheKey
from service.prediction.abstention import Basis
from service.prediction.answer_fields import AbstainedFields
from service.prediction.explanation.attribution import Explain
from service.prediction.explanation.occlusion import Ablation
from service.runtime.cost_estimate import InputSize
from service.runtime.engine import Embedding
from service.telemetry.spans import Span


class Options(BaseModel):
    """The query parameters of a prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    explain: Explain = "default"
    task: str | None = Field(
        None, description="With explain=full: the task whose variables are named; default: three"
    )
    strict: bool = False


class PayloadSource(ABC):
    """A request in another format, which is read when its turn comes."""

    @abstractmethod
    def to_payload(self) -> Payload:
        """Reads the request. Raises InvalidPayload and InputIgnored."""


@dataclass(frozen=True)
class Job:
    """A patient to predict: the body of a request, a parsed item of a batch request, or a source.

    `stage`: span of the request, if it is traced; `queue`: its child span for the time in the
    queue. `created`: `time.perf_counter()`.
    """

    content: bytes | Mapping[str, Any] | PayloadSource
    options: Options
    stage: Span | None = None
    queue: Span | None = None
    created: float = field(default_factory=time.perf_counter)

    @classmethod
    def queued(
        cls,
        content: bytes | Mapping[str, Any] | PayloadSource,
        options: Options,
        stage: Span | None,
    ) -> Self:
        """A job that is about to be queued."""
        return cls(content, options, stage, None if stage is None else stage.start_child("queue"))

    def parse(self) -> Payload:
        """Parses and validates the content. Raises InvalidPayload and InputIgnored."""
        content = self.content
        if isinstance(content, bytes):
            return parse_payload(content)
        return content.to_payload() if isinstance(content, PayloadSource) else as_payload(content)


@dataclass
class ParsedJob:
    """A job whose payload is parsed.

    `keys`: cache keys of its notes and image. `cached`: modalities that need no encoding because
    their embedding is in memory. `seconds`: times by step. `stage`: the span that `prepare` ends.
    `parsed_at`: `time.perf_counter()`.
    """

    job: Job
    payload: Payload
    keys: dict[Modality, CacheKey]
    cached: set[Modality]
    size: InputSize
    seconds: dict[str, float]
    stage: Span | None
    parsed_at: float


@dataclass
class PreparedJob:
    """A job that is ready for a batch.

    `basis`: what decides which tasks abstain; `abstentions`: those tasks.
    `sample`: input of the engine. `ablations`: what the explanation leaves out, one at a time.
    `seconds`: times by step. `check` raises when no answer is needed. `attention`
    [tasks, tasks]: set with the answer.
    """

    options: Options
    features: Features
    receipt: Receipt
    basis: Basis
    abstentions: Mapping[str, AbstainedFields]
    keys: dict[Modality, CacheKey]
    sample: dict[Modality, dict[str, Array] | Embedding]
    ablations: list[Ablation]
    seconds: dict[str, float]
    stage: Span | None
    check: Callable[[], None]
    attention: Floats | None = None


def parse_batch(body: bytes, max_items: int) -> list[Any]:
    """Parses `{"items": [payload, …]}` and returns the payloads, which are not validated.

    Raises InvalidPayload if the body is not such an object.
    """
    document, names = read_json(body)
    if not isinstance(document, dict) or document.keys() != {"items"}:
        raise _invalid_batch("", "object", "must be an object with the one field items")
    items = document["items"]
    if not isinstance(items, list):
        raise _invalid_batch("/items", "array", "must be an array of payloads")
    if not 1 <= len(items) <= max_items:
        detail = f"must hold 1 to {max_items} payloads (M3H_MAX_BATCH)"
        raise _invalid_batch("/items", "item_count", detail)
    counts = [count_names(Payload, item) for item in items]
    if sum(count or 0 for count in counts) + 1 != names:
        refuse_repeated_names(body)
    return items


def _invalid_batch(pointer: str, rule: str, detail: str) -> InvalidPayload:
    return InvalidPayload([FieldError(pointer=pointer, rule=rule, detail=detail)])
