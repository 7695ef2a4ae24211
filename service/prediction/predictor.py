"""The computation of predictions, from the body of a request to the body of its answer.

The batcher calls the steps `parse`, `prepare` and `run` from its threads.
"""

import functools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice

import orjson

from schemas.features import Array, EncodedNote, encode_note, extract_features, no_time_limit
from schemas.payload import FieldError, Payload
from schemas.response import SCHEMA_VERSION, Modality, ModelReference, Reason, Receipt
from service.cache.embedding_cache import CacheKey, CacheKeys, EmbeddingCache
from service.errors import InputIgnored, InvalidOption, ServiceError
from service.prediction import response
from service.prediction.abstention import Basis
from service.prediction.answer_fields import (
    AbstainedFields,
    AnswerFields,
    OptionalExplanation,
)
from service.prediction.explanation import attribution, occlusion
from service.prediction.jobs import Job, Options, ParsedJob, PreparedJob
from service.prediction.phenotypes import describe_phenotypes
from service.prediction.receipt import complete_receipt, with_unusual_scores
from service.runtime.bundle import ATTENTION
from service.runtime.cost_estimate import FeatureCost, InputSize
from service.runtime.engine import Embedding, Engine, Outputs, Sample
from service.telemetry.metrics import Metrics
from service.telemetry.spans import Span, child_span, shared_span

# Reasons to ignore input that strict=true refuses. The others are no fault of the sender, such as
# old or repeated data.
STRICT_REASONS: frozenset[Reason] = frozenset(
    {
        *("unknown_variable", "unknown_unit", "unit_required"),
        "unknown_treatment",
        "ambiguous_treatment",
        "unknown_category",
        "implausible_value",
        "hidden_modality",
        *("not_a_chest_xray", "not_for_presentation"),
    }
)
_ABLATIONS_PER_RUN = 64
_NO_SPAN = nullcontext()


class Predictor:
    """Computes predictions with one engine. It is the processor of a batcher."""

    def __init__(self, engine: Engine, cache: EmbeddingCache, metrics: Metrics) -> None:
        self._engine, self._cache, self._metrics = engine, cache, metrics
        self._manifest = manifest = engine.bundle.manifest
        self._keys = CacheKeys(engine.bundle.digest, manifest.spec)
        self._model = _model_reference(engine)
        self._task_fields = functools.cache(functools.partial(response.build_task_fields, manifest))
        self._abstentions = functools.cache(functools.partial(response.build_abstentions, manifest))
        self._explainable_tasks = {
            task.task.name: task for task in manifest.tasks if attribution.has_scalar_output(task)
        }
        self._phenotypes = describe_phenotypes(manifest)
        self._feature_cost = FeatureCost()

    # ---- parse -----------------------------------------------------------------------------------

    def cost_class(self, job: Job) -> str:
        return job.options.explain

    def parse(self, job: Job) -> ParsedJob:
        """Parses and validates the payload.

        Raises InvalidPayload, InvalidOption, and InputIgnored for a PayloadSource.
        """
        began = time.perf_counter()
        if job.queue is not None:
            job.queue.ended = began
        stage = None if job.stage is None else job.stage.start_child("prepare")
        with _end_on_error(stage):
            self._check_task(job.options)
            payload = job.parse()
            ended = time.perf_counter()
            encoders = self._engine.bundle.encoders
            keys = {m: k for m, k in self._keys.content_keys(payload).items() if m in encoders}
        cached = {modality for modality, key in keys.items() if key in self._cache}
        if job.options.explain == "full":
            cached.discard("notes")  # their passages are left out one by one
        size = InputSize.of(payload, cached)
        seconds = {"queue": began - job.created, "parse": ended - began}
        return ParsedJob(job, payload, keys, cached, size, seconds, stage, ended)

    def _check_task(self, options: Options) -> None:
        """Raises InvalidOption for a task whose variables cannot be listed."""
        if options.task is None:
            return
        if options.explain != "full":
            raise InvalidOption("task", "needs_full", "task is for explain=full")
        if options.task not in self._explainable_tasks:
            detail = "no task with one number that the model gives; GET /tasks lists all"
            raise InvalidOption("task", "unknown_task", detail)

    def estimate_seconds(self, parsed: ParsedJob) -> float:
        """Estimates the time of `prepare` and `run`, with the explanation, in seconds."""
        explain = parsed.job.options.explain
        modalities = _sent_modalities(parsed.payload)
        fusion_rows = 2 ** len(modalities) - 1 if explain != "none" else 1
        encoder_rows = {m: 1 for m in modalities if m not in parsed.cached}
        if "notes" in encoder_rows:
            encoder_rows["notes"] = parsed.size.tokens
        if explain == "full":
            ablations = occlusion.max_ablations(parsed.payload, self._manifest.spec)
            fusion_rows += sum(ablations.values())
            encoder_rows["series"] = 1 + ablations["series"]
            encoder_rows["notes"] = (1 + ablations["notes"]) * parsed.size.tokens
        features_seconds = self._feature_cost.estimate(parsed.size)
        return features_seconds + self._engine.estimate_seconds(fusion_rows, encoder_rows)

    # ---- prepare ---------------------------------------------------------------------------------

    def prepare(self, parsed: ParsedJob, check: Callable[[], None]) -> PreparedJob:
        """Extracts the features and looks up the cache. Raises InvalidPayload and InputIgnored."""
        with _NO_SPAN if parsed.stage is None else parsed.stage.closing():
            return self._prepare(parsed, check)

    def _prepare(self, parsed: ParsedJob, check: Callable[[], None]) -> PreparedJob:
        began = time.perf_counter()
        payload, keys, options = parsed.payload, parsed.keys, parsed.job.options
        cached = self._cached(keys, parsed.stage)
        notes_seconds = 0.0

        @functools.cache
        def encode(text: str) -> EncodedNote:
            nonlocal notes_seconds
            started = time.perf_counter()
            tokens = encode_note(text, self._manifest.spec, check)
            seconds = time.perf_counter() - started
            notes_seconds += seconds
            self._feature_cost.update_notes(len(text), seconds)
            return tokens

        extracted = extract_features(
            payload, self._manifest.spec, cached, check=check, encode=encode
        )
        rest_seconds = time.perf_counter() - began - notes_seconds
        self._feature_cost.update_rest(parsed.size, rest_seconds)
        if extracted.receipt.modalities["image"].unusual is not None:
            # Only decoding can detect this. An answer from the cache would lack the warning.
            keys.pop("image", None)
        if "series" in extracted.arrays and "series" in self._engine.bundle.encoders:
            keys["series"] = self._keys.series_key(extracted.arrays["series"])
            cached |= self._cached({"series": keys["series"]}, parsed.stage)
        receipt = complete_receipt(extracted, self._manifest)
        if options.strict:
            _refuse_ignored_input(receipt)
        basis = Basis.of(extracted, self._manifest)
        abstentions = self._abstentions(basis)
        ablations = []
        if options.explain == "full" and self._has_prediction(abstentions):
            ablations = occlusion.ablations(
                payload, extracted.arrays, self._manifest.spec, encode, check
            )
        sample: dict[Modality, dict[str, Array] | Embedding] = {**extracted.arrays, **cached}
        if parsed.stage is not None:
            parsed.stage.attributes["m3h.modalities"] = [*sample]
        seconds = {
            # A job that moved to the long lane was queued there, too.
            "queue": parsed.seconds["queue"] + began - parsed.parsed_at,
            "parse": parsed.seconds["parse"],
            "features": time.perf_counter() - began,
        }
        stage = parsed.job.stage
        return PreparedJob(
            options,
            extracted,
            receipt,
            basis,
            abstentions,
            keys,
            sample,
            ablations,
            seconds,
            stage,
            check,
        )

    def _has_prediction(self, abstentions: Mapping[str, AbstainedFields]) -> bool:
        return len(abstentions) < len(self._manifest.tasks)

    def _cached(
        self, keys: Mapping[Modality, CacheKey], stage: Span | None
    ) -> dict[Modality, Embedding]:
        """The embeddings that the cache has for these keys."""
        if stage is None:
            return self._cache.get(keys)
        origins = {m: "memory" if key in self._cache else "redis" for m, key in keys.items()}
        asks_redis = self._cache.uses_redis and "redis" in origins.values()
        with child_span(stage if asks_redis else None, "redis"):
            cached = self._cache.get(keys)
        for modality, origin in origins.items():
            stage.attributes[f"m3h.cache.{modality}"] = origin if modality in cached else "miss"
        return cached

    # ---- run -------------------------------------------------------------------------------------

    def run(self, prepared: Sequence[PreparedJob]) -> list[bytes | Exception]:
        """Computes a batch. Returns the body of each answer, or a ServiceError."""
        started = time.perf_counter()
        check = prepared[0].check if len(prepared) == 1 else no_time_limit
        with shared_span((job.stage for job in prepared), "batch", len(prepared)) as batch:
            self._embed(prepared, batch, check)
            explained = {
                i
                for i, job in enumerate(prepared)
                if job.options.explain != "none" and self._has_prediction(job.abstentions)
            }
            outputs = self._engine.run([job.sample for job in prepared], explained, batch)
            ablated = [self._run_ablations(job, batch) for job in prepared]
        seconds = time.perf_counter() - started
        for job in prepared:
            job.seconds["model"] = seconds
        return [
            job_ablated
            if isinstance(job_ablated, ServiceError)
            else self._answer(job, job_outputs, job_ablated)
            for job, job_outputs, job_ablated in zip(prepared, outputs, ablated, strict=True)
        ]

    def _run_ablations(self, job: PreparedJob, batch: Span | None) -> list[Outputs] | ServiceError:
        """The outputs of each ablation, or the error if the job is cancelled meanwhile."""
        if not job.ablations:
            return []
        outputs: list[Outputs] = []
        samples = _ablated_samples(job)
        try:
            with shared_span([batch], "occlusion", len(job.ablations)):
                while chunk := list(islice(samples, _ABLATIONS_PER_RUN)):
                    job.check()
                    outputs += self._engine.run(chunk, check=job.check)
        except ServiceError as error:
            return error
        return outputs

    def _embed(
        self, prepared: Sequence[PreparedJob], batch: Span | None, check: Callable[[], None]
    ) -> None:
        """Computes and caches embeddings. Content that occurs repeatedly is encoded once."""
        for modality in self._engine.bundle.encoders:
            to_encode: dict[CacheKey, dict[str, Array]] = {}
            jobs = []
            for job in prepared:
                arrays = _arrays(job, modality)
                if (
                    modality in job.keys
                    and arrays is not None
                    and not isinstance(arrays, Embedding)
                ):
                    to_encode.setdefault(job.keys[modality], arrays)
                    jobs.append(job)
            if to_encode:
                rows = self._engine.embed(modality, [*to_encode.values()], batch, check)
                embeddings = dict(zip(to_encode, rows, strict=True))
                for key, embedding in embeddings.items():
                    self._cache.put(modality, key, embedding)
                for job in jobs:
                    job.sample[modality] = embeddings[job.keys[modality]]
            for job in prepared:
                arrays = _arrays(job, modality)
                if (
                    arrays is not None and job.ablations
                ):  # has no key; encode once for all ablations
                    (job.sample[modality],) = self._engine.embed(modality, [arrays], batch, check)

    # ---- answer ----------------------------------------------------------------------------------

    def _answer(self, job: PreparedJob, outputs: Outputs, ablated: Sequence[Outputs]) -> bytes:
        with child_span(job.stage, "respond") as stage:
            return self._encode_answer(job, outputs, ablated, stage)

    def _encode_answer(
        self, job: PreparedJob, outputs: Outputs, ablated: Sequence[Outputs], stage: Span | None
    ) -> bytes:
        started = time.perf_counter()
        job.receipt = with_unusual_scores(job.receipt, outputs)
        job.attention = outputs.fusion[ATTENTION]
        predictions = response.build_predictions(
            outputs,
            self._manifest,
            self._task_fields(job.basis),
            self._phenotypes,
            job.abstentions,
        )
        explanation: OptionalExplanation = {}
        if job.options.explain != "none" and self._has_prediction(job.abstentions):
            with child_span(stage, "explanation"):
                explanation = self._explain(job, outputs, ablated)
        receipt = job.receipt.model_dump(exclude_none=True)
        job.seconds["respond"] = time.perf_counter() - started
        answer: AnswerFields = {
            "schema_version": SCHEMA_VERSION,
            "id": str(uuid.uuid4()),
            "model": self._model,
            "predictions": predictions,
            "receipt": receipt,
            **explanation,
            "timing_ms": {step: round(s * 1000, 3) for step, s in job.seconds.items()},
        }
        return orjson.dumps(answer)

    def _explain(
        self, job: PreparedJob, outputs: Outputs, ablated: Sequence[Outputs]
    ) -> OptionalExplanation:
        options = job.options
        explanation = attribution.explain_outputs(
            outputs, self._manifest, options.explain, job.abstentions
        )
        if explanation is None:
            return {}
        if options.explain == "full":
            tasks = attribution.most_deviating_tasks(outputs, self._manifest, job.abstentions)
            if options.task is not None:
                requested = self._explainable_tasks[options.task]
                tasks = [] if options.task in job.abstentions else [requested]
            explanation["variables"] = attribution.attribute_to_parts(
                tasks, outputs, job.ablations, ablated
            )
        return {"explanation": explanation}

    def record(self, prepared: Sequence[PreparedJob]) -> None:
        for job in prepared:
            if job.attention is not None:
                for step, seconds in job.seconds.items():
                    self._metrics.observe_stage(step, seconds)
                self._metrics.count_prediction(job.receipt, job.attention)


def _model_reference(engine: Engine) -> dict[str, str]:
    manifest = engine.bundle.manifest
    local = manifest.recalibration
    reference = ModelReference(
        name=manifest.name,
        version=manifest.version,
        digest=engine.bundle.digest,
        recalibrated_by=None if local is None else f"{local.patients} patients of {local.cohort}",
    )
    return reference.model_dump(exclude_none=True)


def _sent_modalities(payload: Payload) -> list[Modality]:
    """The modalities for which the payload has input."""
    sent: dict[Modality, bool] = {
        "tabular": payload.tabular is not None,
        "series": bool(payload.series or payload.treatments),
        "notes": bool(payload.notes),
        "image": bool(payload.images),
    }
    return [modality for modality, is_sent in sent.items() if is_sent]


@contextmanager
def _end_on_error(stage: Span | None) -> Iterator[None]:
    """Ends a span with the exception that is raised. Without one, the span continues."""
    try:
        yield
    except Exception as error:
        if stage is not None:
            stage.error, stage.ended = type(error).__name__, time.perf_counter()
        raise


def _arrays(job: PreparedJob, modality: Modality) -> dict[str, Array] | None:
    """The features of a modality that is not encoded yet."""
    value = job.sample.get(modality)
    return None if isinstance(value, Embedding) else value


def _ablated_samples(job: PreparedJob) -> Iterator[Sample]:
    """The sample of a job without each of its parts."""
    for ablation in job.ablations:
        if ablation.remaining is None:
            yield {m: value for m, value in job.sample.items() if m != ablation.modality}
        else:
            yield {**job.sample, ablation.modality: ablation.remaining}


def _refuse_ignored_input(receipt: Receipt) -> None:
    """Raises InputIgnored if input would be ignored that the sender could correct."""
    refused = [entry for entry in receipt.ignored if entry.reason in STRICT_REASONS]
    if refused:
        faults = [
            FieldError(pointer=pointer, rule=entry.reason, detail=entry.detail)
            for entry in refused
            for pointer in entry.pointers or (entry.pointer,)
        ]
        raise InputIgnored(faults, count=sum(entry.entries or 1 for entry in refused))
