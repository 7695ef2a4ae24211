"""Decides which tasks get a card: above their operating point, grouped, few, and not repeated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.manifest import Manifest, ServedTask
from service.interop.cds_hooks.models import Indicator
from service.interop.cds_hooks.operating_points import OperatingPoint
from service.interop.cds_hooks.urgency import INDICATORS, highest, urgency

MAX_MEMBERS = 16  # tasks of one group
_CHANGE = 0.05  # of a probability, which shows a card again


@dataclass(frozen=True)
class TaskGroup:
    """Tasks that share a card: a task, and then its subsets, such as sepsis and septic shock.

    `number`: among all groups of the bundle.
    """

    number: int
    tasks: tuple[ServedTask, ...]


@dataclass(frozen=True)
class Finding:
    """A task above its operating point. `prediction`: of an answer (`schemas.response`)."""

    served: ServedTask
    prediction: Mapping[str, Any]
    point: OperatingPoint

    @property
    def name(self) -> str:
        return self.served.task.name

    @property
    def probability(self) -> float:
        return float(self.prediction["probability"])

    @property
    def excess(self) -> float:
        """How many times the threshold the probability is."""
        return self.probability / max(self.point.threshold, 1e-6)


@dataclass(frozen=True)
class CardContent:
    """The findings of one group, the highest probability first."""

    group: TaskGroup
    findings: tuple[Finding, ...]

    @property
    def indicator(self) -> Indicator:
        return highest([urgency(f.name, f.probability) for f in self.findings])

    @property
    def state(self) -> dict[str, float]:
        """The probabilities by task, which decide whether a card has changed."""
        return {f.name: round(f.probability, 4) for f in self.findings}

    def rank(self) -> tuple[int, float, int]:
        """The key that orders cards: the most urgent last, then the highest excess last."""
        excess = max(f.excess for f in self.findings)
        return INDICATORS.index(self.indicator), excess, -self.group.number


@dataclass(frozen=True)
class Judgement:
    """What an answer means for cards.

    `contents`: of all groups with a finding, the most urgent first. `predicted`: number of tasks
    that were compared with their operating point. `abstained`: reasons by task.
    """

    contents: tuple[CardContent, ...]
    predicted: int
    abstained: Mapping[str, str]


def task_groups(manifest: Manifest) -> tuple[TaskGroup, ...]:
    """The groups of the binary tasks in the manifest's order; at most MAX_MEMBERS in each."""
    by_name = {t.task.name: t for t in manifest.tasks if t.task.kind == "binary"}
    members: dict[str, list[str]] = {}
    for name, served in by_name.items():
        root = _root(served, by_name)
        group = members.setdefault(root, [root])
        if name != root:
            group.append(name)
    parts = [
        tuple(by_name[name] for name in names[i : i + MAX_MEMBERS])
        for names in members.values()
        for i in range(0, len(names), MAX_MEMBERS)
    ]
    return tuple(TaskGroup(number, tasks) for number, tasks in enumerate(parts))


def _root(served: ServedTask, by_name: Mapping[str, ServedTask]) -> str:
    """The task of which a task is a subset, over several steps."""
    steps = {served.task.name: None}
    while (parent := served.task.subset_of) in by_name and parent not in steps:
        assert parent is not None
        served = by_name[parent]
        steps[parent] = None
    return served.task.name


def judge(
    predictions: Sequence[Mapping[str, Any]],
    groups: Sequence[TaskGroup],
    points: Mapping[str, OperatingPoint],
) -> Judgement:
    """Compares the predictions of an answer with the operating points."""
    by_task = {prediction["task"]: prediction for prediction in predictions}
    predicted, abstained, contents = 0, {}, []
    for group in groups:
        findings = []
        for served in group.tasks:
            name = served.task.name
            if "abstained" in by_task[name]:
                abstained[name] = str(by_task[name]["abstained"]["reason"])
            elif name in points:
                predicted += 1
                finding = Finding(served, by_task[name], points[name])
                if finding.probability >= points[name].threshold:
                    findings.append(finding)
        if findings:
            ordered = sorted(findings, key=lambda f: f.probability, reverse=True)
            contents.append(CardContent(group, tuple(ordered)))
    contents.sort(key=CardContent.rank, reverse=True)
    return Judgement(tuple(contents), predicted, abstained)


def has_changed(shown: Mapping[str, float] | None, content: CardContent) -> bool:
    """Whether a card differs from the one that was shown: its tasks, or a probability by 0.05."""
    if shown is None or shown.keys() != content.state.keys():
        return True
    return any(
        abs(shown[name] - probability) >= _CHANGE for name, probability in content.state.items()
    )
