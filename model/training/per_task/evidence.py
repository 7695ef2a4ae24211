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
        """The evidence of one task; None without findings or without labels."""
        known = ~torch.isnan(outcome[self._learn]).numpy()
        if self._present:
            known &= np.logical_or.reduce([*self._present.values()])
        if not self._findings or not known.any():
            return None
        y = outcome[self._learn].double().numpy()[known]
        bias, fitted = fit_evidence(
            np.concatenate([f[known] for f in self._findings.values()], axis=1),
            np.concatenate([expected_effects(task.name, n) for n in self._names.values()]),
            y,
            offset[self._learn].double().numpy()[known],
            weight[self._learn][known],
        )
        weights, means, start = {}, {}, 0
        for modality, findings in self._findings.items():
            own = fitted[start : start + findings.shape[1]]
            start += findings.shape[1]
            # Silent notes are the same as no notes, so that their evidence is 0, not below a mean.
            present = self._present[modality] & known & (modality != "notes")
            means[modality] = float((findings[present] @ own).mean()) if present.any() else 0.0
            weights[modality] = torch.from_numpy(own).float()
            bias += means[modality]
        return TaskEvidence(weights, means, bias)


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
