"""A bundle of reduced precision: the same model, its products of matrices in 16 or in 8 bits.

Needs no torch: the graphs themselves are converted (`export/precision.py`), and serve as before.

- **fp16, for GPUs.** Not bfloat16, which has 8 bits of a number where half precision has 11: what
  needs its range (values in their units, calibration) stays in fp32 anyway, the weights are halves
  already (`export/trace.py`), and ONNX Runtime runs hardly anything of it on a CPU, so that it
  could not be verified there.
- **int8, for CPUs.** Weights in blocks with a scale each; convolutions in 8 bits are slower. Not
  dynamic quantization (`MatMulInteger`), whose scale for the inputs is that of the whole batch:
  what is said of a patient would depend on who else is in it.

A graph is converted if it holds, by patients that the model never learned from
(`export/accuracy_loss.py`), and is faster by the clock on the device that it is for (fp16 is not
timed where there is no CUDA device). Golden answers stay those of full precision, so that each
start proves on its own processor that they are still given, about as nearly as was measured here.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from export.accuracy_loss import LIMITS, ReductionError, held_out, judged, said
from export.benchmark_graphs import paced
from export.finalize import seal, state
from export.precision import as_bytes, as_halves
from model.cohorts.store import Cohort
from schemas.features import features
from schemas.manifest import ReducedGraph, Reduction
from schemas.payload import as_payload
from schemas.response import MODALITIES
from service.runtime.bundle import Bundle, select_device
from service.runtime.engine import FUSION, Engine
from service.runtime.golden import max_difference

Precision = Literal["fp16", "int8"]

WORTH = 0.9  # of the time that one request took
LONGER = 1.1  # of the time that many took: the clock is no better
ONE, MANY = 1, 8  # requests at once
# A golden answer may be off by so many times what was measured. Others round otherwise: with every
# step rounded to half precision, as a GPU does it, differences are twice those of the CPU.
SLACK = 3.0


def reduce_precision(
    bundle: Path,
    cohorts: Sequence[Path],
    folder: Path,
    precision: Precision,
    *,
    version: str | None = None,
    limits: Mapping[str, float] = LIMITS,
    worth: float = WORTH,
) -> tuple[str, Reduction]:
    """Writes the bundle of that precision to `folder`; returns its digest and what was done.

    `limits`: by metric what a task may lose; `worth`: the share of the time that it may take.
    Raises ReductionError if more would be lost, no graph is worth it, or a cohort was not made for
    this bundle or is one that it learned from; BundleError or CohortError if one was changed.
    """
    old = Bundle.load(bundle, "cpu")
    if old.manifest.reduction is not None:
        raise ReductionError(
            f"the bundle is {old.manifest.reduction.precision} already; take the one before it"
        )
    samples, patients = held_out(old.manifest, [Cohort.load(cohort) for cohort in cohorts])
    judge = partial(judged, old.manifest, samples, limits, said(old, samples))
    graphs = {str(m): graph for m, graph in old.manifest.encoders.items()}
    graphs[FUSION] = old.manifest.fusion
    convert = {"fp16": as_halves, "int8": as_bytes}[precision]
    with _beside(bundle, folder) as made:
        converted = {name for name, graph in graphs.items() if convert(made / graph.file)}
        state(made, old.manifest)
        new = Bundle.load(made, "cpu")
        times = _times(bundle, made, precision)
        found: dict[str, ReducedGraph] = {}
        for name, graph in graphs.items():
            took = {batch: of[name] for batch, of in times.items() if name in of}
            reason = None
            if name not in converted:
                reason = "it multiplies no matrices of weights"
            elif name != FUSION and not samples.present[:, MODALITIES.index(name)].any():
                reason = "no patient held out has it"
            elif took and (took[ONE] > worth or took[MANY] > max(LONGER, worth)):
                reason = "it is not faster"
            elif too_much := judge(said(_mixed(old, new, {name}), samples))[2]:
                reason = f"too much would be lost: {'; '.join(too_much)}"
            became: Any = "fp32" if reason else precision
            found[name] = ReducedGraph(precision=became, reason=reason, time=took)
            if reason:
                shutil.copyfile(bundle / graph.file, made / graph.file)
        kept = {name for name, graph in found.items() if graph.reason is None}
        if not kept:
            why = "; ".join(f"{name}: {graph.reason}" for name, graph in found.items())
            raise ReductionError(f"no graph is worth {precision}: {why}")
        changes, largest, too_much = judge(said(_mixed(old, new, kept), samples))
        if too_much:
            raise ReductionError(f"{precision} would lose too much: {'; '.join(too_much)}")

        state(made, old.manifest)
        off = {d: _golden_difference(Bundle.load(made, d)) for d in ("cpu", select_device("auto"))}
        tolerances = {d: max(SLACK * far, old.manifest.golden_tolerance) for d, far in off.items()}
        reduction = Reduction(
            precision=precision,
            bundle=old.digest,
            held_out=patients,
            graphs=found,
            tasks=changes,
            limits=dict(limits),
            largest_difference=largest,
        )
        was = old.manifest.version
        manifest = old.manifest.model_copy(
            update={
                "name": folder.resolve().name,
                "version": version or f"{was}{'.' if '+' in was else '+'}{precision}",
                "created": datetime.now(UTC).date().isoformat(),
                "golden_tolerance": max(tolerances.values()),
                "golden_tolerances": tolerances,
                "reduction": reduction,
            }
        )
        return seal(made, manifest, None, folder), reduction


@contextmanager
def _beside(bundle: Path, folder: Path) -> Iterator[Path]:
    """A copy of the bundle beside the folder, for a while."""
    made = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(bundle, made)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _mixed(old: Bundle, new: Bundle, names: set[str]) -> Bundle:
    """The old bundle with these graphs of the new one."""
    encoders = {m: new.encoders[m] if m in names else old.encoders[m] for m in old.encoders}
    return replace(old, encoders=encoders, fusion=new.fusion if FUSION in names else old.fusion)


def _times(bundle: Path, made: Path, precision: Precision) -> dict[int, dict[str, float]]:
    """By requests at once, of each graph, what share of the old time the new one takes."""
    device: Literal["cpu", "cuda"] = "cuda" if precision == "fp16" else "cpu"
    if device == "cuda" and select_device("auto") == "cpu":
        return {}
    old, new = (Engine(Bundle.load(path, device)) for path in (bundle, made))
    both = {batch: paced(old, new, batch) for batch in (ONE, MANY)}
    return {batch: {name: one[2] for name, one in of.items()} for batch, of in both.items()}


def _golden_difference(bundle: Bundle) -> float:
    """How far the engine is off the golden answers, at most, on the bundle's device."""
    engine, off = Engine(bundle), 0.0
    for one in map(json.loads, bundle.golden.splitlines()):
        (found,) = engine.run([features(as_payload(one["request"]), bundle.manifest.spec).arrays])
        for name, values in one["outputs"].items():
            off = max(off, max_difference(found.fusion[name], np.array(values, dtype=np.float32)))
    return off
