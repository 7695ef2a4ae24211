"""Why: the tasks, the modalities and the parts of a request that an answer was drawn from.

As in `respond`, fields of `schemas.response` and not its objects.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from schemas.manifest import Manifest, TaskFacts
from schemas.response import MODALITIES, Modality
from schemas.tasks import DIED, DISPOSITION, MORTALITY
from service.prediction.occlusion import Part
from service.runtime.bundle import ATTENTION
from service.runtime.engine import Outputs

Explain = Literal["none", "default", "full"]
Fields = dict[str, Any]

DRAWN_FROM = 5  # the other tasks that the default explanation names
STAND_OUT = 3  # tasks whose parts the full explanation names
NAMED = 5  # parts of a request, for each of these
SMALLEST = 1e-4  # contribution that is named
DIGITS = 7  # what single precision tells of a probability


def explanation(outputs: Outputs, manifest: Manifest, explain: Explain) -> Fields | None:
    """The Explanation, but for its variables.

    None if it is not asked for, or if the attention is not finite.
    """
    if explain == "none" or not np.isfinite(outputs.fusion[ATTENTION]).all():
        return None
    return {
        "attention": _attention(outputs, manifest, whole=explain == "full"),
        "modalities": _modalities(outputs, manifest),
    }


# ------------------------------------------------------------------------------------ other tasks


def _attention(outputs: Outputs, manifest: Manifest, *, whole: bool) -> Fields | list[Fields]:
    """The matrix, or for each task its own weight and the largest of the others."""
    weights = outputs.fusion[ATTENTION]
    names = [facts.task.name for facts in manifest.tasks]
    rows = weights.tolist()
    if whole:
        return {"tasks": names, "weights": rows}
    others = weights.copy()
    np.fill_diagonal(others, -np.inf)
    largest = np.argsort(-others, axis=1, kind="stable")[:, : min(DRAWN_FROM, len(names) - 1)]
    return [
        {
            "task": name,
            "own": row[i],
            "drawn_from": [{"task": names[j], "weight": row[j]} for j in columns],
        }
        for i, (name, row, columns) in enumerate(zip(names, rows, largest.tolist(), strict=True))
    ]


# ------------------------------------------------------------------------------------- modalities


def _modalities(outputs: Outputs, manifest: Manifest) -> Fields:
    """By task its Contributions; of several classes, by class. Without tasks that abstain."""
    there = tuple(outputs.unusual)
    found: Fields = {}
    worths: dict[tuple[str, tuple[Modality, ...]], list[list[float]]] = {}
    for facts in manifest.tasks:
        seen = tuple(m for m in there if m in moved_by(facts, manifest))
        key = facts.output, seen
        if key not in worths:
            worths[key] = _shares(outputs.coalitions[facts.output], there, seen)
        rows = worths[key]
        columns = range(len(rows)) if facts.column is None else [facts.column]
        if facts.abstains is not None or not all(
            math.isfinite(n) for c in columns for n in rows[c]
        ):
            continue
        told = [dict(zip(("baseline", *MODALITIES), rows[c], strict=True)) for c in columns]
        if facts.column is None:
            classes = facts.task.classes or map(str, columns)
            found[facts.task.name] = dict(zip(classes, told, strict=True))
        else:
            (found[facts.task.name],) = told
    return found


def _shares(
    worth: npt.NDArray[np.float32], there: tuple[Modality, ...], seen: tuple[Modality, ...]
) -> list[list[float]]:
    """[columns, 5] from what each coalition of those that are there is worth [coalitions, columns].

    The baseline, and each modality's Shapley value in the game of those that are seen.
    """
    shares = (_weights(there, seen) @ worth.astype(np.float64)).round(DIGITS) + 0.0  # no -0
    rows: list[list[float]] = shares.T.tolist()
    return rows


@cache
def _weights(there: tuple[Modality, ...], seen: tuple[Modality, ...]) -> npt.NDArray[np.float64]:
    """[5, coalitions] what makes baseline and Shapley values (Shapley 1953) of the worths."""

    def row(coalition: Sequence[Modality]) -> int:
        return sum(1 << there.index(modality) for modality in coalition)

    found = np.zeros((1 + len(MODALITIES), 1 << len(there)))
    found[0, 0] = 1.0
    for modality in seen:
        others = [m for m in seen if m != modality]
        of = found[1 + MODALITIES.index(modality)]
        for size in range(len(seen)):
            weight = 1 / (len(seen) * math.comb(len(others), size))
            for coalition in combinations(others, size):
                of[row((*coalition, modality))] += weight
                of[row(coalition)] -= weight
    return found


def moved_by(facts: TaskFacts, manifest: Manifest) -> frozenset[Modality]:
    """The modalities that can move a task's number: those that it sees, and those that the task
    sees that its number is made to agree with.
    """
    agrees_with = {facts.task.name, facts.task.subset_of}
    if facts.task.name == DISPOSITION and DIED in facts.task.classes:
        agrees_with.add(MORTALITY)
    return frozenset(
        modality
        for other in manifest.tasks
        if other.task.name in agrees_with
        for modality in other.seen
    )


# ---------------------------------------------------------------------------- parts of the request


def standing_out(outputs: Outputs, manifest: Manifest) -> list[TaskFacts]:
    """The yes-or-no tasks whose probability is furthest from their prevalence."""
    apart: list[tuple[float, TaskFacts]] = []
    for facts in manifest.tasks:
        if facts.task.kind == "binary" and facts.prevalence is not None and facts.abstains is None:
            away = abs(_number(facts, outputs) - facts.prevalence)
            if math.isfinite(away):
                apart.append((away, facts))
    apart.sort(key=lambda one: -one[0])
    return [facts for _, facts in apart[:STAND_OUT]]


def variables(
    tasks: Sequence[TaskFacts],
    outputs: Outputs,
    without: Sequence[Outputs],
    parts: Sequence[Part],
) -> list[Fields]:
    """Of each task its TaskVariables. `without`: the outputs without each of the parts."""
    found = []
    for facts in tasks:
        number = _number(facts, outputs)
        lost = [round(number - _number(facts, one), DIGITS) + 0.0 for one in without]
        named = [i for i, one in enumerate(lost) if abs(one) >= SMALLEST]
        largest = sorted(named, key=lambda i: -abs(lost[i]))[:NAMED]
        because = [parts[i].fields | {"contribution": lost[i]} for i in largest]
        found.append({"task": facts.task.name, "because": because})
    return found


def has_one_number(facts: TaskFacts) -> bool:
    return facts.column is not None and facts.abstains is None


def _number(facts: TaskFacts, outputs: Outputs) -> float:
    return float(outputs.fusion[facts.output][facts.column])
