"""A bundle for another hospital: the same model, its probabilities moved to the local prevalence.

Needs no torch: the graph's own initializers are edited. Only what a disease's probability starts
from is moved; what the model knows of a patient, and its ranking of patients, stay as they are.
"""

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from scipy.special import expit, logit

from export.golden import write_golden
from model.calibrate import prior_shift
from model.cohort import Cohort, Samples
from schemas.manifest import (
    GOLDEN,
    MANIFEST,
    Manifest,
    Recalibration,
    Sets,
    Steps,
    TaskFacts,
    sha256,
    write_manifest,
)
from schemas.payload import as_payload
from service.bundle import Bundle
from service.engine import Engine

Floats = npt.NDArray[np.float64]

PRIOR = "calibrate.prior"
MODEL_CARD = "MODEL_CARD.md"
# Nearer to 0 or 1 than this, a probability's log-odds are noise of single precision.
NEAREST = 1e-6
CHUNK = 64


class RecalibrationError(ValueError):
    """A cohort or a bundle that cannot be used, and why."""


def recalibrate(bundle: Path, cohort: Path, folder: Path, *, version: str) -> tuple[str, Floats]:
    """Writes the corrected bundle to `folder`; returns its digest and each binary task's shift.

    Raises RecalibrationError if the cohort was not made for this bundle, BundleError or CohortError
    if either was changed.
    """
    loaded, local = Bundle.load(bundle), Cohort.load(cohort)
    manifest = loaded.manifest
    binary = [f for f in manifest.tasks if f.task.kind == "binary"]
    _check(manifest, local, [f.task.name for f in binary])
    columns = [next(i for i, t in enumerate(local.tasks) if t.name == f.task.name) for f in binary]
    outcomes = local.samples.outcomes[:, columns].astype(np.float64)
    shifts = prior_shift(
        log_odds(Engine(loaded), local.samples), outcomes, each_patient(local.samples)
    )

    made = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(bundle, made)
    _edit(made / manifest.fusion.file, shifts)
    moved = {f.task.name: float(s) for f, s in zip(binary, shifts, strict=True)}
    patients = len(np.unique(local.samples.patient))
    said = Recalibration(
        cohort=local.name, patients=patients, source=local.source, digest=local.digest, shift=moved
    )
    with (made / MODEL_CARD).open("a", encoding="utf-8") as card:
        card.write(_card(said))
    new = manifest.model_copy(
        update={
            "name": folder.resolve().name,
            "version": version,
            "created": datetime.now(UTC).date().isoformat(),
            "tasks": tuple(shifted(f, moved.get(f.task.name, 0.0)) for f in manifest.tasks),
            "recalibration": said,
        }
    )
    requests = {}
    for line in loaded.golden.splitlines():
        golden = json.loads(line)
        requests[golden["name"]] = as_payload(golden["request"])

    def write() -> str:
        files = {p.name: sha256(p.read_bytes()) for p in sorted(made.iterdir())}
        files.pop(MANIFEST, None)
        return write_manifest(made, new.model_copy(update={"files": files}))

    (made / GOLDEN).unlink()
    write()
    write_golden(made, requests)
    digest = write()
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)
    return digest, shifts


def log_odds(engine: Engine, samples: Samples) -> Floats:
    """[n, T] of the binary tasks, as the bundle says them now."""
    found = []
    for some in np.array_split(np.arange(len(samples)), -(-len(samples) // CHUNK)):
        outputs = engine.run([samples.arrays(row) for row in some])
        found += [one.fusion["binary"] for one in outputs]
    p: Floats = np.stack(found).astype(np.float64)
    moved: Floats = logit(np.clip(p, NEAREST, 1 - NEAREST))
    return moved


def each_patient(samples: Samples) -> Floats:
    """[n] one for each patient, shared by the patient's samples."""
    _, code, count = np.unique(samples.patient, return_inverse=True, return_counts=True)
    weight: Floats = 1 / count[code]
    return weight


def shifted(facts: TaskFacts, shift: float) -> TaskFacts:
    """What is known of a task, its probabilities moved by `shift` in log-odds.

    A shift of the prevalence alone leaves the scores of those with the disease, and of those
    without it, as they were: intervals and sets keep what they promise when they move along.
    """
    if not shift:
        return facts
    update: dict[str, object] = {}
    if facts.prevalence is not None:
        update["prevalence"] = _move([facts.prevalence], shift)[0]
    if facts.interval is not None:
        steps = facts.interval
        update["interval"] = Steps(
            scores=_move(steps.scores, shift),
            low=_move(steps.low, shift),
            high=_move(steps.high, shift),
        )
    if facts.sets is not None and facts.sets.thresholds:
        (yes,) = _move([facts.sets.thresholds["yes"]], shift)
        (no,) = _move([facts.sets.thresholds["no"]], -shift)
        update["sets"] = Sets(thresholds={"no": no, "yes": yes})
    return facts.model_copy(update=update)


def _move(probabilities: Sequence[float], shift: float) -> tuple[float, ...]:
    """0 and 1 stay."""
    with np.errstate(divide="ignore"):
        return tuple(expit(logit(np.asarray(probabilities)) + shift).tolist())


def _check(manifest: Manifest, cohort: Cohort, names: list[str]) -> None:
    if cohort.spec != manifest.spec:
        raise RecalibrationError(
            "the cohort was made with other variables, units or tokens than the bundle's; "
            "make it again with the version that made the bundle"
        )
    missing = set(names) - {task.name for task in cohort.tasks}
    if missing:
        raise RecalibrationError(f"the cohort has no outcome for {', '.join(sorted(missing))}")
    if manifest.recalibration is not None:
        raise RecalibrationError(
            f"the bundle is one for {manifest.recalibration.cohort} already; take the one before it"
        )


def _edit(path: Path, shifts: Floats) -> None:
    model = onnx.load(path)
    priors = [tensor for tensor in model.graph.initializer if tensor.name == PRIOR]
    if len(priors) != 1:
        raise RecalibrationError(f"{path.name} has no initializer {PRIOR!r}")
    prior = onnx.numpy_helper.to_array(priors[0]) + shifts.astype(np.float32)
    priors[0].CopyFrom(onnx.numpy_helper.from_array(prior, PRIOR))
    onnx.save(model, path)


def _card(said: Recalibration) -> str:
    largest = sorted(said.shift.items(), key=lambda item: -abs(item[1]))[:10]
    rows = "".join(f"| {name} | {shift:+.2f} |\n" for name, shift in largest)
    return (
        f"\n## Corrected for local prevalence\n\nBy {said.patients} patients of {said.cohort} "
        f"({said.source}). The largest shifts, in log-odds:\n\n| task | shift |\n|---|---|\n{rows}"
    )
