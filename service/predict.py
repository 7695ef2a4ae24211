"""The way of a request: parse, features, model, respond. Each runs in a worker thread."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json

from schemas.features import Features, features
from schemas.payload import (
    FieldError,
    InvalidPayload,
    Payload,
    as_payload,
    parse_payload,
    reject_repeated_names,
)
from schemas.response import Answer, ModelReference, Reason, Receipt
from service import problems, respond
from service.bundle import ATTENTION
from service.engine import Engine, Outputs
from service.metrics import Metrics
from service.problems import Fault, Problem, Refused
from service.respond import Explain

# What strict=true does not let pass. The others are no fault of the sender: old or repeated data.
STRICT: frozenset[Reason] = frozenset(
    {
        "unknown_variable",
        "unknown_treatment",
        "unknown_category",
        "implausible_value",
        "hidden_modality",
    }
)


class Options(BaseModel):
    """The query parameters of a prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    explain: Explain = "default"
    strict: bool = False


class BatchAnswer(BaseModel):
    """Answers in the order of the items. Pointers are relative to an item."""

    items: tuple[Answer | Problem, ...]


@dataclass
class _Item:
    """One patient on the way from payload to answer. `seconds` by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


@dataclass
class _Prepared:
    item: _Item
    features: Features
    receipt: Receipt


class Predictor:
    """From the bytes of a request to the bytes of its answer. Safe to call from several threads."""

    def __init__(self, engine: Engine, metrics: Metrics, max_batch: int) -> None:
        self._engine = engine
        self._manifest = engine.bundle.manifest
        local = self._manifest.recalibration
        self._model = ModelReference(
            name=self._manifest.name,
            version=self._manifest.version,
            digest=engine.bundle.digest,
            recalibrated_by=None
            if local is None
            else f"{local.patients} patients of {local.cohort}",
        )
        self._phenotypes = respond.phenotypes_in_words(self._manifest)
        self._metrics = metrics
        self._max_batch = max_batch

    def one(self, body: bytes, options: Options) -> bytes:
        """The Answer of one payload. Raises InvalidPayload and Refused."""
        item = _Item()
        with item.stage("parse"):
            payload = parse_payload(body)
        prepared = self._prepare(item, payload, options)
        with item.stage("model"):
            outputs = self._engine.run([prepared.features.arrays])[0]
        return self._answer(prepared, outputs, options)

    def many(self, body: bytes, options: Options) -> bytes:
        """The BatchAnswer of `{"items": [payload, …]}`. Raises InvalidPayload for the whole."""
        results = [self._try(value, options) for value in _items(body, self._max_batch)]
        ready = [result for result in results if isinstance(result, _Prepared)]
        started = time.perf_counter()
        outputs = iter(self._engine.run([prepared.features.arrays for prepared in ready]))
        seconds = time.perf_counter() - started
        answers: list[bytes] = []
        for result in results:
            if isinstance(result, Problem):
                answers.append(result.json_bytes())
            else:
                result.item.seconds["model"] = seconds
                answers.append(self._answer(result, next(outputs), options))
        return b'{"items":[' + b",".join(answers) + b"]}"

    def _try(self, value: Any, options: Options) -> _Prepared | Problem:
        item = _Item()
        try:
            with item.stage("parse"):
                payload = as_payload(value)
            return self._prepare(item, payload, options)
        except InvalidPayload as error:
            return problems.invalid_payload(error.errors)
        except Refused as error:
            return error.problem

    def _prepare(self, item: _Item, payload: Payload, options: Options) -> _Prepared:
        with item.stage("features"):
            found = features(payload, self._manifest.spec)
            receipt = respond.receipt(found, self._manifest)
        if options.strict:
            _insist(receipt)
        return _Prepared(item, found, receipt)

    def _answer(self, prepared: _Prepared, outputs: Outputs, options: Options) -> bytes:
        item = prepared.item
        with item.stage("respond"):
            receipt = respond.with_unusual(prepared.receipt, outputs)
            predictions = respond.predictions(
                outputs, prepared.features, self._manifest, self._phenotypes
            )
            explanation = respond.explanation(outputs, self._manifest, options.explain)
        answer = Answer(
            id=str(uuid.uuid4()),
            model=self._model,
            predictions=predictions,
            explanation=explanation,
            receipt=receipt,
            timing_ms={stage: round(s * 1000, 3) for stage, s in item.seconds.items()},
        )
        for stage, seconds in item.seconds.items():
            self._metrics.stage(stage, seconds)
        self._metrics.prediction(receipt, outputs.fusion[ATTENTION])
        return answer.model_dump_json(exclude_none=True).encode()


def _insist(receipt: Receipt) -> None:
    """Raises Refused if something of the sender's would not be used."""
    faults = [
        Fault(pointer=entry.pointer, rule=entry.reason, detail=entry.detail)
        for entry in receipt.ignored
        if entry.reason in STRICT
    ]
    if faults:
        raise Refused(problems.input_ignored(faults))


def _items(body: bytes, limit: int) -> list[Any]:
    try:
        document = from_json(body)
    except ValueError:
        detail = "the body is not a JSON document in UTF-8"
        raise InvalidPayload([FieldError(pointer="", rule="json", detail=detail)]) from None
    reject_repeated_names(body)
    if not isinstance(document, dict) or document.keys() != {"items"}:
        detail = "must be an object with the one field items"
        raise InvalidPayload([FieldError(pointer="", rule="object", detail=detail)])
    items = document["items"]
    if not isinstance(items, list):
        detail = "must be an array of payloads"
        raise InvalidPayload([FieldError(pointer="/items", rule="array", detail=detail)])
    if not 1 <= len(items) <= limit:
        detail = f"must hold 1 to {limit} payloads (M3H_MAX_BATCH)"
        raise InvalidPayload([FieldError(pointer="/items", rule="item_count", detail=detail)])
    return items
