"""A bundle for another hospital: the same model, corrected for what is charted there.

Needs no torch: the fusion graph itself is edited. What the model knows of a patient stays as it is,
and so does the order in which a task ranks patients. Moved are

- each disease's log-odds, and mortality's, by one number
  (`model.calibration.calibrate.prior_shift`);
  of whom nothing is known the local prevalence is answered;
- a choice of classes, by one number for each class; P(died) of the disposition is mortality's, so
  that it is the survivors' classes that are moved against each other;
- the ends of the interval of a length of stay, until nine in ten local patients are inside. The
  value stays: a shift of log-days that 50 MIMIC-IV patients asked for made it worse for the others.

Prevalences and Venn-Abers intervals move along in the manifest. Sets are made anew by the local
patients where each answer was that of twenty; else their thresholds move along, too, which keeps
their promise as far as prevalence is all that differs (on MIMIC-IV it is not).
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from scipy.special import expit, logit

from export.finalize import seal
from model.calibration.calibrate import class_shift, conformal_sets, local_margin, prior_shift
from model.cohorts.samples import Samples
from model.cohorts.store import Cohort
from model.errors import UserError
from schemas.manifest import Manifest, Recalibration, Sets, Steps, TaskFacts
from schemas.payload import as_payload
from schemas.response import MODALITIES
from schemas.tasks import DIED, DISPOSITION, MORTALITY
from service.runtime.bundle import ATTENTION, NOTICE, PRESENT, YES_NO, Bundle
from service.runtime.engine import Engine

Floats = npt.NDArray[np.float64]

# Initializers of the fusion graph, [T]: the log-odds of whom nothing is known, and the largest.
PRIOR, BOUND = "calibrate.prior", "calibrate.bound"
HEAD = "fusion.bias.{}"
# Nearer to 0 or 1 than this, a probability's log-odds are noise of single precision.
NEAREST = 1e-6
AT_THE_BOUND = 1e-3  # log-odds
SHORTEST = 1 / 24  # days, as in training
CHUNK = 64


class RecalibrationError(UserError):
    """A cohort or a bundle that cannot be used, and why."""


@dataclass(frozen=True)
class Binary:
    """The binary tasks, by their column [T], and how they are moved; all in log-odds.

    `prior`: of whom nothing is known at the new hospital; `shift`: of all others; `parent`: the
    column of the task that each is a subset of (or its own), which its answer never exceeds.
    """

    names: tuple[str, ...]
    prior: Floats
    shift: Floats
    bound: Floats
    parent: tuple[int, ...]

    def now(self, p: Floats) -> Floats:
        """[n, T] probabilities of patients of whom something is known, moved."""
        moved = np.clip(_log_odds(p) + self.shift, -self.bound, self.bound)
        found: Floats = expit(np.minimum(moved, moved[:, self.parent]))
        return found

    def least_and_most(self, column: int) -> tuple[float, float]:
        """By how much an answer may have been moved, as the task's own or as the parent's."""
        both = float(self.shift[column]), float(self.shift[self.parent[column]])
        return min(both), max(both)


def recalibrate(
    bundle: Path, cohort: Path, folder: Path, *, version: str | None = None
) -> tuple[str, Recalibration]:
    """Writes the corrected bundle to `folder`; returns its digest and what was moved.

    Without a version it is the old one's, and `+recalibrated`. Raises RecalibrationError if the
    cohort was not made for this bundle or has nothing to correct it by, BundleError or CohortError
    if either was changed.
    """
    loaded, local = Bundle.load(bundle), Cohort.load(cohort)
    manifest = loaded.manifest
    _check(manifest, local)
    graph = onnx.load(bundle / manifest.fusion.file)
    answers, weight = answered(Engine(loaded), local.samples), each_patient(local.samples)
    binary = _binary(manifest, local, answers["binary"], weight, graph)
    _move_prior(graph, binary, manifest)

    classes: dict[str, dict[str, float]] = {}
    ends: dict[str, tuple[float, float]] = {}
    sets: dict[str, Sets] = {}
    p = binary.now(answers["binary"])
    for facts in manifest.tasks:
        task, outcome = facts.task, _outcome(local, facts)
        known = ~np.isnan(outcome)
        if facts.abstains is not None or not known.any():
            continue
        given, y, w = answers[facts.output][known], outcome[known], weight[known]
        if task.kind == "binary":
            yes = p[known, facts.column]
            sets[task.name] = conformal_sets(np.stack([1 - yes, yes], axis=1), y, w, YES_NO)
        elif task.kind == "multiclass":
            classes[task.name] = _class_shifts(facts, given, y, w, binary)
            _move_head(graph, task.name, np.array(list(classes[task.name].values())))
            now = _classes_now(facts, given, classes[task.name], binary, p[known])
            sets[task.name] = conformal_sets(now, y, w, task.classes)
        elif task.kind == "regression" and (moved := _ends(given, y, w)) is not None:
            ends[task.name] = moved
            _move_head(graph, task.name, np.array([0.0, -moved[0], moved[1]]))

    said = Recalibration(
        cohort=local.name,
        patients=len(np.unique(local.samples.patient)),
        source=local.source,
        digest=local.digest,
        bundle=loaded.digest,
        shift=dict(zip(binary.names, binary.shift.tolist(), strict=True)),
        classes=classes,
        ends=ends,
    )
    new = manifest.model_copy(
        update={
            "name": folder.resolve().name,
            "version": version or f"{manifest.version}+recalibrated",
            "created": datetime.now(UTC).date().isoformat(),
            "tasks": tuple(
                moved_facts(f, binary, classes.get(f.task.name), sets.get(f.task.name))
                for f in manifest.tasks
            ),
            "recalibration": said,
        }
    )
    made = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(bundle, made)
    onnx.save(graph, made / manifest.fusion.file)
    with (made / NOTICE).open("a", encoding="utf-8") as notice:
        notice.write(f"\nCorrected by {said.patients} patients of {local.name}: {local.source}\n")
    golden = {}
    for line in loaded.golden.splitlines():
        one = json.loads(line)
        golden[one["name"]] = as_payload(one["request"])
    return seal(made, new, golden, folder), said


# ---- what is moved, and by how much --------------------------------------------------------------


def answered(engine: Engine, samples: Samples) -> dict[str, Floats]:
    """What the bundle says of each sample, [n, …] by output."""
    found: dict[str, list[npt.NDArray[np.float32]]] = {}
    for some in np.array_split(np.arange(len(samples)), -(-len(samples) // CHUNK)):
        for one in engine.run([samples.arrays(row) for row in some]):
            for name, values in one.fusion.items():
                if name != ATTENTION:
                    found.setdefault(name, []).append(values)
    return {name: np.stack(rows).astype(np.float64) for name, rows in found.items()}


def each_patient(samples: Samples) -> Floats:
    """[n] one for each patient, shared by the patient's samples."""
    _, code, count = np.unique(samples.patient, return_inverse=True, return_counts=True)
    weight: Floats = 1 / count[code]
    return weight


def _binary(
    manifest: Manifest, cohort: Cohort, p: Floats, weight: Floats, graph: onnx.ModelProto
) -> Binary:
    tasks = _binary_facts(manifest)
    outcomes = np.stack([_outcome(cohort, f) for f in tasks], axis=1)
    # A task that was never taught both sides of the question has nothing to move.
    outcomes[:, [f.abstains is not None for f in tasks]] = np.nan
    labelled = ~np.isnan(outcomes).all(axis=0)
    if not labelled.any():
        raise RecalibrationError(f"no patient of the cohort {cohort.name} has a label of a disease")
    usual = _log_odds(np.array([f.prevalence for f in tasks]))
    everybody = np.broadcast_to(usual, outcomes.shape)
    prior = _read(graph, PRIOR).astype(np.float64)
    prior[labelled] = (usual + prior_shift(everybody, outcomes, weight))[labelled]
    shift = prior_shift(_log_odds(p), outcomes, weight)
    names = tuple(f.task.name for f in tasks)
    parent = [f.task.subset_of if f.task.subset_of in names else f.task.name for f in tasks]
    above = tuple(map(names.index, parent))
    return Binary(
        names=names,
        prior=np.minimum(prior, prior[list(above)]),
        shift=shift,
        bound=_read(graph, BOUND).astype(np.float64),
        parent=above,
    )


def _class_shifts(
    facts: TaskFacts, p: Floats, outcome: Floats, weight: Floats, binary: Binary
) -> dict[str, float]:
    """Of each class, in log-odds against the others. 0 of "died": mortality's shift moves it."""
    died = _mortality_class(facts, binary)
    moved = [k for k, name in enumerate(facts.task.classes) if name != died]
    mine = np.isin(outcome, moved)
    shift = np.zeros(len(facts.task.classes))
    log_p = np.log(np.maximum(p[mine][:, moved], NEAREST))
    chosen = np.searchsorted(moved, outcome[mine]).astype(np.float64)
    shift[moved] = class_shift(log_p, chosen, weight[mine])
    return dict(zip(facts.task.classes, shift.tolist(), strict=True))


def _classes_now(
    facts: TaskFacts, p: Floats, shifts: dict[str, float], binary: Binary, moved: Floats
) -> Floats:
    """[n, K] probabilities of a choice of classes, moved; `moved` [n, T]: those of binary tasks."""
    raised: Floats = p * np.exp(list(shifts.values()))
    died = _mortality_class(facts, binary)
    if died is None:
        return raised / raised.sum(axis=1, keepdims=True)
    mortality, column = moved[:, binary.names.index(MORTALITY)], facts.task.classes.index(died)
    raised[:, column] = 0
    raised *= ((1 - mortality) / np.maximum(raised.sum(axis=1), NEAREST))[:, None]
    raised[:, column] = mortality
    return raised


def _ends(days: Floats, outcome: Floats, weight: Floats) -> tuple[float, float] | None:
    """By how much the ends of the interval are moved outwards, in log-days."""
    _, low, high = np.log(days).T
    truth = np.log(np.maximum(outcome, SHORTEST))
    below, above = local_margin(low - truth, weight), local_margin(truth - high, weight)
    return None if below is None or above is None else (below, above)


def _outcome(cohort: Cohort, facts: TaskFacts) -> Floats:
    """[n] NaN where it is not known, and where the task sees nothing of the patient."""
    column = next(i for i, task in enumerate(cohort.tasks) if task.name == facts.task.name)
    seen = cohort.samples.present[:, [m in facts.seen for m in MODALITIES]].any(axis=1)
    found: Floats = np.where(seen, cohort.samples.outcomes[:, column], np.nan)
    return found


def _binary_facts(manifest: Manifest) -> list[TaskFacts]:
    """In the order of their columns."""
    return sorted(
        (f for f in manifest.tasks if f.task.kind == "binary"), key=lambda f: f.column or 0
    )


def _mortality_class(facts: TaskFacts, binary: Binary) -> str | None:
    """The class whose probability is a binary task's."""
    coherent = facts.task.name == DISPOSITION and MORTALITY in binary.names
    return DIED if coherent and DIED in facts.task.classes else None


def _log_odds(p: Floats) -> Floats:
    found: Floats = logit(np.clip(p, NEAREST, 1 - NEAREST))
    return found


# ---- what the manifest says ----------------------------------------------------------------------


def moved_facts(
    facts: TaskFacts,
    binary: Binary,
    classes: dict[str, float] | None = None,
    local: Sets | None = None,
) -> TaskFacts:
    """What is known of a task, its probabilities moved; `local`: the sets of the local patients.

    A shift of the prevalence alone leaves the inputs of those with the disease, and of those
    without it, as they were: a set keeps what it promises if its thresholds are moved as far as any
    of its patients' probabilities may have been. Isotonic regression by patients who are weighted
    by the ratio of the prevalences is the old one moved in log-odds, block by block; so are the
    ends of a Venn-Abers interval.
    """
    update: dict[str, Any] = {}
    if facts.task.kind == "binary":
        i = binary.names.index(facts.task.name)
        if not any(binary.least_and_most(i)):
            return facts
        update["prevalence"] = float(expit(binary.prior[i]))
        if facts.interval is not None:
            shift = float(binary.shift[i])
            steps = {k: _move(getattr(facts.interval, k), shift) for k in Steps.model_fields}
            update["interval"] = Steps(**steps)
    if local is not None and local.thresholds:
        update["sets"] = local
    elif facts.sets is not None and facts.sets.thresholds:
        if facts.task.kind == "binary":
            least, most = binary.least_and_most(i)
            old, bound = facts.sets.thresholds, float(binary.bound[i])
            yes, no = _threshold(old["yes"], least, bound), _threshold(old["no"], -most, bound)
            update["sets"] = Sets(thresholds={"no": no, "yes": yes})
        elif classes is not None:
            update["sets"] = _moved_sets(facts, facts.sets, binary, classes)
    return facts.model_copy(update=update)


def _moved_sets(facts: TaskFacts, sets: Sets, binary: Binary, shifts: dict[str, float]) -> Sets:
    died = _mortality_class(facts, binary)
    i = 0 if died is None else binary.names.index(MORTALITY)
    mortality = None if died is None else float(binary.shift[i])
    thresholds = {}
    for name, threshold in sets.thresholds.items():
        if name == died:
            thresholds[name] = _threshold(threshold, binary.shift[i], binary.bound[i])
        else:
            others = [by for other, by in shifts.items() if other not in (name, died)]
            gap = max(others, default=-np.inf) - shifts[name]
            thresholds[name] = _least(threshold, gap, mortality)
    return Sets(thresholds=thresholds)


def _least(p: float, gap: float, died: float | None) -> float:
    """The least that a class's probability p can have become.

    `gap`: by how much more the log-odds of another class were moved, at most; `died`: by how much
    those of death. How much of 1 - p was death's is not known: whatever it was, from none to all.
    """
    alive = np.linspace(p, 1.0, 1001) if died is not None else np.ones(1)
    share = np.minimum(p / np.maximum(alive, NEAREST), 1.0)
    among = share / (share + (1 - share) * np.exp(gap))
    now = alive / (alive + (1 - alive) * np.exp(died or 0.0))
    return float((now * among).min())


def _threshold(p: float, shift: float, bound: float) -> float:
    """A threshold, moved. Beyond the bound no probability goes; at the lower one nobody is out."""
    z = float(logit(p))
    if z <= -bound + AT_THE_BOUND:
        return 0.0
    return float(expit(min(z + shift, bound - AT_THE_BOUND)))


def _move(probabilities: Sequence[float], shift: float) -> tuple[float, ...]:
    """0 and 1 stay."""
    with np.errstate(divide="ignore"):
        return tuple(expit(logit(np.asarray(probabilities)) + shift).tolist())


# ---- the graph -----------------------------------------------------------------------------------


def _move_prior(graph: onnx.ModelProto, binary: Binary, manifest: Manifest) -> None:
    """What a task sees of a patient is added to the old prior, shifted; to nothing at all, the new.

    The two differ where the model, of the local patients, errs to one side on the whole (as it does
    where a modality is never there).
    """
    start = _read(graph, PRIOR) + binary.shift
    sees = [[m in f.seen for f in _binary_facts(manifest)] for m in MODALITIES]
    for node in graph.graph.node:
        for k, name in enumerate(node.input):
            if name == PRIOR:
                node.input[k] = "recalibrate.prior"
    _replace(graph, PRIOR, binary.prior)
    for name, values in (("recalibrate.start", start), ("recalibrate.sees", sees)):
        tensor = onnx.numpy_helper.from_array(np.asarray(values, np.float32), name)
        graph.graph.initializer.append(tensor)
    float32, boolean = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
    nodes = [
        onnx.helper.make_node("Cast", [PRESENT], ["recalibrate.present"], to=float32),
        onnx.helper.make_node(
            "MatMul", ["recalibrate.present", "recalibrate.sees"], ["recalibrate.count"]
        ),
        onnx.helper.make_node("Cast", ["recalibrate.count"], ["recalibrate.known"], to=boolean),
        onnx.helper.make_node(
            "Where", ["recalibrate.known", "recalibrate.start", PRIOR], ["recalibrate.prior"]
        ),
    ]
    for node in reversed(nodes):
        graph.graph.node.insert(0, node)


def _move_head(graph: onnx.ModelProto, task: str, by: Floats) -> None:
    """Adds to what the head says of a task."""
    name = HEAD.format(task)
    _replace(graph, name, _read(graph, name) + by)


def _read(graph: onnx.ModelProto, name: str) -> npt.NDArray[np.float32]:
    for tensor in graph.graph.initializer:
        if tensor.name == name:
            found: npt.NDArray[np.float32] = onnx.numpy_helper.to_array(tensor)
            return found
    raise RecalibrationError(f"the fusion graph has no initializer {name!r}")


def _replace(graph: onnx.ModelProto, name: str, values: npt.NDArray[Any]) -> None:
    (tensor,) = (t for t in graph.graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))


# ---- checks --------------------------------------------------------------------


def _check(manifest: Manifest, cohort: Cohort) -> None:
    if cohort.spec != manifest.spec:
        raise RecalibrationError(
            "the cohort was made with other variables, units or tokens than the bundle's; "
            "make it again with the version that made the bundle"
        )
    missing = {f.task.name for f in manifest.tasks} - {task.name for task in cohort.tasks}
    if missing:
        raise RecalibrationError(f"the cohort has no outcome for {', '.join(sorted(missing))}")
    if cohort.digest in {learned.digest for learned in manifest.cohorts}:
        raise RecalibrationError(
            f"the bundle learned from the cohort {cohort.name}: take patients that it never saw"
        )
    if manifest.recalibration is not None:
        raise RecalibrationError(
            f"the bundle is one for {manifest.recalibration.cohort} already; take the one before it"
        )
    if manifest.reduction is not None:
        raise RecalibrationError(
            f"the bundle is {manifest.reduction.precision}, measured as it is: recalibrate the one "
            "before it, then reduce that"
        )
