"""Verdicts: whether expectations hold for each base patient."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from model.evaluation.behaviour.expectations import STILL, TOLERANCE, Expectation
from model.evaluation.behaviour.pairs import make_pair
from schemas.payload import Payload

BATCH = 64  # requests that a predictor gets at once
_SMALLEST = 1e-6  # probabilities are clipped, so that log-odds are finite

Probabilities = Mapping[str, float]
# Probabilities by task for each payload, in order. A task without an answer is left out.
Predictor = Callable[[Sequence[Payload]], Sequence[Probabilities]]


@dataclass(frozen=True)
class Verdict:
    """Whether an expectation holds for one task and one patient.

    `change`: of the log-odds; NaN if the model has no answer for the task.
    """

    expectation: Expectation
    task: str
    patient: str
    holds: bool
    change: float


def log_odds(probability: float) -> float:
    """The natural logarithm of the odds."""
    p = min(max(probability, _SMALLEST), 1 - _SMALLEST)
    return math.log(p / (1 - p))


def judge_pair(
    expectation: Expectation, before: Probabilities, after: Probabilities
) -> Iterator[tuple[str, bool, float]]:
    """Task, whether the expectation holds, and the change of the log-odds.

    For each task that the expectation names; with `still` for each task of the model.
    """
    moved = {t: log_odds(after[t]) - log_odds(before[t]) for t in before if t in after}
    for task, least in expectation.up.items():
        yield task, moved.get(task, -math.inf) >= least, moved.get(task, math.nan)
    for task in expectation.not_down:
        yield task, moved.get(task, -math.inf) >= -TOLERANCE, moved.get(task, math.nan)
    for task in expectation.not_up:
        yield task, moved.get(task, math.inf) <= TOLERANCE, moved.get(task, math.nan)
    if expectation.still:
        for task, change in moved.items():
            yield task, abs(change) <= STILL, change


def judge(
    predictor: Predictor,
    expectations: Sequence[Expectation],
    patients: Mapping[str, Payload],
) -> list[Verdict]:
    """The verdicts of all expectations on all patients, asked in batches.

    Tasks that the model does not answer are left out: a bundle may have other tasks.
    """
    answered = _answered_tasks(predictor, patients)
    asked = [e for e in (e.restrict(answered) for e in expectations) if e is not None]
    cases = [(e, name, payload) for e in asked for name, payload in patients.items()]
    verdicts = []
    for first in range(0, len(cases), BATCH // 2):
        batch = cases[first : first + BATCH // 2]
        pairs = [make_pair(payload, expectation) for expectation, _, payload in batch]
        answers = predictor([p for pair in pairs for p in (pair.before, pair.after)])
        for (expectation, name, _), before, after in zip(
            batch, answers[::2], answers[1::2], strict=True
        ):
            verdicts += [
                Verdict(expectation, task, name, holds, change)
                for task, holds, change in judge_pair(expectation, before, after)
            ]
    return verdicts


def _answered_tasks(predictor: Predictor, patients: Mapping[str, Payload]) -> set[str]:
    (answers,) = predictor([next(iter(patients.values()))])
    return set(answers)
