"""Networks of many coalitions trained at once: parameters stacked, one pass over the patients.

One such network is too small to fill a GPU. Here C of them learn side by side (`torch.func`), each
the network of all tasks, in which only its own tasks take part. Order of patients, hidden
modalities and dropout are the same for all, as they are for one network after the other
(`model.training.train.MemberRun`), whose results these are but for rounding.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from model.training.data import CHUNK, Represented
from model.training.prepare import Prepared
from model.training.train import MemberRun, Trainer
from schemas.response import Modality

AT_ONCE = 64  # networks: what bounds the memory
Weights = dict[str, Tensor]


class Stacked:
    """C networks with the same seed. `taking` [C, T]: the tasks of each."""

    def __init__(self, prepared: Prepared, seed: int, taking: Tensor) -> None:
        names = [task.name for task in prepared.facts.tasks]
        self.trainer = Trainer(prepared, tasks=names)
        self.one = MemberRun(self.trainer, seed)
        self.prepared, self.config = prepared, prepared.config
        self.taking = taking.to(prepared.device.where)
        count = len(taking)
        self.learning = {
            name: p.detach().expand(count, *p.shape).clone()
            for name, p in self.one.learning.named_parameters()
        }
        self.buffers = dict(self.one.learning.named_buffers())
        self.mean = {name: value.clone() for name, value in self.learning.items()}
        self.best = {name: value.clone() for name, value in self.learning.items()}
        # As a network of its own has them: without the axis of the networks.
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.learning.values() if p.ndim > 2]},
            {"params": [p for p in self.learning.values() if p.ndim <= 2], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(
            groups, lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        self._learn = vmap(
            grad_and_value(self._loss), in_dims=(0, 0, None, None, None), randomness="same"
        )
        self._judge = vmap(self._loss, in_dims=(0, 0, None, None, None))

    def run(self) -> None:
        """Each until `patience` epochs bring nothing; `best` has its weights."""
        count = len(self.taking)
        least = torch.full((count,), math.inf, device=self.taking.device)
        best_epoch = torch.zeros(count, dtype=torch.int64, device=self.taking.device)
        for epoch in range(1, self.config.epochs + 1):
            going = epoch - 1 - best_epoch < self.config.patience
            if not going.any():
                break
            self._one_epoch(epoch)
            loss = self._validate()
            better = going & (loss < least)
            least = torch.where(better, loss, least)
            best_epoch = torch.where(better, epoch, best_epoch)
            for name, value in self.mean.items():
                self.best[name][better] = value[better]

    def _one_epoch(self, epoch: int) -> None:
        for rows, present in self.one.batches(epoch):
            represented = self.prepared.represented.at(rows, present)
            gradients, _ = self._learn(self.learning, self.taking, rows, represented, present)
            self._step(gradients)

    @torch.no_grad()
    def _step(self, gradients: Weights) -> None:
        count = len(self.taking)
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
        """[C] loss of each where the member holds out, with everything that is there."""
        self.one.learning.eval()
        stop = torch.from_numpy(self.one.stop)
        total = torch.zeros(len(self.taking), device=self.taking.device)
        for rows in stop.split(CHUNK):
            present = self.prepared.data.present[rows]
            represented = self.prepared.represented.at(rows, present)
            loss = self._judge(self.mean, self.taking, rows, represented, present)
            total += loss * (len(rows) / len(stop))
        return total

    def _loss(
        self,
        weights: Weights,
        taking: Tensor,
        rows: Tensor,
        represented: Mapping[Modality, Tensor],
        present: Tensor,
    ) -> Tensor:
        with self.prepared.device.autocast():
            raw, _ = self._call(weights, taking, represented, present)
        raw = {name: value.float() for name, value in raw.items()}
        losses = self.trainer.losses_of(raw, rows, taking)
        return torch.stack([self.config.loss_weights[k] * v for k, v in losses.items()]).sum()

    def _call(
        self,
        weights: Weights,
        taking: Tensor,
        represented: Mapping[Modality, Tensor],
        present: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        there = present.to(self.taking.device)
        found: tuple[dict[str, Tensor], Tensor] = functional_call(
            self.one.learning, {**weights, **self.buffers}, (represented, there, taking)
        )
        return found

    @torch.no_grad()
    def outputs(
        self, represented: Represented, present: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Raw outputs [C, n, …] and mean attention [C, T, T] of all patients."""
        self.one.learning.eval()
        call = vmap(self._call, in_dims=(0, 0, None, None))
        rows = torch.arange(len(present))
        raw, attention = call(self.best, self.taking, represented.at(rows, present), present)
        return {name: value.cpu() for name, value in raw.items()}, attention.mean(1).cpu()
