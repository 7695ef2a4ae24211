"""Networks of many coalitions trained at once: stacked parameters, one pass over the patients.

A single network of this size cannot use a GPU fully. Here C of them train together (`torch.func`).
Each is a network of all tasks, in which only its own tasks are active. All have the same order of
patients, hidden modalities and dropout as if they were trained one after the other
(`model.training.member_run.MemberRun`), and the same results except for rounding.
The penalty on wrong directions (`model.training.directions`) is left out.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from model.training.data import CHUNK, RepresentedSamples
from model.training.member_run import MemberRun
from model.training.preparation import PreparedTraining
from model.training.task_network import TaskNetwork
from schemas.response import Modality

MAX_NETWORKS = 64  # limits the memory
Weights = dict[str, Tensor]


class BatchedTraining:
    """C networks with the same seed. `active` [C, T]: the tasks of each."""

    def __init__(self, prepared: PreparedTraining, seed: int, active: Tensor) -> None:
        names = [task.name for task in prepared.facts.tasks]
        self.network = TaskNetwork(prepared, tasks=names)
        self.template = MemberRun(self.network, seed)
        self.prepared, self.config = prepared, prepared.config
        self.active = active.to(prepared.device.torch_device)
        count = len(active)
        self.learning = {
            name: p.detach().expand(count, *p.shape).clone()
            for name, p in self.template.learning.named_parameters()
        }
        self.buffers = dict(self.template.learning.named_buffers())
        self.mean = {name: value.clone() for name, value in self.learning.items()}
        self.best = {name: value.clone() for name, value in self.learning.items()}
        # The parameter groups of `MemberRun`; here each tensor has one more axis.
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.learning.values() if p.ndim > 2]},
            {"params": [p for p in self.learning.values() if p.ndim <= 2], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(
            groups, lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        self._gradients = vmap(
            grad_and_value(self._loss), in_dims=(0, 0, None, None, None), randomness="same"
        )
        self._losses = vmap(self._loss, in_dims=(0, 0, None, None, None))

    def run(self) -> None:
        """Trains each until `patience` epochs bring no improvement; sets `best` to its weights."""
        count = len(self.active)
        least = torch.full((count,), math.inf, device=self.active.device)
        best_epoch = torch.zeros(count, dtype=torch.int64, device=self.active.device)
        for epoch in range(1, self.config.epochs + 1):
            running = epoch - 1 - best_epoch < self.config.patience
            if not running.any():
                break
            self._train_epoch(epoch)
            loss = self._validate()
            better = running & (loss < least)
            least = torch.where(better, loss, least)
            best_epoch = torch.where(better, epoch, best_epoch)
            for name, value in self.mean.items():
                self.best[name][better] = value[better]

    def _train_epoch(self, epoch: int) -> None:
        for rows, present in self.template.batches(epoch):
            represented = self.prepared.represented.select(rows, present)
            gradients, _ = self._gradients(self.learning, self.active, rows, represented, present)
            self._step(gradients)

    @torch.no_grad()
    def _step(self, gradients: Weights) -> None:
        """One step of the optimiser, after clipping the gradient norm of each network."""
        count = len(self.active)
        squares = [g.reshape(count, -1).square().sum(1) for g in gradients.values()]
        norm = torch.stack(squares).sum(0).sqrt()
        shrink = (1.0 / (norm + 1e-6)).clamp_max(1.0)
        for name, weights in self.learning.items():
            gradient = gradients[name]
            weights.grad = gradient * shrink.view(-1, *[1] * (gradient.ndim - 1))
        self.optimiser.step()
        for name, latest in self.learning.items():
            self.mean[name].lerp_(latest, 1 - self.config.averaging)

    @torch.no_grad()
    def _validate(self) -> Tensor:
        """[C] each network's loss on the held-out samples, with all modalities."""
        self.template.learning.eval()
        stop = torch.from_numpy(self.template.stop)
        total = torch.zeros(len(self.active), device=self.active.device)
        for rows in stop.split(CHUNK):
            present = self.prepared.data.present[rows]
            represented = self.prepared.represented.select(rows, present)
            loss = self._losses(self.mean, self.active, rows, represented, present)
            total += loss * (len(rows) / len(stop))
        return total

    def _loss(
        self,
        weights: Weights,
        active: Tensor,
        rows: Tensor,
        represented: Mapping[Modality, Tensor],
        present: Tensor,
    ) -> Tensor:
        with self.prepared.device.autocast():
            raw, _ = self._call(weights, active, represented, present)
        raw = {name: value.float() for name, value in raw.items()}
        losses = self.network.losses_of(raw, rows, active)
        return torch.stack([self.config.loss_weights[k] * v for k, v in losses.items()]).sum()

    def _call(
        self,
        weights: Weights,
        active: Tensor,
        represented: Mapping[Modality, Tensor],
        present: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        inputs = (represented, present.to(self.active.device), active)
        outputs: tuple[dict[str, Tensor], Tensor] = functional_call(
            self.template.learning, {**weights, **self.buffers}, inputs
        )
        return outputs

    @torch.no_grad()
    def outputs(
        self, represented: RepresentedSamples, present: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Raw outputs [C, n, …] and mean attention [C, T, T] of all patients."""
        self.template.learning.eval()
        call = vmap(self._call, in_dims=(0, 0, None, None))
        rows = torch.arange(len(present))
        raw, attention = call(self.best, self.active, represented.select(rows, present), present)
        return {name: value.cpu() for name, value in raw.items()}, attention.mean(1).cpu()
