"""The evidence and the trees of each task and member, fitted when they are first needed."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from model.network.checkpoint import Facts
from model.training.data import RepresentedSamples, Rows, SampleTensors
from model.training.per_task.evidence import EvidenceFitter, TaskEvidence
from model.training.per_task.trees import Columns, TaskTrees, TreeFitter
from schemas.response import MODALITIES, Modality


class PerTaskFits:
    """The fits of each task alone. All networks that learn from the same samples share them.

    `offset` [N, T]; `learn`: the rows that each member learns from. They are the same for networks
    of other tasks or with another attention.
    """

    def __init__(
        self,
        facts: Facts,
        encoders: Any,
        represented: RepresentedSamples,
        data: SampleTensors,
        offset: Tensor,
        learn: Sequence[Rows],
    ) -> None:
        self._facts, self._encoders, self._represented = facts, encoders, represented
        self._data, self._offset, self._learn = data, offset, learn
        self._evidence_fitters: dict[int, EvidenceFitter] = {}
        self._tree_fitters: dict[int, TreeFitter] = {}
        self._evidence: dict[tuple[int, int], TaskEvidence | None] = {}
        self._trees: dict[tuple[int, int], dict[Modality, TaskTrees]] = {}

    def evidence(self, member: int, column: int) -> TaskEvidence | None:
        """The evidence of the task in `column`, fitted to the samples that a member learns from."""
        if (member, column) not in self._evidence:
            if member not in self._evidence_fitters:
                self._evidence_fitters[member] = EvidenceFitter(
                    self._encoders, self._represented, self._data.present, self._learn[member]
                )
            self._evidence[member, column] = self._evidence_fitters[member].fit(
                self._facts.tasks[column],
                self._data.outcomes[:, column],
                self._offset[:, column],
                self._data.weight,
            )
        return self._evidence[member, column]

    def trees(self, member: int, column: int) -> dict[Modality, TaskTrees]:
        """The trees of the task in `column` by modality, fitted as the evidence is."""
        if (member, column) not in self._trees:
            if member not in self._tree_fitters:
                self._tree_fitters[member] = self._tree_fitter(member)
            self._trees[member, column] = self._tree_fitters[member].fit(
                self._facts.tasks[column], self._data.outcomes[:, column], self._offset[:, column]
            )
        return self._trees[member, column]

    def _tree_fitter(self, member: int) -> TreeFitter:
        findings = {m: getattr(self._encoders[m].represent, "findings", None) for m in MODALITIES}
        names = {m: () if own is None else own.names for m, own in findings.items()}
        return TreeFitter(
            self._encoders,
            self._represented,
            self._data.present,
            self._learn[member],
            {m: self._facts.net.tree_count(m) for m in MODALITIES},
            Columns(self._facts.findings, names, self._facts.spec),
        )
