"""The evidence of findings, fitted to the patients that a member learns from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.knowledge.effects import expected_effects
from model.knowledge.evidence import fit_evidence
from model.network.m3h import Member
from model.training.data import RepresentedSamples, Rows
from schemas.response import Modality
from schemas.tasks import Task


@dataclass(frozen=True)
class TaskEvidence:
    """The weights of the findings for one task, by modality, and the mean of their log-odds.

    `means`: 0 for notes. `bias`: the log-odds of a patient with mean evidence of every modality,
    and without notes.
    """

    weights: dict[Modality, Tensor]
    means: dict[Modality, float]
    bias: float


class EvidenceFitter:
    """Fits the evidence of tasks to the samples `learn`.

    `encoders`: of a network with these findings. `outcomes`, `offset` [N, T], `weight` [N].
    """

    def __init__(
        self,
        encoders: Any,
        represented: RepresentedSamples,
        present: Tensor,
        learn: Rows,
    ) -> None:
        self._learn = learn
        self._present: dict[Modality, np.ndarray] = {}
        self._findings: dict[Modality, np.ndarray] = {}
        self._names: dict[Modality, tuple[str, ...]] = {}
        for modality in represented.vectors:
            findings = getattr(encoders[modality].represent, "findings", None)
            if findings is None or not findings.names:
                continue
            has, vectors = represented.of_modality(modality, learn, present)
            values = np.zeros((len(learn), len(findings.names)))
            start = encoders[modality].width
            values[has] = vectors[:, start : start + len(findings.names)].numpy()
            self._present[modality] = has
            self._findings[modality] = values
            self._names[modality] = findings.names

    def fit(self, task: Task, outcome: Tensor, offset: Tensor, weight: Any) -> TaskEvidence | None:
        """The evidence of one task; None without findings or without labels.

        The weights of notes are fitted last, on top of the others. Fitted together, notes that name
        a disease would explain away what the measurements tell about patients without notes.
        """
        known = ~torch.isnan(outcome[self._learn]).numpy()
        y = outcome[self._learn].double().numpy()
        log_odds = offset[self._learn].double().numpy()
        weights: dict[Modality, Tensor] = {}
        means: dict[Modality, float] = {}
        bias = 0.0
        measured = [modality for modality in self._findings if modality != "notes"]
        for stage in (measured, [m for m in self._findings if m == "notes"]):
            rows = known & np.any([self._present[m] for m in stage] or [~known], axis=0)
            if not rows.any():
                continue
            intercept, fitted = fit_evidence(
                np.concatenate([self._findings[m][rows] for m in stage], axis=1),
                np.concatenate([expected_effects(task.name, self._names[m]) for m in stage]),
                y[rows],
                log_odds[rows],
                weight[self._learn][rows],
                # Silent notes are the same as no notes: they add nothing.
                has_intercept=not weights,
            )
            bias += intercept
            log_odds = log_odds + intercept
            for modality in stage:
                own, fitted = np.split(fitted, [len(self._names[modality])])
                added = self._findings[modality] @ own
                log_odds = log_odds + added
                present = self._present[modality] & known
                centred = modality != "notes" and present.any()
                means[modality] = float(added[present].mean()) if centred else 0.0
                weights[modality] = torch.from_numpy(own).float()
        return TaskEvidence(weights, means, bias + sum(means.values())) if weights else None


@torch.no_grad()
def set_evidence(member: Member, column: int, evidence: TaskEvidence) -> None:
    """Sets the evidence of the binary task in `column`, and starts its head at the bias."""
    adapters: Any = member.adapters
    for modality, weights in evidence.weights.items():
        # Half precision, as in a bundle.
        adapters[modality].evidence.weight[column] = weights.half().float()
        adapters[modality].evidence.mean[column] = evidence.means[modality]
    heads: Any = member.fusion.heads
    heads.bias[column] = evidence.bias
