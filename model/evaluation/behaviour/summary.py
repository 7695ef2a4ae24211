"""The summary of verdicts: by expectation and task, and over all."""

import math
from collections.abc import Sequence
from typing import Any

from model.evaluation.behaviour.judgement import Verdict
from schemas.evaluation import Behaviour, BehaviourRow

NINE_OF_TEN = 0.9  # share of the patients in whom a reliable expectation holds
ALL_TASKS = "(all)"
DECIMALS = 4


def summarize(verdicts: Sequence[Verdict]) -> Behaviour:
    """The summary, with the rows in ascending order of their share. `verdicts`: at least one.

    Each expectation and task has a row; an expectation that all tasks stay still has one row.
    """
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        expectation = verdict.expectation
        task = ALL_TASKS if expectation.still else verdict.task
        groups.setdefault((expectation.id, task), []).append(verdict)
    rows = sorted(
        (_row(name, task, group) for (name, task), group in groups.items()),
        key=lambda row: (row.share, row.expectation, row.task),
    )
    shares = [_share(group) for group in groups.values()]
    return Behaviour(
        expectations=len(rows),
        patients=len({verdict.patient for verdict in verdicts}),
        concordance=round(_share(verdicts), DECIMALS),
        reliable=round(sum(share >= NINE_OF_TEN for share in shares) / len(shares), DECIMALS),
        rows=rows,
    )


def _row(name: str, task: str, group: Sequence[Verdict]) -> BehaviourRow:
    mean = sum(verdict.change for verdict in group) / len(group)
    return BehaviourRow(
        expectation=name,
        task=task,
        share=round(_share(group), DECIMALS),
        mean_change=None if math.isnan(mean) else round(mean, DECIMALS),
    )


def _share(verdicts: Sequence[Verdict]) -> float:
    return sum(verdict.holds for verdict in verdicts) / len(verdicts)


def shortened(behaviour: Behaviour, rows: int) -> dict[str, Any]:
    """The figures for a manifest: with the worst rows, and none that always holds."""
    worst = [row for row in behaviour.rows if row.share < 1][:rows]
    return behaviour.model_copy(update={"rows": worst}).model_dump(mode="json")


def table(behaviour: Behaviour, rows: int) -> str:
    """The worst rows and the two figures, as text."""
    lines = [
        f"{row.share:6.0%}  {row.expectation:42} {row.task:28} mean change "
        f"{'unknown' if row.mean_change is None else f'{row.mean_change:+.2f}'}"
        for row in behaviour.rows[:rows]
    ]
    lines.append(
        f"concordance {behaviour.concordance:.3f}; {behaviour.reliable:.3f} of "
        f"{behaviour.expectations} expectations hold in nine of ten patients "
        f"({behaviour.patients} patients)"
    )
    return "\n".join(lines)
