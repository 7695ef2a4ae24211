"""Pairs of patients that differ in one finding, and how the tasks must differ.

The network is trained on top of the evidence of findings, and could take its direction back. In
each batch some patients get a change of a variable, a tabular value or a treatment. The network is
penalised where a task moves less than the least effect of the finding (`model.knowledge`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.knowledge.effects import expected_effects
from model.knowledge.evidence import LEAST_SHARE
from model.knowledge.findings import LARGEST, Finding
from model.network.m3h import Member
from model.training.data import RepresentedSamples, SampleTensors
from schemas.features import STATISTICS, TREATMENT_FEATURES, FeatureSpec
from schemas.response import MODALITIES, Modality
from schemas.tasks import Task

MAX_PATIENTS = 64  # of a batch
HOURS_SINCE_START = 6.0  # of the added treatment
# All but the times and counts, "spread" and "change"; "hours_since_last" is no value.
_VALUES = [
    STATISTICS.index(f"{window}{n}")
    for window in ("", "recent_")
    for n in ("last", "mean", "minimum", "maximum")
    if f"{window}{n}" in STATISTICS
]
_NO_VARIATION = [STATISTICS.index(n) for n in ("spread", "change")]
_HOURS_SINCE_LAST, _LOG_COUNT = (STATISTICS.index(n) for n in ("hours_since_last", "log_count"))
_GIVEN, _RUNNING, _HOURS, _RATE = range(len(TREATMENT_FEATURES))
_HEIGHT_M = 1.7  # of a patient whose height is unknown

# Index, finding (None: a treatment), normal value and least effect of a change.
_Stated = tuple[int, Finding | None, float, Tensor]


@dataclass(frozen=True)
class _Changes:
    """The C changes of one modality: from normal to severe values, and starts of treatments.

    `index` [C]: of the variable, column or treatment. `is_treatment` [C]. `normal` [C]: a normal
    value. `start` [C]: the severity of the normal value, which is not 0 if a column has a finding
    that begins below the limits of its other findings. `limits` [C, 2]: the finding's normal and
    severe value. `log` [C]. `effect` [C, L]: the least change of the log-odds of each binary task
    at a severity of 1.
    """

    index: Tensor
    is_treatment: Tensor
    normal: Tensor
    start: Tensor
    limits: Tensor
    log: Tensor
    effect: Tensor

    @classmethod
    def of(cls, changes: Sequence[_Stated], tasks: int) -> Self:
        findings = [finding for _, finding, _, _ in changes]
        limits = [(0.0, 1.0) if f is None else (f.normal, f.severe) for f in findings]
        return cls(
            index=torch.tensor([index for index, *_ in changes], dtype=torch.int64),
            is_treatment=torch.tensor([f is None for f in findings], dtype=torch.bool),
            normal=torch.tensor([normal for _, _, normal, _ in changes]),
            start=torch.tensor([_severity(f, normal) for _, f, normal, _ in changes]),
            limits=torch.tensor(limits).reshape(-1, 2),
            log=torch.tensor([f is not None and f.log for f in findings], dtype=torch.bool),
            effect=torch.stack([torch.zeros(tasks), *(effect for *_, effect in changes)])[1:],
        )

    def values(self, chosen: Tensor, severity: Tensor) -> Tensor:
        """[n] the values of the changes `chosen` [n] with this severity [n]."""
        normal, severe = self.limits[chosen].T
        plain = normal + (severe - normal) * severity
        # The limits of a logarithm are positive; the others are not read.
        ratio = torch.where(self.log[chosen], severe / normal, torch.ones_like(normal))
        return torch.where(self.log[chosen], normal * ratio**severity, plain)


@dataclass(frozen=True)
class _Version:
    """Patients: their representations by modality (`RepresentedSamples.select`), present [n, 4]."""

    represented: Mapping[Modality, Tensor]
    present: Tensor


@dataclass(frozen=True)
class _Pairs:
    """The same patients with normal and with changed values. `least` [n, L]: the least effects."""

    normal: _Version
    changed: _Version
    least: Tensor


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
        self._encoders, self._data, self._represented = encoders, data, represented
        self._columns = spec.tabular_names
        binary = [task.name for task in tasks if task.kind == "binary"]
        series: list[_Stated] = []
        tabular: list[_Stated] = []
        for name, finding in findings.items():
            effect, normal = _least_effect(binary, name), _normal(finding, findings)
            if finding.variable is not None:
                series.append((spec.variable_index[finding.variable], finding, normal, effect))
            elif finding.column is not None:
                tabular.append((self._columns.index(finding.column), finding, normal, effect))
        for i, treatment in enumerate(spec.treatments if findings else ()):
            series.append((i, None, 0.0, _least_effect(binary, treatment.name)))
        by_modality: dict[Modality, list[_Stated]] = {"tabular": tabular, "series": series}
        self._changes = {
            modality: _Changes.of(stated, len(binary))
            for modality, changes in by_modality.items()
            if (stated := [change for change in changes if change[-1].any()])
        }

    def penalty(
        self, member: Member, rows: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The mean shortfall of the tasks' changes, in log-odds, summed over modalities.

        `rows` [n], `present` [n, 4]: a batch. A change is drawn for each of its first patients.
        """
        pairs = []
        for modality, changes in self._changes.items():
            has = present[:, MODALITIES.index(modality)].nonzero().squeeze(1)[:MAX_PATIENTS]
            if len(has):
                chosen = torch.randint(len(changes.index), (len(has),), generator=generator)
                severity = LARGEST * torch.rand(len(has), generator=generator)
                severity = torch.where(changes.is_treatment[chosen], 1.0, severity)
                pairs.append(self._pairs(modality, rows[has], present[has], chosen, severity))
        if not pairs:
            return torch.zeros((), device=self._represented.device.torch_device)
        log_odds = _log_odds(member, [v for p in pairs for v in (p.normal, p.changed)])
        shortfalls = []
        for pair, normal, changed in zip(pairs, log_odds[::2], log_odds[1::2], strict=True):
            moved = (changed - normal) * pair.least.sign()
            shortfalls.append(F.relu(pair.least.abs() - moved).mean())
        return torch.stack(shortfalls).sum()

    def _pairs(
        self, modality: Modality, rows: Tensor, present: Tensor, chosen: Tensor, severity: Tensor
    ) -> "_Pairs":
        """The patients `rows` with a normal value of the change `chosen`, and with the change."""
        changes = self._changes[modality]
        represented = self._represented.select(rows, present)
        device = represented[modality].device
        # All patients with normal values, and then all with changed ones.
        inputs = {
            name: torch.cat([x, x]) for name, x in self._data.inputs(modality, rows.numpy()).items()
        }
        change = self._change_columns if modality == "tabular" else _change_series
        values = torch.cat([changes.normal[chosen], changes.values(chosen, severity)])
        change(inputs, changes, chosen.repeat(2), values)
        with torch.no_grad():
            vectors = self._encoders[modality].represent(**inputs).to(device)
        normal, changed = (
            _Version({**represented, modality: half}, present.to(device))
            for half in vectors.chunk(2)
        )
        rise = severity - changes.start[chosen]
        return _Pairs(normal, changed, (changes.effect[chosen] * rise.unsqueeze(1)).to(device))

    def _change_columns(
        self, inputs: dict[str, Tensor], changes: _Changes, chosen: Tensor, values: Tensor
    ) -> None:
        """Sets tabular values; with the body mass index the weight, with a category its field."""
        table = inputs["values"]
        for number, index in enumerate(changes.index.tolist()):
            name, mine = self._columns[index], chosen == number
            field, is_category, _ = name.partition("=")
            if is_category:
                same_field = [c.startswith(f"{field}=") for c in self._columns]
                table[mine.unsqueeze(1) & torch.tensor(same_field)] = 0.0
            table[mine, index] = values[mine]
            if name == "body_mass_index":
                height = table[mine, self._columns.index("height_cm")] / 100
                height = torch.where(torch.isnan(height), _HEIGHT_M, height)
                table[mine, self._columns.index("weight_kg")] = values[mine] * height**2


def _log_odds(member: Member, versions: Sequence[_Version]) -> Sequence[Tensor]:
    """The raw log-odds [n, L] of each version's patients, from one pass of the member."""
    represented = {
        m: torch.cat([v.represented[m] for v in versions if m in v.represented])
        for m in MODALITIES
        if any(m in v.represented for v in versions)
    }
    raw, _ = member(represented, torch.cat([v.present for v in versions]))
    log_odds: Sequence[Tensor] = raw["binary"].split([len(v.present) for v in versions])
    return log_odds


def _change_series(
    inputs: dict[str, Tensor], changes: _Changes, chosen: Tensor, values: Tensor
) -> None:
    """Sets the statistics of variables, and starts or removes treatments (value 1 or 0)."""
    treated = changes.is_treatment[chosen]
    rows, index = treated.nonzero().squeeze(1), changes.index[chosen]
    given = values[rows]
    treatments = inputs["treatments"]
    treatments[rows, index[rows], _GIVEN] = given
    treatments[rows, index[rows], _RUNNING] = given
    hours = torch.where(given > 0, HOURS_SINCE_START, torch.nan)
    treatments[rows, index[rows], _HOURS] = hours
    treatments[rows, index[rows], _RATE] = torch.nan
    rows = (~treated).nonzero().squeeze(1)
    statistics = inputs["statistics"]
    row = statistics[rows, index[rows]]
    unmeasured = torch.isnan(row[:, _HOURS_SINCE_LAST])
    row[:, _VALUES] = values[rows].unsqueeze(1)
    row[:, _NO_VARIATION] = 0.0
    row[unmeasured, _HOURS_SINCE_LAST] = 1.0
    row[unmeasured, _LOG_COUNT] = 1.0
    statistics[rows, index[rows]] = row


def _severity(finding: Finding | None, value: float) -> float:
    """The severity of a value, at least 0; 0 for a treatment."""
    if finding is None:
        return 0.0
    ends = finding.normal, finding.severe, value
    normal, severe, x = (math.log(end) for end in ends) if finding.log else ends
    return max(0.0, (x - normal) / (severe - normal))


def _least_effect(tasks: list[str], finding: str) -> Tensor:
    """[L] the least effect of a finding on each task."""
    effects = np.array([expected_effects(task, [finding])[0] for task in tasks], np.float32)
    return torch.from_numpy(LEAST_SHARE * effects)


def _normal(finding: Finding, findings: Mapping[str, Finding]) -> float:
    """A normal value of the finding's source: between the limits of its findings."""
    source = (finding.variable, finding.column)
    limits = [f.normal for f in findings.values() if (f.variable, f.column) == source]
    return sum(limits) / len(limits)
