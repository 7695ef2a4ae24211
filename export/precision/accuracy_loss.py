"""The accuracy that reduced graphs lose, on patients that the model never learned from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model.auroc import binary_auroc
from model.cohorts.samples import Samples
from model.cohorts.store import Cohort
from model.errors import UserError
from schemas.manifest import HeldOutPatients, Manifest, MetricChange, ServedTask
from schemas.response import MODALITIES
from service.runtime.bundle import UNUSUAL

Floats = npt.NDArray[np.float64]

# The loss that a task may have, by metric. The AUROC of a network changes ten times as much with
# another seed; half an hour is a hundredth of the error of a length of stay.
LOSS_LIMITS = {"auroc": 0.002, "mae_days": 0.02, "agreement": 0.02}
# The change that a probability, and `unusual`, may have. Intervals and sets were made from the old
# probabilities, and metrics of ranking do not show whether they still hold. Above a probability of
# .2, intervals have a median width of .09.
MAX_PROBABILITY_CHANGE = 0.02
MIN_SAMPLES = 20  # of each class; with fewer, chance dominates the change


class ReductionError(UserError):
    """A bundle or cohort cannot be used, or too much would be lost. The text names each loss."""


@dataclass(frozen=True)
class AccuracyLoss:
    """The change of each task's metric, the largest change of a probability, and the violations.

    `violations`: a text for each exceeded limit; empty if the outputs are accurate enough.
    """

    changes: dict[str, MetricChange]
    largest_difference: float
    violations: list[str]


def held_out_samples(
    manifest: Manifest, cohorts: Sequence[Cohort]
) -> tuple[Samples, tuple[HeldOutPatients, ...]]:
    """The samples of the cohorts, and their description for the manifest.

    Outcomes are [n, tasks of the manifest], NaN for a sample without any input of the task. Raises
    ReductionError for a cohort with another feature spec, or one that the bundle learned from.
    """
    parts = [_samples_for(manifest, cohort) for cohort in cohorts]
    descriptions = (
        HeldOutPatients(
            cohort=c.name,
            patients=len(np.unique(c.samples.patient)),
            samples=len(c.samples),
            source=c.source,
            digest=c.digest,
        )
        for c in cohorts
    )
    return Samples.concatenate(parts), tuple(descriptions)


def _samples_for(manifest: Manifest, cohort: Cohort) -> Samples:
    if cohort.spec != manifest.spec:
        raise ReductionError(
            f"the cohort {cohort.name} was made with other variables, units or tokens than the "
            "bundle's; make it again with 'm3h-model cohort --like BUNDLE'"
        )
    # Newer code gives a cohort of the same patients another digest, so names are compared, too.
    names = {c.name.partition(",")[0] for c in manifest.cohorts}
    digests = {c.digest for c in manifest.cohorts}
    if cohort.digest in digests or cohort.name.partition(",")[0] in names:
        raise ReductionError(
            f"the bundle learned from the cohort {cohort.name}: use patients that it never saw"
        )
    columns = {task.name: i for i, task in enumerate(cohort.tasks)}
    if missing := {f.task.name for f in manifest.tasks} - set(columns):
        raise ReductionError(
            f"the cohort {cohort.name} has no outcome for {', '.join(sorted(missing))}"
        )
    order = [columns[f.task.name] for f in manifest.tasks]
    visible = np.array([[m in f.visible_modalities for m in MODALITIES] for f in manifest.tasks])
    has_input = (cohort.samples.present[:, None] & visible).any(axis=2)
    outcomes = np.where(has_input, cohort.samples.outcomes[:, order], np.nan)
    return replace(cohort.samples, outcomes=outcomes)


def compare_outputs(
    manifest: Manifest,
    samples: Samples,
    limits: Mapping[str, float],
    before: dict[str, Floats],
    after: dict[str, Floats],
) -> AccuracyLoss:
    """The loss of accuracy between two sets of outputs (`run_samples`).

    `limits`: by metric, the loss that a task may have.
    """
    differences = {name: _max_difference(values, after[name]) for name, values in before.items()}
    if invalid := [name for name, d in differences.items() if not np.isfinite(d)]:
        return AccuracyLoss({}, np.inf, [f"{name} is not a number" for name in invalid])
    changes = {}
    for i, facts in enumerate(manifest.tasks):
        both = before[facts.output], after[facts.output]
        if facts.abstains is None and (change := _change(facts, samples.outcomes[:, i], *both)):
            changes[facts.task.name] = change
    violations = [
        f"{name} {change.loss:.4f} of {change.metric}, more than {limits[change.metric]:g}"
        for name, change in changes.items()
        if change.judged and round(change.loss, 9) > limits[change.metric]
    ]
    days = {f.output for f in manifest.tasks if f.task.kind == "regression"}
    probabilities = {name: d for name, d in differences.items() if name not in days}
    violations += [
        f"{name} changes by {difference:.4f}, more than {MAX_PROBABILITY_CHANGE:g}"
        for name, difference in probabilities.items()
        if difference > MAX_PROBABILITY_CHANGE
    ]
    largest = max(d for name, d in probabilities.items() if name != UNUSUAL)
    return AccuracyLoss(changes, largest, violations)


def _max_difference(before: Floats, after: Floats) -> float:
    present = ~np.isnan(before)
    return float(np.abs(after[present] - before[present]).max(initial=0.0))


def _change(
    facts: ServedTask, outcome: npt.NDArray[np.float32], before: Floats, after: Floats
) -> MetricChange | None:
    """The change of a task's metric, as `m3h-model evaluate` computes it; None without outcomes.

    A phenotype has no outcome: its metric is the share of patients who stay in their cluster.
    """
    known, kind = ~np.isnan(outcome), facts.task.kind
    y = outcome[known]
    if kind == "clustering":
        same = before.argmax(axis=1) == after.argmax(axis=1)
        metric, values, cases = "agreement", [1.0, same.mean()], len(same)
    elif kind == "regression":
        errors = [np.abs(y - days[known, 0]).mean() for days in (before, after)] if len(y) else []
        metric, values, cases = "mae_days", errors, len(y)
    else:
        metric = "auroc"
        values, cases = _aurocs(facts, y, (before[known], after[known]))
    if not values:
        return None
    return MetricChange(
        metric=metric,
        before=float(values[0]),
        after=float(values[1]),
        samples=len(y) or len(before),
        judged=bool(cases >= MIN_SAMPLES),
    )


def _aurocs(
    facts: ServedTask, y: npt.NDArray[np.float32], outputs: Iterable[Floats]
) -> tuple[list[np.floating], int]:
    """The AUROC for each output, and the size of the smallest class; [] if all have one class.

    The AUROC of several classes is the mean over the classes with enough cases, as in the report.
    """
    classes = [1] if facts.column is not None else range(len(facts.task.classes))
    cases = {k: min((y == k).sum(), (y != k).sum()) for k in classes}
    measured = [k for k in classes if cases[k] >= MIN_SAMPLES] or [k for k in classes if cases[k]]
    if not measured:
        return [], 0
    column = {k: k if facts.column is None else facts.column for k in measured}
    means = [np.mean([binary_auroc(y == k, p[:, column[k]]) for k in measured]) for p in outputs]
    return means, min(cases[k] for k in measured)
