"""Pairs of patients that differ in one finding, and how the tasks must differ.

The network is trained on top of the evidence of findings, and could take its direction back. For
each batch one measured variable or treatment is changed in some patients, and the network is
penalised where a task moves less than the least effect of the finding (`model.knowledge`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from model.knowledge.effects import expected_effects
from model.knowledge.evidence import LEAST_SHARE
from model.knowledge.findings import LARGEST, Finding
from model.network.m3h import Member
from model.training.data import RepresentedSamples, SampleTensors
from schemas.features import STATISTICS, TREATMENT_FEATURES, FeatureSpec
from schemas.response import MODALITIES
from schemas.tasks import Task

MAX_PATIENTS = 64  # of a batch
HOURS_SINCE_START = 6.0  # of the added treatment
_VALUES = [STATISTICS.index(n) for n in STATISTICS if n.endswith(("last", "mean", "imum"))]
_NO_VARIATION = [STATISTICS.index(n) for n in ("spread", "change")]
_HOURS_SINCE_LAST, _LOG_COUNT = (STATISTICS.index(n) for n in ("hours_since_last", "log_count"))
_GIVEN, _RUNNING, _HOURS, _RATE = range(len(TREATMENT_FEATURES))


@dataclass(frozen=True)
class _Change:
    """A change of a variable from `normal` to `severe`, or the start of a treatment.

    `effect` [L]: the least change of the log-odds of each binary task at a severity of 1.
    """

    index: int
    finding: Finding | None
    normal: float
    effect: Tensor


class Directions:
    """The changes that a spec allows, for the binary tasks of a network."""

    def __init__(
        self,
        tasks: list[Task],
        spec: FeatureSpec,
        findings: Mapping[str, Finding],
        encoders: Any,
        data: SampleTensors,
        represented: RepresentedSamples,
    ) -> None:
        self._represent = encoders["series"].represent
        self._data, self._represented = data, represented
        binary = [task.name for task in tasks if task.kind == "binary"]
        treatments = [treatment.name for treatment in spec.treatments] if findings else []
        variables = {name: f for name, f in findings.items() if f.variable is not None}
        names = [*variables, *treatments]
        effects = torch.tensor([expected_effects(task, names) for task in binary])
        effects = effects.reshape(len(binary), len(names)).float() * LEAST_SHARE
        index = {variable.name: i for i, variable in enumerate(spec.variables)}
        changes = [
            _Change(index[f.variable or ""], f, _normal(f, variables), effects[:, k])
            for k, f in enumerate(variables.values())
        ] + [_Change(i, None, 0.0, effects[:, len(variables) + i]) for i in range(len(treatments))]
        self._changes = [change for change in changes if change.effect.any()]

    def penalty(
        self, member: Member, rows: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The mean shortfall of the tasks' changes, in log-odds, for one change drawn at random.

        `rows` [n], `present` [n, 4]: a batch. 0 if none of its patients has series.
        """
        series = MODALITIES.index("series")
        with_series = present[:, series].nonzero().squeeze(1)[:MAX_PATIENTS]
        if not self._changes or not len(with_series):
            return torch.zeros(())
        rows, present = rows[with_series], present[with_series]
        draw = int(torch.randint(len(self._changes), (), generator=generator))
        change = self._changes[draw]
        severity = LARGEST * float(torch.rand((), generator=generator))
        inputs = self._data.inputs("series", rows.numpy())
        represented = self._represented.select(rows, present)
        device = represented["series"].device
        log_odds = []
        for share in (0.0, severity):
            changed = _change(change, inputs, share)
            with torch.no_grad():
                vectors = self._represent(**changed).to(device)
            raw, _ = member({**represented, "series": vectors}, present.to(device))
            log_odds.append(raw["binary"])
        scale = severity if change.finding is not None else 1.0
        least = (change.effect * scale).to(device)
        moved = (log_odds[1] - log_odds[0]) * least.sign()
        return F.relu(least.abs() - moved).mean()


def _normal(finding: Finding, findings: Mapping[str, Finding]) -> float:
    """A normal value of the finding's variable: between the limits of its findings."""
    limits = [f.normal for f in findings.values() if f.variable == finding.variable]
    if len(limits) > 1:
        return sum(limits) / len(limits)
    return finding.normal - (finding.severe - finding.normal) * (0.0 if finding.log else 0.1)


def _change(change: _Change, inputs: Mapping[str, Tensor], severity: float) -> dict[str, Tensor]:
    """The inputs with the variable at this severity (0: normal), or with the treatment (not 0)."""
    statistics, treatments = inputs["statistics"].clone(), inputs["treatments"].clone()
    finding = change.finding
    if finding is None:
        row = treatments[:, change.index]
        row[:, [_GIVEN, _RUNNING]] = float(severity > 0)
        row[:, _HOURS] = HOURS_SINCE_START if severity > 0 else torch.nan
        row[:, _RATE] = torch.nan
        return {"statistics": statistics, "treatments": treatments}
    value = change.normal
    if severity > 0 and finding.log:
        value = finding.normal * (finding.severe / finding.normal) ** severity
    elif severity > 0:
        value = finding.normal + (finding.severe - finding.normal) * severity
    row = statistics[:, change.index]
    unmeasured = torch.isnan(row[:, _HOURS_SINCE_LAST])
    row[:, _VALUES] = value
    row[:, _NO_VARIATION] = 0.0
    row[unmeasured, _HOURS_SINCE_LAST] = 1.0
    row[unmeasured, _LOG_COUNT] = 1.0
    return {"statistics": statistics, "treatments": treatments}
