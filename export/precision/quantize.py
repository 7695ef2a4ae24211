"""Bundles of reduced precision: the same model with matrix products in 16 or in 8 bits.

Needs no torch: the ONNX graphs are converted (`export/precision/convert.py`) and served as before.

- **fp16, for GPUs.** Not bfloat16, which has 8 bits of precision where half precision has 11. The
  parts that need its range (values in their units, calibration) stay in fp32, and the weights are
  stored as halves anyway (`export/trace.py`). ONNX Runtime runs few bfloat16 operators on a CPU, so
  it could not be verified there.
- **int8, for CPUs.** Weights in blocks with one scale each. Convolutions stay, because they are
  slower in 8 bits. Not dynamic quantization (`MatMulInteger`): its input scale is that of the whole
  batch, so the answer for a patient would depend on the other patients of the batch.

A graph is converted if its loss of accuracy is small on patients that the model never learned from
(`accuracy_loss.py`), and if it is faster on its target device (fp16 is not timed without a CUDA
device). Golden answers stay those of full precision. Each start then proves on its own
processor that the bundle reproduces them, within a tolerance near the difference measured here.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from export.behaviour import BehaviourGate
from export.finalize import finalize, write_digests
from export.outputs import run_samples
from export.precision.accuracy_loss import (
    LOSS_LIMITS,
    AccuracyLoss,
    ReductionError,
    compare_outputs,
    held_out_samples,
)
from export.precision.benchmark_graphs import benchmark_graphs
from export.precision.convert import to_half_precision, to_int8
from model.cohorts.samples import Samples
from model.cohorts.store import Cohort
from schemas.features import extract_features
from schemas.manifest import Graph, Manifest, Quantization, QuantizedGraph
from schemas.payload import as_payload
from schemas.response import MODALITIES
from service.runtime.bundle import Bundle, select_device
from service.runtime.engine import FUSION, Engine
from service.runtime.golden import max_difference

Precision = Literal["fp16", "int8"]

# Shares of the old time that a new graph may take.
MAX_TIME_OF_ONE = 0.9  # for one request
MAX_TIME_OF_MANY = 1.1  # for many: the measurement is not more accurate
ONE, MANY = 1, 8  # concurrent requests
# The tolerance of golden answers, as a multiple of the measured difference. Other devices round
# differently: if every step is rounded to half precision, as on a GPU, differences are twice those
# of the CPU.
TOLERANCE_FACTOR = 3.0


@dataclass(frozen=True)
class _Candidate:
    """A converted bundle and its original, with the data to compare them.

    `times`: by number of concurrent requests and by graph, the share of the old time.
    """

    old: Bundle
    new: Bundle
    samples: Samples
    outputs: dict[str, npt.NDArray[np.float64]]
    limits: Mapping[str, float]
    converted: set[str]
    times: dict[int, dict[str, float]]
    max_time: float

    def loss(self, names: set[str]) -> AccuracyLoss:
        """The loss of the old bundle with the named graphs of the new one."""
        mixed = _mixed_bundle(self.old, self.new, names)
        outputs = run_samples(mixed, self.samples)
        manifest = self.old.manifest
        return compare_outputs(manifest, self.samples, self.limits, self.outputs, outputs)

    def reject_reason(self, name: str, times: Mapping[int, float]) -> str | None:
        """The reason not to convert a graph; None to convert it."""
        if name not in self.converted:
            return "it has no products of weight matrices"
        if name != FUSION and not self.samples.present[:, MODALITIES.index(name)].any():
            return "no held-out patient has this modality"
        max_time_of_many = max(MAX_TIME_OF_MANY, self.max_time)
        if times and (times[ONE] > self.max_time or times[MANY] > max_time_of_many):
            return "it is not faster"
        if violations := self.loss({name}).violations:
            return f"too much would be lost: {'; '.join(violations)}"
        return None


def quantize_bundle(
    bundle: Path,
    cohorts: Sequence[Path],
    folder: Path,
    precision: Precision,
    *,
    version: str | None = None,
    limits: Mapping[str, float] = LOSS_LIMITS,
    max_time: float = MAX_TIME_OF_ONE,
    gate: BehaviourGate | None = None,
) -> tuple[str, Quantization]:
    """Writes the bundle with this precision to `folder`; returns its digest and the reduction.

    `limits`: by metric, the loss that a task may have; `max_time`: the share of the old time that a
    graph may take. Raises ReductionError if too much would be lost, no graph can be converted, or a
    cohort has another feature spec or is one that the bundle learned from; BehaviourError if the
    new bundle does not pass the gate; BundleError or CohortError if a file was changed.
    """
    old = Bundle.load(bundle, "cpu")
    if old.manifest.reduction is not None:
        raise ReductionError(
            f"the bundle is already {old.manifest.reduction.precision}; use the bundle it was made "
            "from"
        )
    samples, held_out = held_out_samples(old.manifest, [Cohort.load(cohort) for cohort in cohorts])
    graphs = {str(m): graph for m, graph in old.manifest.encoders.items()}
    graphs[FUSION] = old.manifest.fusion
    convert = {"fp16": to_half_precision, "int8": to_int8}[precision]
    with _partial_copy(bundle, folder) as partial:
        converted = {name for name, graph in graphs.items() if convert(partial / graph.file)}
        write_digests(partial, old.manifest)
        candidate = _Candidate(
            old=old,
            new=Bundle.load(partial, "cpu"),
            samples=samples,
            outputs=run_samples(old, samples),
            limits=limits,
            converted=converted,
            times=_time_shares(bundle, partial, precision),
            max_time=max_time,
        )
        reduced = _reduce_graphs(candidate, graphs, precision)
        for name, graph in reduced.items():
            if graph.reason:
                shutil.copyfile(bundle / graphs[name].file, partial / graphs[name].file)
        loss = candidate.loss({name for name, graph in reduced.items() if graph.reason is None})
        if loss.violations:
            raise ReductionError(f"{precision} would lose too much: {'; '.join(loss.violations)}")
        reduction = Quantization(
            precision=precision,
            bundle=old.digest,
            held_out=held_out,
            graphs=reduced,
            tasks=loss.changes,
            limits=dict(limits),
            largest_difference=loss.largest_difference,
        )
        manifest = _new_manifest(partial, old.manifest, folder, reduction, version)
        return finalize(partial, manifest, None, folder, gate), reduction


def _reduce_graphs(
    candidate: _Candidate, graphs: Mapping[str, Graph], precision: Precision
) -> dict[str, QuantizedGraph]:
    """The precision of each graph. Raises ReductionError if no graph can be converted."""
    reduced: dict[str, QuantizedGraph] = {}
    for name in graphs:
        times = {batch: shares[name] for batch, shares in candidate.times.items() if name in shares}
        reason = candidate.reject_reason(name, times)
        new_precision: Any = "fp32" if reason else precision
        reduced[name] = QuantizedGraph(precision=new_precision, reason=reason, time=times)
    if all(graph.reason for graph in reduced.values()):
        reasons = "; ".join(f"{name}: {graph.reason}" for name, graph in reduced.items())
        raise ReductionError(f"no graph can be converted to {precision}: {reasons}")
    return reduced


def _new_manifest(
    partial: Path, old: Manifest, folder: Path, reduction: Quantization, version: str | None
) -> Manifest:
    """The manifest of the reduced bundle, with the tolerance of its golden answers by device."""
    write_digests(partial, old)
    tolerances = {
        device: max(
            TOLERANCE_FACTOR * _golden_difference(Bundle.load(partial, device)),
            old.golden_tolerance,
        )
        for device in ("cpu", select_device("auto"))
    }
    separator = "." if "+" in old.version else "+"
    return old.model_copy(
        update={
            "name": folder.resolve().name,
            "version": version or f"{old.version}{separator}{reduction.precision}",
            "created": datetime.now(UTC).date().isoformat(),
            "golden_tolerance": max(tolerances.values()),
            "golden_tolerances": tolerances,
            "reduction": reduction,
        }
    )


@contextmanager
def _partial_copy(bundle: Path, folder: Path) -> Iterator[Path]:
    """A temporary copy of the bundle beside `folder`."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(bundle, partial)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _mixed_bundle(old: Bundle, new: Bundle, names: set[str]) -> Bundle:
    """The old bundle with the named graphs of the new one."""
    encoders = {m: new.encoders[m] if m in names else old.encoders[m] for m in old.encoders}
    return replace(old, encoders=encoders, fusion=new.fusion if FUSION in names else old.fusion)


def _time_shares(bundle: Path, partial: Path, precision: Precision) -> dict[int, dict[str, float]]:
    """By concurrent requests and graph, the new time as a share of the old; {} without a GPU."""
    device: Literal["cpu", "cuda"] = "cuda" if precision == "fp16" else "cpu"
    if device == "cuda" and select_device("auto") == "cpu":
        return {}
    old, new = (Engine(Bundle.load(path, device)) for path in (bundle, partial))
    return {
        batch: {name: ratio for name, (_, _, ratio) in benchmark_graphs(old, new, batch).items()}
        for batch in (ONE, MANY)
    }


def _golden_difference(bundle: Bundle) -> float:
    """The largest difference of the engine from the golden answers, on the bundle's device."""
    engine, largest = Engine(bundle), 0.0
    for line in map(json.loads, bundle.golden.splitlines()):
        (outputs,) = engine.run(
            [extract_features(as_payload(line["request"]), bundle.manifest.spec).arrays]
        )
        for name, values in line["outputs"].items():
            expected = np.array(values, dtype=np.float32)
            largest = max(largest, max_difference(outputs.fusion[name], expected))
    return largest
