"""What other graphs of the same model lose, by patients that it never learned from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from model.cohorts.samples import Samples
from model.cohorts.store import Cohort
from model.errors import UserError
from schemas.manifest import Change, HeldOut, Manifest, TaskFacts
from schemas.response import MODALITIES
from service.runtime.bundle import ATTENTION, UNUSUAL, Bundle
from service.runtime.engine import Engine

Floats = npt.NDArray[np.float64]

# By metric, what a task may lose. Of another seed a network's AUROC differs by ten times as much;
# half an hour is a hundredth of the error of a length of stay.
LIMITS = {"auroc": 0.002, "mae_days": 0.02, "agreement": 0.02}
# How far a probability may move, and `unusual`: a ranking does not tell whether intervals and sets,
# which were made of the old probabilities, still hold. Above .2 intervals are .09 wide (median).
MOST_MOVED = 0.02
FEWEST = 20  # samples of each kind; of fewer, a change says more of chance
CHUNK = 64


class ReductionError(UserError):
    """A bundle or cohort that cannot be used, or what would be lost: every loss is named."""


def held_out(manifest: Manifest, cohorts: Sequence[Cohort]) -> tuple[Samples, tuple[HeldOut, ...]]:
    """Their samples, with outcomes [n, tasks of the manifest]; NaN where a task sees nothing.

    Raises ReductionError for a cohort that was not made for the bundle, or that it learned from.
    """
    learned = {c.name.partition(",")[0] for c in manifest.cohorts}
    digests = {c.digest for c in manifest.cohorts}
    parts = []
    for cohort in cohorts:
        if cohort.spec != manifest.spec:
            raise ReductionError(
                f"the cohort {cohort.name} was made with other variables, units or tokens than the "
                "bundle's; make it again with the version that made the bundle"
            )
        # By name, too: made again by newer code, the same patients have another digest.
        if cohort.digest in digests or cohort.name.partition(",")[0] in learned:
            raise ReductionError(
                f"the bundle learned from the cohort {cohort.name}: take patients that it never saw"
            )
        columns = {task.name: i for i, task in enumerate(cohort.tasks)}
        if missing := {f.task.name for f in manifest.tasks} - set(columns):
            names = ", ".join(sorted(missing))
            raise ReductionError(f"the cohort {cohort.name} has no outcome for {names}")
        order = [columns[f.task.name] for f in manifest.tasks]
        sees = [[m in f.seen for m in MODALITIES] for f in manifest.tasks]
        seen = (cohort.samples.present[:, None] & np.array(sees)).any(axis=2)
        outcomes = np.where(seen, cohort.samples.outcomes[:, order], np.nan)
        parts.append(replace(cohort.samples, outcomes=outcomes))
    facts = (
        HeldOut(
            cohort=c.name,
            patients=len(np.unique(c.samples.patient)),
            samples=len(c.samples),
            source=c.source,
            digest=c.digest,
        )
        for c in cohorts
    )
    return Samples.concatenate(parts), tuple(facts)


def judged(
    manifest: Manifest,
    samples: Samples,
    limits: Mapping[str, float],
    before: dict[str, Floats],
    after: dict[str, Floats],
) -> tuple[dict[str, Change], float, list[str]]:
    """Of each task its metric, before and after; how far a probability moves; what is too much."""
    moved = {name: _farthest(values, after[name]) for name, values in before.items()}
    if lost := [name for name, far in moved.items() if not np.isfinite(far)]:
        return {}, np.inf, [f"{name} is no number" for name in lost]
    changes = {}
    for i, facts in enumerate(manifest.tasks):
        both = before[facts.output], after[facts.output]
        if facts.abstains is None and (change := _change(facts, samples.outcomes[:, i], *both)):
            changes[facts.task.name] = change
    too_much = [
        f"{name} {change.loss:.4f} of {change.metric}, more than {limits[change.metric]:g}"
        for name, change in changes.items()
        if change.judged and round(change.loss, 9) > limits[change.metric]
    ]
    days = {f.output for f in manifest.tasks if f.task.kind == "regression"}
    shares = {name: far for name, far in moved.items() if name not in days}
    too_much += [
        f"{name} moves by {far:.4f}, more than {MOST_MOVED:g}"
        for name, far in shares.items()
        if far > MOST_MOVED
    ]
    return changes, max(far for name, far in shares.items() if name != UNUSUAL), too_much


def _farthest(before: Floats, after: Floats) -> float:
    there = ~np.isnan(before)
    return float(np.abs(after[there] - before[there]).max(initial=0.0))


def said(bundle: Bundle, samples: Samples) -> dict[str, Floats]:
    """Each output of all samples, [n, …], and `unusual` [n, 4], NaN where a modality is absent."""
    engine = Engine(bundle)
    found = [
        one
        for some in np.array_split(np.arange(len(samples)), -(-len(samples) // CHUNK))
        for one in engine.run([samples.arrays(row) for row in some])
    ]
    names = found[0].fusion.keys() - {ATTENTION}
    outputs = {name: np.stack([one.fusion[name] for one in found]) for name in names}
    outputs[UNUSUAL] = np.array([[o.unusual.get(m, np.nan) for m in MODALITIES] for o in found])
    return {name: values.astype(np.float64) for name, values in outputs.items()}


def _change(
    facts: TaskFacts, outcome: npt.NDArray[np.float32], before: Floats, after: Floats
) -> Change | None:
    """What `m3h-model evaluate` measures of a task; None where nobody's outcome tells.

    Phenotypes have no outcome: of them, how many patients stay in theirs.
    """
    known, both, kind = ~np.isnan(outcome), (before, after), facts.task.kind
    y = outcome[known]
    if kind == "clustering":
        same = before.argmax(axis=1) == after.argmax(axis=1)
        metric, values, fewest = "agreement", [1.0, same.mean()], len(same)
    elif kind == "regression":
        values = [np.abs(y - days[known, 0]).mean() for days in both] if len(y) else []
        metric, fewest = "mae_days", len(y)
    else:
        classes = [1] if facts.column is not None else range(len(facts.task.classes))
        fewer = {k: min((y == k).sum(), (y != k).sum()) for k in classes}
        # As the report has it: of several classes those that are frequent enough.
        told = [k for k in classes if fewer[k] >= FEWEST] or [k for k in classes if fewer[k]]
        column = {k: k if facts.column is None else facts.column for k in told}
        areas = [[roc_auc_score(y == k, p[known, column[k]]) for k in told] for p in both]
        metric, values = "auroc", [np.mean(of_all) for of_all in areas if of_all]
        fewest = min((fewer[k] for k in told), default=0)
    if not values:
        return None
    return Change(
        metric=metric,
        before=float(values[0]),
        after=float(values[1]),
        samples=len(y) or len(before),
        judged=bool(fewest >= FEWEST),
    )
