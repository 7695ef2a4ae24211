"""The way of a request: parse, features, model, respond. When and where, the batcher says."""

import functools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field

from schemas.features import Array, Features, Floats, NoteTokens, features, note_tokens, unlimited
from schemas.parsing.json_body import read_json, refuse_repeated_names
from schemas.parsing.validation import count_names
from schemas.payload import FieldError, InvalidPayload, Payload, as_payload, parse_payload
from schemas.response import SCHEMA_VERSION, Modality, ModelReference, Reason, Receipt
from service.cache.embedding_cache import Cache, Key, Keys
from service.errors import InputIgnored, InvalidOption, ServiceError
from service.prediction import attribution, occlusion, response
from service.prediction.attribution import Explain
from service.prediction.occlusion import Part
from service.runtime.bundle import ATTENTION
from service.runtime.cost_estimate import ReadingPace, Size
from service.runtime.engine import Embedded, Engine, Outputs, Sample
from service.telemetry.metrics import Metrics
from service.telemetry.spans import Stage, together, within

# What strict=true does not let pass. The others are no fault of the sender: old or repeated data.
STRICT: frozenset[Reason] = frozenset(
    {
        "unknown_variable",
        "unknown_unit",
        "unit_required",
        "unknown_treatment",
        "ambiguous_treatment",
        "unknown_category",
        "implausible_value",
        "hidden_modality",
    }
)
_PARTS_AT_ONCE = 64
_NOTHING = nullcontext()


class Options(BaseModel):
    """The query parameters of a prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    explain: Explain = "default"
    task: str | None = Field(
        None, description="With explain=full: the task whose variables are named; default: three"
    )
    strict: bool = False


@dataclass(frozen=True)
class Job:
    """One patient to predict: a request's body, or an item of one that was read already.

    `stage`: the request, if it is traced, and `queue`, its part in which the job waits.
    """

    content: bytes | Mapping[str, Any]
    options: Options
    stage: Stage | None = None
    queue: Stage | None = None
    since: float = field(default_factory=time.perf_counter)

    @classmethod
    def waiting(
        cls, content: bytes | Mapping[str, Any], options: Options, stage: Stage | None
    ) -> Self:
        return cls(content, options, stage, None if stage is None else stage.begin("queue"))


@dataclass
class Read:
    """A job whose payload is read, at the time `at`.

    `keys` of its content in the cache, of which `known` need not be read again. `stage`: the part
    of a trace that `prepare` ends.
    """

    job: Job
    payload: Payload
    keys: dict[Modality, Key]
    known: set[Modality]
    size: Size
    seconds: dict[str, float]
    stage: Stage | None
    at: float


@dataclass
class Prepared:
    """One patient on the way from payload to answer.

    `keys` of content in the cache; `sample`: what the engine gets; `parts` that are left out of it
    in turn; `seconds` by stage; `stage` of the request; `check` raises once the answer is not
    wanted; `attention` [task, task], once there is an answer.
    """

    options: Options
    features: Features
    receipt: Receipt
    keys: dict[Modality, Key]
    sample: dict[Modality, dict[str, Array] | Embedded]
    parts: list[Part]
    seconds: dict[str, float]
    stage: Stage | None
    check: Callable[[], None]
    attention: Floats | None = None


class Predictor:
    """From the bytes of a request to the bytes of its answer: the batcher's kernel."""

    def __init__(self, engine: Engine, cache: Cache, metrics: Metrics) -> None:
        self._engine, self._cache = engine, cache
        self._keys = Keys(engine.bundle.digest, engine.bundle.manifest.spec)
        self._manifest = engine.bundle.manifest
        local = self._manifest.recalibration
        self._model = ModelReference(
            name=self._manifest.name,
            version=self._manifest.version,
            digest=engine.bundle.digest,
            recalibrated_by=None
            if local is None
            else f"{local.patients} patients of {local.cohort}",
        ).model_dump(exclude_none=True)
        self._stated = functools.cache(functools.partial(response.stated, self._manifest))
        self._tasks = {
            facts.task.name: facts
            for facts in self._manifest.tasks
            if attribution.has_one_number(facts)
        }
        self._phenotypes = response.phenotypes_in_words(self._manifest)
        self._reading = ReadingPace()
        self._metrics = metrics

    def kind(self, job: Job) -> str:
        return job.options.explain

    def read(self, job: Job) -> Read:
        """Raises InvalidPayload and ServiceError."""
        began = time.perf_counter()
        if job.queue is not None:
            job.queue.ended = began
        stage = None if job.stage is None else job.stage.begin("prepare")
        with _lasting_if_it_fails(stage):
            self._check_task(job.options)
            content = job.content
            payload = parse_payload(content) if isinstance(content, bytes) else as_payload(content)
            ended = time.perf_counter()
            encoders = self._engine.bundle.encoders
            keys = {m: k for m, k in self._keys.of_content(payload).items() if m in encoders}
        known = {m for m, key in keys.items() if key in self._cache}
        if job.options.explain == "full":
            known.discard("notes")  # they are read for their passages
        size = Size.of(payload, known)
        seconds = {"queue": began - job.since, "parse": ended - began}
        return Read(job, payload, keys, known, size, seconds, stage, ended)

    def expected(self, read: Read) -> float:
        """How many seconds the rest takes, explanation and all."""
        explain = read.job.options.explain
        modalities = _named(read.payload)
        rows = 2 ** len(modalities) - 1 if explain != "none" else 1
        runs = {m: 1 for m in modalities if m not in read.known}
        if "notes" in runs:
            runs["notes"] = read.size.tokens
        if explain == "full":
            parts = occlusion.most_parts(read.payload, self._manifest.spec)
            rows += sum(parts.values())
            runs["series"] = 1 + parts["series"]
            runs["notes"] = (1 + parts["notes"]) * read.size.tokens
        return self._reading.seconds(read.size) + self._engine.expected(rows, runs)

    def prepare(self, read: Read, check: Callable[[], None]) -> Prepared:
        """Raises InvalidPayload and ServiceError."""
        with _NOTHING if read.stage is None else read.stage.lasting():
            return self._prepared(read, check)

    def _prepared(self, read: Read, check: Callable[[], None]) -> Prepared:
        began = time.perf_counter()
        payload, keys, options = read.payload, read.keys, read.job.options
        known = self._known(keys, read.stage)
        in_notes = 0.0

        @functools.cache
        def encode(text: str) -> NoteTokens:
            nonlocal in_notes
            started = time.perf_counter()
            tokens = note_tokens(text, self._manifest.spec, check)
            took = time.perf_counter() - started
            in_notes += took
            self._reading.learn_note(len(text), took)
            return tokens

        found = features(payload, self._manifest.spec, known, check=check, encode=encode)
        self._reading.learn_rest(read.size, time.perf_counter() - began - in_notes)
        if found.receipt.modalities["image"].unusual is not None:
            # Found when it was decoded: what is kept would not say so again.
            keys.pop("image", None)
        if "series" in found.arrays and "series" in self._engine.bundle.encoders:
            keys["series"] = self._keys.of_series(found.arrays["series"])
            known |= self._known({"series": keys["series"]}, read.stage)
        receipt = response.receipt(found, self._manifest)
        if options.strict:
            _insist(receipt)
        parts = []
        if options.explain == "full":
            parts = occlusion.parts(payload, found.arrays, self._manifest.spec, encode, check)
        sample: dict[Modality, dict[str, Array] | Embedded] = {**found.arrays, **known}
        if read.stage is not None:
            read.stage.attributes["m3h.modalities"] = [*sample]
        seconds = {
            "queue": read.seconds["queue"] + began - read.at,  # it may have been passed on
            "parse": read.seconds["parse"],
            "features": time.perf_counter() - began,
        }
        return Prepared(
            options, found, receipt, keys, sample, parts, seconds, read.job.stage, check
        )

    def _known(self, keys: Mapping[Modality, Key], stage: Stage | None) -> dict[Modality, Embedded]:
        """What the cache has of these."""
        if stage is None:
            return self._cache.get(keys)
        origins = {m: "memory" if key in self._cache else "redis" for m, key in keys.items()}
        asks = self._cache.shared and "redis" in origins.values()
        with within(stage if asks else None, "redis"):
            found = self._cache.get(keys)
        for modality, origin in origins.items():
            stage.attributes[f"m3h.cache.{modality}"] = origin if modality in found else "miss"
        return found

    def _check_task(self, options: Options) -> None:
        """Raises InvalidOption for a task whose variables cannot be named."""
        if options.task is None:
            return
        if options.explain != "full":
            raise InvalidOption("task", "needs_full", "task is for explain=full")
        if options.task not in self._tasks:
            detail = "no task with one number that the model gives; GET /tasks lists all"
            raise InvalidOption("task", "unknown_task", detail)

    def run(self, prepared: Sequence[Prepared]) -> list[bytes | Exception]:
        started = time.perf_counter()
        alone = prepared[0].check if len(prepared) == 1 else unlimited
        with together((one.stage for one in prepared), "batch", len(prepared)) as batch:
            self._embed(prepared, batch, alone)
            explained = {i for i, one in enumerate(prepared) if one.options.explain != "none"}
            outputs = self._engine.run([one.sample for one in prepared], explained, batch)
            without = [self._occluded(one, batch) for one in prepared]
        seconds = time.perf_counter() - started
        for one in prepared:
            one.seconds["model"] = seconds
        return [
            lost if isinstance(lost, ServiceError) else self._answer(one, found, lost)
            for one, found, lost in zip(prepared, outputs, without, strict=True)
        ]

    def _occluded(self, prepared: Prepared, batch: Stage | None) -> list[Outputs] | ServiceError:
        """The outputs without each of the parts; or why nobody wants them any more."""
        if not prepared.parts:
            return []
        found: list[Outputs] = []
        without = _without(prepared)
        try:
            with together([batch], "occlusion", len(prepared.parts)):
                while some := list(islice(without, _PARTS_AT_ONCE)):
                    prepared.check()
                    found += self._engine.run(some, check=prepared.check)
        except ServiceError as error:
            return error
        return found

    def _embed(
        self, prepared: Sequence[Prepared], batch: Stage | None, check: Callable[[], None]
    ) -> None:
        """Content that several patients of a batch have is computed once, and kept."""
        for modality in self._engine.bundle.encoders:
            new: dict[Key, dict[str, Array]] = {}
            waiting = []
            for one in prepared:
                arrays = one.sample.get(modality)
                if modality in one.keys and arrays is not None and not isinstance(arrays, Embedded):
                    new.setdefault(one.keys[modality], arrays)
                    waiting.append(one)
            if new:
                rows = self._engine.embed(modality, [*new.values()], batch, check)
                made = dict(zip(new, rows, strict=True))
                for key, embedded in made.items():
                    self._cache.put(modality, key, embedded)
                for one in waiting:
                    one.sample[modality] = made[one.keys[modality]]
            for one in prepared:
                arrays = one.sample.get(modality)
                # Not once more for each of its parts.
                if one.parts and arrays is not None and not isinstance(arrays, Embedded):
                    (one.sample[modality],) = self._engine.embed(modality, [arrays], batch, check)

    def _answer(self, prepared: Prepared, outputs: Outputs, without: Sequence[Outputs]) -> bytes:
        """`without`: the outputs without each of the parts."""
        with within(prepared.stage, "respond") as stage:
            return self._responded(prepared, outputs, without, stage)

    def _responded(
        self,
        prepared: Prepared,
        outputs: Outputs,
        without: Sequence[Outputs],
        stage: Stage | None,
    ) -> bytes:
        started = time.perf_counter()
        prepared.receipt = response.with_unusual(prepared.receipt, outputs)
        prepared.attention = outputs.fusion[ATTENTION]
        answer = {
            "schema_version": SCHEMA_VERSION,
            "id": str(uuid.uuid4()),
            "model": self._model,
            "predictions": response.predictions(
                outputs,
                self._manifest,
                self._stated(tuple(prepared.features.arrays)),
                self._phenotypes,
            ),
            "receipt": prepared.receipt.model_dump(exclude_none=True),
        }
        if prepared.options.explain != "none":
            with within(stage, "explanation"):
                reasons = self._reasons(prepared, outputs, without)
            if reasons is not None:
                answer["explanation"] = reasons
        stages = prepared.seconds
        stages["respond"] = time.perf_counter() - started
        answer["timing_ms"] = {stage: round(s * 1000, 3) for stage, s in stages.items()}
        return orjson.dumps(answer)

    def _reasons(
        self, prepared: Prepared, outputs: Outputs, without: Sequence[Outputs]
    ) -> attribution.Fields | None:
        options = prepared.options
        reasons = attribution.explanation(outputs, self._manifest, options.explain)
        if reasons is not None and options.explain == "full":
            tasks = attribution.standing_out(outputs, self._manifest)
            if options.task is not None:
                tasks = [self._tasks[options.task]]
            reasons["variables"] = attribution.variables(tasks, outputs, without, prepared.parts)
        return reasons

    def count(self, prepared: Sequence[Prepared]) -> None:
        for one in prepared:
            if one.attention is not None:
                for stage, seconds in one.seconds.items():
                    self._metrics.stage(stage, seconds)
                self._metrics.prediction(one.receipt, one.attention)


def _named(payload: Payload) -> list[Modality]:
    """The modalities that the payload speaks of."""
    named: dict[Modality, bool] = {
        "tabular": payload.tabular is not None,
        "series": bool(payload.series or payload.treatments),
        "notes": bool(payload.notes),
        "image": bool(payload.images),
    }
    return [modality for modality, there in named.items() if there]


@contextmanager
def _lasting_if_it_fails(stage: Stage | None) -> Iterator[None]:
    """The stage ends with what is raised, and else goes on."""
    try:
        yield
    except Exception as error:
        if stage is not None:
            stage.fault, stage.ended = type(error).__name__, time.perf_counter()
        raise


def _without(prepared: Prepared) -> Iterator[Sample]:
    """The sample without each of its parts."""
    for part in prepared.parts:
        if part.left is None:
            yield {m: one for m, one in prepared.sample.items() if m != part.modality}
        else:
            yield {**prepared.sample, part.modality: part.left}


def _insist(receipt: Receipt) -> None:
    """Raises InputIgnored if something of the sender's would not be used."""
    refused = [entry for entry in receipt.ignored if entry.reason in STRICT]
    if refused:
        faults = [
            FieldError(pointer=pointer, rule=entry.reason, detail=entry.detail)
            for entry in refused
            for pointer in entry.pointers or (entry.pointer,)
        ]
        count = sum(entry.entries or 1 for entry in refused)
        raise InputIgnored(faults, count)


def items(body: bytes, limit: int) -> list[Any]:
    """The payloads of `{"items": [payload, …]}`. Raises InvalidPayload for the whole."""
    document, names = read_json(body)
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
    known = [count_names(Payload, item) for item in items]
    if sum(count or 0 for count in known) + 1 != names:
        refuse_repeated_names(body)
    return items
