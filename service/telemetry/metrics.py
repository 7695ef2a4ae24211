"""Prometheus metrics. Each app has its own registry. No label holds a value from a payload."""

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

from schemas.features import Floats
from schemas.manifest import Manifest
from schemas.response import MODALITIES, Modality, Receipt
from service.telemetry.shared_counters import SharedCounters, parse_key

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

CanaryResult = Literal["passed", "failed", "no_answer"]

# Upper bounds of histogram buckets.
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_UNUSUAL = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 1.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64)
_FRACTIONS = tuple(i / 20 for i in range(1, 21))

# Name: help text, labels.
_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "m3h_requests": ("Number of responses", ("route", "status")),
    "m3h_predictions": ("Number of predictions; each item of a batch counts", ()),
    "m3h_batch_item_failures": (
        "Number of batch items answered by a problem document, in a batch that has status 200",
        ("status",),
    ),
    "m3h_variable_present": (
        "Number of predictions whose request had a usable value of the variable",
        ("variable",),
    ),
    "m3h_modality_present": (
        "Number of predictions whose request had the modality",
        ("modality",),
    ),
    "m3h_input_ignored": (
        "Number of inputs that the receipt lists as ignored, by reason",
        ("reason",),
    ),
    "m3h_embeddings": (
        "Number of embeddings by origin: memory, redis or computed",
        ("modality", "origin"),
    ),
    "m3h_redis_failures": (
        "Number of Redis requests that were too slow, failed or returned an invalid entry",
        ("fault",),
    ),
    "m3h_canaries": (
        "Number of golden requests while serving, and of failed replays by the readiness probe",
        ("result",),
    ),
    "m3h_cds_cards": (
        "Number of tasks on cards, by outcome: shown, unchanged, over_limit, accepted, overridden",
        ("task", "outcome"),
    ),
    "m3h_cds_overrides": (
        "Number of tasks on overridden cards, by reason; other: a code of the client",
        ("task", "reason"),
    ),
    "m3h_connections_refused": (
        "Number of connections that the server refused or closed, by reason",
        ("reason",),
    ),
}

# Name: help text, labels, buckets.
_HISTOGRAMS: dict[str, tuple[str, tuple[str, ...], tuple[float, ...]]] = {
    "m3h_request_seconds": (
        "Time from the first byte of a request to the last byte of its response",
        ("route",),
        _SECONDS,
    ),
    "m3h_stage_seconds": ("Time of a prediction in each stage", ("stage",), _SECONDS),
    "m3h_batch_rows": ("Number of predictions in an inference batch", (), _ROWS),
    "m3h_input_unusual": (
        "Fraction of the training patients whose input of the modality was less unusual",
        ("modality",),
        _UNUSUAL,
    ),
    "m3h_attention_entropy": (
        "Mean entropy of the attention of a task, as a fraction of its maximum",
        (),
        _FRACTIONS,
    ),
}

# Name: help text, labels, how the values of several workers are combined.
_GAUGES: dict[str, tuple[str, tuple[str, ...], Literal["livemax", "livesum"]]] = {
    "m3h_canary_difference": (
        "Largest difference of the latest golden request from its answer; relative above 1",
        (),
        "livemax",
    ),
    "m3h_bundle_info": (
        "Number of workers that serve the bundle",
        ("name", "version", "digest"),
        "livesum",
    ),
}


class Metrics:
    """The metrics of one process.

    `shared` has the counters of all workers; `worker` is the number of this process among them.
    """

    def __init__(self, shared: SharedCounters | None = None, worker: int = 0) -> None:
        # The "_created" series would double the output.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # ships no types
        self._shared = shared
        values.ValueClass = values.MutexValue if shared is None else shared.value_class(worker)
        registry = self._registry = CollectorRegistry()
        self._counters = {
            name: Counter(name, text, labels, registry=registry)
            for name, (text, labels) in _COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(name, text, labels, buckets=buckets, registry=registry)
            for name, (text, labels, buckets) in _HISTOGRAMS.items()
        }
        self._gauges = {
            name: Gauge(name, text, labels, multiprocess_mode=mode, registry=registry)
            for name, (text, labels, mode) in _GAUGES.items()
        }
        # A prediction counts many variables, and `labels` takes as long as counting.
        self._variable_present = cache(self._counters["m3h_variable_present"].labels)
        for modality in MODALITIES:
            self._counters["m3h_modality_present"].labels(modality)
            self._histograms["m3h_input_unusual"].labels(modality)
        for result in get_args(CanaryResult):
            self._counters["m3h_canaries"].labels(result)

    def add_bundle(self, manifest: Manifest, digest: str) -> None:
        """Counts a bundle that this worker serves from now on."""
        self._gauges["m3h_bundle_info"].labels(manifest.name, manifest.version, digest).inc()
        for variable in manifest.spec.variables:
            self._variable_present(variable.name)

    def remove_bundle(self, manifest: Manifest, digest: str) -> None:
        """Discounts a bundle that this worker no longer serves."""
        self._gauges["m3h_bundle_info"].labels(manifest.name, manifest.version, digest).dec()

    def count_request(self, route: str, status: int, seconds: float) -> None:
        self._counters["m3h_requests"].labels(route, str(status)).inc()
        self._histograms["m3h_request_seconds"].labels(route).observe(seconds)

    def count_refused_connection(self, reason: str) -> None:
        self._counters["m3h_connections_refused"].labels(reason).inc()

    def count_failed_item(self, status: int) -> None:
        self._counters["m3h_batch_item_failures"].labels(str(status)).inc()

    def observe_stage(self, stage: str, seconds: float) -> None:
        self._histograms["m3h_stage_seconds"].labels(stage).observe(seconds)

    def observe_batch(self, rows: int) -> None:
        self._histograms["m3h_batch_rows"].observe(rows)

    def count_embedding(self, modality: Modality, origin: str) -> None:
        self._counters["m3h_embeddings"].labels(modality, origin).inc()

    def count_card(self, task: str, outcome: str, reason: str | None = None) -> None:
        """Counts a task on a card. `reason`: why an overridden card was overridden."""
        self._counters["m3h_cds_cards"].labels(task, outcome).inc()
        if reason is not None:
            self._counters["m3h_cds_overrides"].labels(task, reason).inc()

    def count_redis_failure(self, fault: str) -> None:
        self._counters["m3h_redis_failures"].labels(fault).inc()

    def count_canary(self, result: CanaryResult, difference: float) -> None:
        """Counts a golden request. `difference` is ignored if there was no answer."""
        self._counters["m3h_canaries"].labels(result).inc()
        if result != "no_answer":
            self._gauges["m3h_canary_difference"].set(difference)

    def count_prediction(self, receipt: Receipt, attention: Floats) -> None:
        """Counts one prediction. `attention` [task, task]: rows sum to 1."""
        self._counters["m3h_predictions"].inc()
        for used in receipt.used:
            self._variable_present(used.variable).inc()
        for modality, use in receipt.modalities.items():
            if use.status != "absent":
                self._counters["m3h_modality_present"].labels(modality).inc()
            if use.unusual is not None:
                self._histograms["m3h_input_unusual"].labels(modality).observe(use.unusual)
        for entry in receipt.ignored:
            self._counters["m3h_input_ignored"].labels(entry.reason).inc(entry.entries or 1)
        tasks = len(attention)
        if tasks > 1 and np.isfinite(attention).all():
            weights = attention.astype(np.float64)
            entropy = -(weights * np.log(np.maximum(weights, 1e-30))).sum(axis=1).mean()
            self._histograms["m3h_attention_entropy"].observe(float(entropy / np.log(tasks)))

    def render(self) -> bytes:
        """The metrics of all workers in the Prometheus text format, version 0.0.4.

        Takes some milliseconds per worker: call it in a thread, not in an event loop.
        """
        if self._shared is not None:
            self._create_series_of_other_workers(self._shared)
        return generate_latest(self._registry)

    def _create_series_of_other_workers(self, shared: SharedCounters) -> None:
        """Another worker may have counted label values that this worker has not met."""
        metrics = {**self._counters, **self._histograms, **self._gauges}
        for key in map(parse_key, shared.keys()):
            # A histogram's bucket ("le") is a label of its samples, not of the metric.
            labels = key.label_values[: len(key.label_names) - ("le" in key.label_names)]
            if labels and key.metric in metrics:
                metrics[key.metric].labels(*labels)
