"""The explanation of an answer: attention between tasks, modalities, and parts of the request."""

import math
from collections.abc import Container, Sequence
from functools import cache
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from schemas.manifest import Manifest, ServedTask
from schemas.response import MODALITIES, Modality
from schemas.tasks import DIED, DISPOSITION, MORTALITY
from service.prediction.answer_fields import (
    AttentionMatrixFields,
    ContributionsFields,
    ExplanationFields,
    TaskAttentionFields,
    TaskVariablesFields,
)
from service.prediction.explanation.occlusion import Ablation
from service.runtime.bundle import ATTENTION
from service.runtime.engine import Outputs

Explain = Literal["none", "default", "full"]

ATTENDED_TASKS = 5  # listed for each task by explain=default
EXPLAINED_TASKS = 3  # whose variables explain=full lists
MAX_EVIDENCE = 5  # parts of the request that are listed for a task
MIN_CONTRIBUTION = 1e-4  # a part below it is not listed
DIGITS = 7  # decimals that single precision gives a probability


def explain_outputs(
    outputs: Outputs, manifest: Manifest, explain: Explain, abstaining: Container[str] = ()
) -> ExplanationFields | None:
    """Explains an answer by attention and by modality.

    `abstaining`: names of the tasks without a prediction. Returns None for `explain="none"`, and if
    the attention is not finite.
    """
    if explain == "none" or not np.isfinite(outputs.fusion[ATTENTION]).all():
        return None
    attention = _attention_matrix if explain == "full" else _largest_attention
    return {
        "attention": attention(outputs, manifest),
        "modalities": _modality_contributions(outputs, manifest, abstaining),
    }


# -------------------------------------------------------------------------------------- attention


def _attention_matrix(outputs: Outputs, manifest: Manifest) -> AttentionMatrixFields:
    return {
        "tasks": [task.task.name for task in manifest.tasks],
        "weights": outputs.fusion[ATTENTION].tolist(),
    }


def _largest_attention(outputs: Outputs, manifest: Manifest) -> list[TaskAttentionFields]:
    """For each task, its attention to itself and the largest of those to other tasks."""
    weights = outputs.fusion[ATTENTION]
    names = [task.task.name for task in manifest.tasks]
    to_others = weights.copy()
    np.fill_diagonal(to_others, -np.inf)
    count = min(ATTENDED_TASKS, len(names) - 1)
    largest = np.argsort(-to_others, axis=1, kind="stable")[:, :count]
    rows = zip(names, weights.tolist(), largest.tolist(), strict=True)
    return [
        {
            "task": name,
            "own": row[i],
            "drawn_from": [{"task": names[j], "weight": row[j]} for j in columns],
        }
        for i, (name, row, columns) in enumerate(rows)
    ]


# ------------------------------------------------------------------------------------- modalities


def _modality_contributions(
    outputs: Outputs, manifest: Manifest, abstaining: Container[str]
) -> dict[str, ContributionsFields | dict[str, ContributionsFields]]:
    """The contributions by task; for tasks with several classes, by task and class.

    Tasks that abstain and numbers that are not finite are left out.
    """
    present = tuple(outputs.unusual)
    by_task: dict[str, ContributionsFields | dict[str, ContributionsFields]] = {}
    # Tasks that share an output and its modalities share the computation.
    computed: dict[tuple[str, tuple[Modality, ...]], list[list[float]]] = {}
    for served in manifest.tasks:
        players = tuple(m for m in present if m in influencing_modalities(served, manifest))
        key = served.output, players
        if key not in computed:
            computed[key] = _shapley(outputs.coalitions[served.output], present, players)
        rows = computed[key]
        columns = range(len(rows)) if served.column is None else [served.column]
        if served.task.name in abstaining or not all(
            math.isfinite(value) for column in columns for value in rows[column]
        ):
            continue
        contributions = [_contributions(rows[column]) for column in columns]
        if served.column is None:
            classes = served.task.classes or map(str, columns)
            by_task[served.task.name] = dict(zip(classes, contributions, strict=True))
        else:
            (by_task[served.task.name],) = contributions
    return by_task


def _contributions(row: list[float]) -> ContributionsFields:
    baseline, tabular, series, notes, image = row
    return {
        "baseline": baseline,
        "tabular": tabular,
        "series": series,
        "notes": notes,
        "image": image,
    }


def _shapley(
    values: npt.NDArray[np.float32], present: tuple[Modality, ...], players: tuple[Modality, ...]
) -> list[list[float]]:
    """The baseline and the Shapley value of each modality, [columns, 5].

    `values` [coalitions, columns]: an output for each coalition of the present modalities. Only
    `players` take part in the game; the others get 0.
    """
    shapley = _shapley_weights(present, players) @ values.astype(np.float64)
    rows: list[list[float]] = (shapley.round(DIGITS) + 0.0).T.tolist()  # + 0.0: no -0
    return rows


@cache
def _shapley_weights(
    present: tuple[Modality, ...], players: tuple[Modality, ...]
) -> npt.NDArray[np.float64]:
    """The matrix [5, coalitions] that maps coalition values to Shapley values (Shapley 1953)."""

    def row(coalition: Sequence[Modality]) -> int:
        return sum(1 << present.index(modality) for modality in coalition)

    matrix = np.zeros((1 + len(MODALITIES), 1 << len(present)))
    matrix[0, 0] = 1.0
    for modality in players:
        others = [m for m in players if m != modality]
        weights = matrix[1 + MODALITIES.index(modality)]
        for size in range(len(players)):
            weight = 1 / (len(players) * math.comb(len(others), size))
            for coalition in combinations(others, size):
                weights[row((*coalition, modality))] += weight
                weights[row(coalition)] -= weight
    return matrix


def influencing_modalities(served: ServedTask, manifest: Manifest) -> frozenset[Modality]:
    """The modalities that can change a task's number.

    They are those that are visible to the task, and those that are visible to the tasks that its
    number must agree with.
    """
    agrees_with = {served.task.name, served.task.subset_of}
    if served.task.name == DISPOSITION and DIED in served.task.classes:
        agrees_with.add(MORTALITY)
    return frozenset(
        modality
        for other in manifest.tasks
        if other.task.name in agrees_with
        for modality in other.visible_modalities
    )


# ---------------------------------------------------------------------------- parts of the request


def most_deviating_tasks(
    outputs: Outputs, manifest: Manifest, abstaining: Container[str]
) -> list[ServedTask]:
    """The binary tasks with a prediction whose probabilities differ most from their prevalence."""
    deviations: list[tuple[float, ServedTask]] = []
    for served in manifest.tasks:
        if (
            served.task.kind == "binary"
            and served.prevalence is not None
            and served.task.name not in abstaining
        ):
            deviation = abs(_scalar_output(served, outputs) - served.prevalence)
            if math.isfinite(deviation):
                deviations.append((deviation, served))
    deviations.sort(key=lambda entry: -entry[0])
    return [served for _, served in deviations[:EXPLAINED_TASKS]]


def attribute_to_parts(
    tasks: Sequence[ServedTask],
    outputs: Outputs,
    ablations: Sequence[Ablation],
    ablated_outputs: Sequence[Outputs],
) -> list[TaskVariablesFields]:
    """For each task, the parts of the request with the largest contributions.

    A contribution is the task's number minus the number without the part.
    """
    by_task: list[TaskVariablesFields] = []
    for served in tasks:
        number = _scalar_output(served, outputs)
        contributions = [
            round(number - _scalar_output(served, ablated), DIGITS) + 0.0
            for ablated in ablated_outputs
        ]
        large = [i for i, value in enumerate(contributions) if abs(value) >= MIN_CONTRIBUTION]
        largest = sorted(large, key=lambda i: -abs(contributions[i]))[:MAX_EVIDENCE]
        by_task.append(
            {
                "task": served.task.name,
                "because": [
                    {**ablations[i].part, "contribution": contributions[i]} for i in largest
                ],
            }
        )
    return by_task


def has_scalar_output(served: ServedTask) -> bool:
    """Whether a task is answered with one number, of which contributions can be computed."""
    return served.column is not None and served.abstains is None


def _scalar_output(served: ServedTask, outputs: Outputs) -> float:
    return float(outputs.fusion[served.output][served.column])
