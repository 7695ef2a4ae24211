"""Writes the recalibrated bundle."""

import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from export.behaviour import BehaviourGate
from export.finalize import finalize
from export.outputs import run_samples
from export.recalibrate.errors import RecalibrationError
from export.recalibrate.graph import BOUND, PRIOR, read_initializer, shift_head, shift_prior
from export.recalibrate.manifest import shift_facts
from export.recalibrate.shifts import (
    BinaryShifts,
    fit_binary_shifts,
    fit_class_shifts,
    fit_interval_margins,
    labels,
    patient_weights,
    shift_classes,
)
from model.calibration.calibrate import conformal_sets
from model.cohorts.store import Cohort
from schemas.manifest import ConformalSets, Manifest, Recalibration
from schemas.payload import Payload, as_payload
from service.runtime.bundle import NOTICE, YES_NO, Bundle

Outputs = dict[str, npt.NDArray[np.float64]]


@dataclass
class _Corrections:
    """The corrections by task: class shifts, outward shifts of interval ends, local sets."""

    classes: dict[str, dict[str, float]] = field(default_factory=dict)
    ends: dict[str, tuple[float, float]] = field(default_factory=dict)
    sets: dict[str, ConformalSets] = field(default_factory=dict)


def recalibrate(
    bundle: Path,
    cohort: Path,
    folder: Path,
    *,
    version: str | None = None,
    gate: BehaviourGate | None = None,
) -> tuple[str, Recalibration]:
    """Writes the recalibrated bundle to `folder`; returns its digest and the shifts.

    The default version is the old one with `+recalibrated`. Raises RecalibrationError if the cohort
    has another feature spec or no labels, or if the bundle cannot be recalibrated; BehaviourError
    if the new bundle does not pass the gate; BundleError or CohortError if a file was changed.
    """
    old, local = Bundle.load(bundle), Cohort.load(cohort)
    manifest = old.manifest
    _check(manifest, local)
    graph = onnx.load(bundle / manifest.fusion.file)
    outputs, weight = run_samples(old, local.samples), patient_weights(local.samples)
    prior, bound = (read_initializer(graph, n).astype(np.float64) for n in (PRIOR, BOUND))
    binary = fit_binary_shifts(manifest, local, outputs["binary"], weight, prior, bound)
    shift_prior(graph, binary, manifest)
    corrections = _correct_tasks(manifest, local, outputs, weight, binary, graph)
    recalibration = Recalibration(
        cohort=local.name,
        patients=len(np.unique(local.samples.patient)),
        source=local.source,
        digest=local.digest,
        bundle=old.digest,
        shift=dict(zip(binary.names, binary.shift.tolist(), strict=True)),
        classes=corrections.classes,
        ends=corrections.ends,
    )
    classes, sets = corrections.classes, corrections.sets
    new_manifest = manifest.model_copy(
        update={
            "name": folder.resolve().name,
            "version": version or f"{manifest.version}+recalibrated",
            "created": datetime.now(UTC).date().isoformat(),
            "tasks": tuple(
                shift_facts(f, binary, classes.get(f.task.name), sets.get(f.task.name))
                for f in manifest.tasks
            ),
            "recalibration": recalibration,
        }
    )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(bundle, partial)
    onnx.save(graph, partial / manifest.fusion.file)
    with (partial / NOTICE).open("a", encoding="utf-8") as notice:
        patients = f"{recalibration.patients} patients of {local.name}"
        notice.write(f"\nRecalibrated by {patients}: {local.source}\n")
    return finalize(partial, new_manifest, _golden_requests(old), folder, gate), recalibration


def _correct_tasks(
    manifest: Manifest,
    local: Cohort,
    outputs: Outputs,
    weight: npt.NDArray[np.float64],
    binary: BinaryShifts,
    graph: onnx.ModelProto,
) -> _Corrections:
    """Fits the corrections of each task to the local patients; edits the heads of the graph."""
    corrections = _Corrections()
    p = binary.apply(outputs["binary"])
    for facts in manifest.tasks:
        task, outcome = facts.task, labels(local, facts)
        known = ~np.isnan(outcome)
        if facts.abstains is not None or not known.any():
            continue
        output, y, w = outputs[facts.output][known], outcome[known], weight[known]
        if task.kind == "binary":
            yes = p[known, facts.column]
            both = np.stack([1 - yes, yes], axis=1)
            corrections.sets[task.name] = conformal_sets(both, y, w, YES_NO)
        elif task.kind == "multiclass":
            shifts = fit_class_shifts(facts, output, y, w, binary)
            shift_head(graph, task.name, np.array(list(shifts.values())))
            shifted = shift_classes(facts, output, shifts, binary, p[known])
            corrections.classes[task.name] = shifts
            corrections.sets[task.name] = conformal_sets(shifted, y, w, task.classes)
        elif task.kind == "regression":
            margins = fit_interval_margins(output, y, w)
            if margins is not None:
                corrections.ends[task.name] = margins
                shift_head(graph, task.name, np.array([0.0, -margins[0], margins[1]]))
    return corrections


def _golden_requests(bundle: Bundle) -> dict[str, Payload]:
    lines = map(json.loads, bundle.golden.splitlines())
    return {line["name"]: as_payload(line["request"]) for line in lines}


def _check(manifest: Manifest, cohort: Cohort) -> None:
    if cohort.spec != manifest.spec:
        raise RecalibrationError(
            "the cohort was made with other variables, units or tokens than the bundle's; "
            "make it again with 'm3h-model cohort --like BUNDLE'"
        )
    missing = {f.task.name for f in manifest.tasks} - {task.name for task in cohort.tasks}
    if missing:
        raise RecalibrationError(f"the cohort has no outcome for {', '.join(sorted(missing))}")
    if cohort.digest in {learned.digest for learned in manifest.cohorts}:
        raise RecalibrationError(
            f"the bundle learned from the cohort {cohort.name}: use patients that it never saw"
        )
    if manifest.recalibration is not None:
        raise RecalibrationError(
            f"the bundle is already recalibrated for {manifest.recalibration.cohort}; use the "
            "bundle it was made from"
        )
    if manifest.reduction is not None:
        raise RecalibrationError(
            f"the bundle is {manifest.reduction.precision}, and its accuracy was measured as it "
            "is; recalibrate the bundle it was made from, then reduce the precision"
        )
