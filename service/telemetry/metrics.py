"""What Prometheus reads. One registry for each app; no label holds a value from a payload."""

from functools import cache
from typing import Literal, get_args

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from schemas.features import Floats
from schemas.manifest import Manifest
from schemas.response import MODALITIES, Modality, Receipt
from service.telemetry.shared_counters import SharedCounters, key_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Canary = Literal["passed", "failed", "no_answer"]

_SECONDS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
_UNUSUAL = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 1.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64)
_SHARES = tuple(i / 20 for i in range(1, 21))


class _Registry(CollectorRegistry):
    """Knows its metrics by name."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: dict[str, MetricWrapperBase] = {}

    def register(self, collector: Collector) -> None:
        super().register(collector)
        if isinstance(collector, MetricWrapperBase):
            (family,) = collector.describe()
            self.by_name[family.name] = collector


class Metrics:
    """The counters and histograms of one process, or of one worker among others.

    `shared`: the counters of all workers, of which `worker` is this one's number.
    """

    def __init__(self, shared: SharedCounters | None = None, worker: int = 0) -> None:
        # They double the output, and nobody asks for them.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
        self._shared = shared
        values.ValueClass = values.MutexValue if shared is None else shared.value_class(worker)
        self._registry = _Registry()
        self._requests = Counter(
            "m3h_requests", "Requests answered", ("route", "status"), registry=self._registry
        )
        self._request_seconds = Histogram(
            "m3h_request_seconds",
            "Time from the first byte of a request to the last of its answer",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stage_seconds = Histogram(
            "m3h_stage_seconds",
            "Time that a prediction spends in a stage",
            ("stage",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch_rows = Histogram(
            "m3h_batch_rows",
            "Predictions that are computed together",
            buckets=_ROWS,
            registry=self._registry,
        )
        self._cached = Counter(
            "m3h_embeddings",
            "Embeddings by where they came from: memory, redis, or computed",
            ("modality", "origin"),
            registry=self._registry,
        )
        self._redis_failed = Counter(
            "m3h_redis_failures",
            "Times that Redis was too slow, failed, or gave what is not whole",
            ("fault",),
            registry=self._registry,
        )
        self._predictions = Counter(
            "m3h_predictions", "Predictions answered, each of a batch", registry=self._registry
        )
        self._items_failed = Counter(
            "m3h_batch_item_failures",
            "Items of batches that were answered by a problem; the batch itself was answered 200",
            ("status",),
            registry=self._registry,
        )
        measured = Counter(
            "m3h_variable_present",
            "Predictions whose request held a usable value of the variable",
            ("variable",),
            registry=self._registry,
        )
        # They are many for each prediction, and looking one up takes as long as counting it.
        self._measured = cache(measured.labels)
        self._present = Counter(
            "m3h_modality_present",
            "Predictions whose request held the modality",
            ("modality",),
            registry=self._registry,
        )
        self._unusual = Histogram(
            "m3h_input_unusual",
            "Share of the training patients whose input of the modality was more ordinary",
            ("modality",),
            buckets=_UNUSUAL,
            registry=self._registry,
        )
        self._ignored = Counter(
            "m3h_input_ignored",
            "Entries of the receipt about input that was not used",
            ("reason",),
            registry=self._registry,
        )
        self._entropy = Histogram(
            "m3h_attention_entropy",
            "Mean entropy of a task's attention, as a share of its maximum",
            buckets=_SHARES,
            registry=self._registry,
        )
        self._canaries = Counter(
            "m3h_canaries",
            "Golden requests replayed while serving, and replays for readiness that failed",
            ("result",),
            registry=self._registry,
        )
        self._canary_difference = Gauge(
            "m3h_canary_difference",
            "Largest difference of the latest golden request from its golden answer; of what is "
            "above 1, as a share of it",
            multiprocess_mode="livemax",
            registry=self._registry,
        )
        self._refused = Counter(
            "m3h_connections_refused",
            "Connections that the server refused or cut, by reason",
            ("reason",),
            registry=self._registry,
        )
        self._bundle = Gauge(
            "m3h_bundle_info",
            "The bundle that is served: by how many workers",
            ("name", "version", "digest"),
            multiprocess_mode="livesum",
            registry=self._registry,
        )
        for modality in MODALITIES:
            self._present.labels(modality)
            self._unusual.labels(modality)
        for result in get_args(Canary):
            self._canaries.labels(result)

    def serves(self, manifest: Manifest, digest: str) -> None:
        self._bundle.labels(manifest.name, manifest.version, digest).inc()
        for variable in manifest.spec.variables:
            self._measured(variable.name)

    def serves_no_more(self, manifest: Manifest, digest: str) -> None:
        self._bundle.labels(manifest.name, manifest.version, digest).dec()

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def connection_refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def item_failed(self, status: int) -> None:
        self._items_failed.labels(str(status)).inc()

    def stage(self, stage: str, seconds: float) -> None:
        self._stage_seconds.labels(stage).observe(seconds)

    def batch(self, rows: int) -> None:
        self._batch_rows.observe(rows)

    def cached(self, modality: Modality, origin: str) -> None:
        self._cached.labels(modality, origin).inc()

    def redis_failed(self, fault: str) -> None:
        self._redis_failed.labels(fault).inc()

    def canary(self, result: Canary, difference: float) -> None:
        """Counts a golden request. `difference`: from its golden answer, if there was an answer."""
        self._canaries.labels(result).inc()
        if result != "no_answer":
            self._canary_difference.set(difference)

    def prediction(self, receipt: Receipt, attention: Floats) -> None:
        """Counts one prediction. `attention` [task, task]: rows sum to 1."""
        self._predictions.inc()
        for used in receipt.used:
            self._measured(used.variable).inc()
        for modality, use in receipt.modalities.items():
            if use.status != "absent":
                self._present.labels(modality).inc()
            if use.unusual is not None:
                self._unusual.labels(modality).observe(use.unusual)
        for entry in receipt.ignored:
            self._ignored.labels(entry.reason).inc(entry.entries or 1)
        tasks = len(attention)
        if tasks > 1 and np.isfinite(attention).all():
            weights = attention.astype(np.float64)
            entropy = -(weights * np.log(np.maximum(weights, 1e-30))).sum(axis=1).mean()
            self._entropy.observe(float(entropy / np.log(tasks)))

    def text(self) -> bytes:
        """The Prometheus text format, version 0.0.4: of all workers, if there are some.

        Takes some milliseconds for each worker: not for an event loop.
        """
        if self._shared is not None:
            for key in map(key_of, self._shared.keys()):
                metric = self._registry.by_name.get(key.metric)
                # Another worker may have counted what this one has not met. Of a histogram's
                # labels, the bucket is none that the metric is asked by.
                labels = key.label_values[: len(key.label_names) - ("le" in key.label_names)]
                if metric is not None and labels:
                    metric.labels(*labels)
        return generate_latest(self._registry)
