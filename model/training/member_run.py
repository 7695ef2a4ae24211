"""The training of one member of an ensemble."""

import copy
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.auroc import binary_auroc
from model.errors import RunError, wrap_file_errors
from model.network.encoders import without_trees
from model.network.m3h import Member
from model.network.tensor_files import read_tensors, write_tensors
from model.training.data import CHUNK
from model.training.directions import Directions
from model.training.per_task.evidence import set_evidence
from model.training.per_task.trees import set_trees
from model.training.task_network import TaskNetwork
from model.training.training_log import Epoch, TrainingLog


class MemberRun:
    """The training of one member.

    The optimiser updates `learning`, which has no trees, because no loss reads them. `mean` is the
    moving average of its weights; it is validated, and at the end it has the weights of the best
    epoch. `learn`, `stop`: the rows to learn from and the held-out rows.
    """

    def __init__(self, network: TaskNetwork, number: int) -> None:
        self.network, self.number = network, number
        self.config, self.prepared, self.device = network.config, network.prepared, network.device
        self.learn, self.stop = network.prepared.splits[number]
        self.seed = self.config.seed * 101 + number
        torch.manual_seed(self.seed)
        self.mean: Member = network.net.member(number)
        self._set_evidence()
        self.mean.to(self.device.torch_device)
        self.learning = without_trees(copy.deepcopy(self.mean))
        self.directions = Directions(
            list(network.facts.tasks),
            network.facts.spec,
            network.facts.findings,
            network.prepared.encoders,
            network.prepared.data,
            network.prepared.represented,
        )
        self._parameters: list[Tensor] = list(self.learning.parameters())
        self._mean_parameters: list[Tensor] = list(self.mean.parameters())
        # No weight decay on biases, norms and the attention's scalars.
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self._parameters if p.ndim > 1]},
            {"params": [p for p in self._parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(
            groups, lr=self.config.learning_rate, weight_decay=self.config.weight_decay, fused=True
        )
        self.epoch, self.best_loss, self.best_epoch = 0, math.inf, 0
        self.best = self._weights()

    def epochs(self, state: Path | None = None, log: TrainingLog | None = None) -> Iterator[Epoch]:
        """Trains until `patience` epochs bring no improvement; yields after each epoch.

        `state`: the file to resume from and to save to after each epoch. Raises RunError if it is
        damaged or that of another run.
        """
        if state is not None:
            self._resume(state)
        if log is not None:
            log.resume(self.number, self.epoch)
        last, patience = self.config.epochs, self.config.patience
        while self.epoch < last and self.epoch - self.best_epoch < patience:
            self.epoch += 1
            start = time.monotonic()
            training = self._train_epoch()
            validation, raw = self._validate()
            loss = sum(self.config.loss_weights[kind] * v for kind, v in validation.items())
            best = loss < self.best_loss
            if best:
                self.best_loss, self.best_epoch, self.best = loss, self.epoch, self._weights()
            epoch = Epoch(
                member=self.number,
                number=self.epoch,
                training=training,
                validation=validation,
                best=best,
                auroc=math.nan if log is None else self._auroc(raw),
                seconds=time.monotonic() - start,
                learning_rate=self.optimiser.param_groups[0]["lr"],
            )
            if log is not None:  # before the state: a resumed run drops entries after its state
                log.write(epoch)
            if state is not None:
                self._save_state(state)
            yield epoch
        self.mean.load_state_dict(self.best)

    def _set_evidence(self) -> None:
        """Sets the evidence of findings, on top of which the network is trained, and the trees."""
        binary = [
            column
            for column, task in zip(self.network.columns, self.network.facts.tasks, strict=True)
            if task.kind == "binary"
        ]
        for k, column in enumerate(binary):
            evidence = self.prepared.per_task.evidence(self.number, column)
            if evidence is not None:
                set_evidence(self.mean, k, evidence)
            set_trees(self.mean, k, self.prepared.per_task.trees(self.number, column))

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.mean.state_dict().items()}

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The rows of each batch, and the modalities that are shown; also seeds dropout.

        Each epoch has its own seed, so that a resumed run equals an uninterrupted one.
        """
        self.learning.train()
        seed = self.seed * 100_003 + epoch
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        order = torch.from_numpy(self.learn)[torch.randperm(len(self.learn), generator=generator)]
        for rows in order.split(self.config.batch):
            yield rows, self._drop_modalities(self.prepared.data.present[rows], generator)

    def _train_epoch(self) -> dict[str, float]:
        # Summed on the device: reading a number would synchronise with it after every batch.
        totals: dict[str, Tensor] = {}
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        for rows, present in self.batches(self.epoch):
            with self.device.autocast():
                raw = self._raw(self.learning, rows, present)
            losses = self.network.losses_of(raw, rows)
            total = torch.stack([self.config.loss_weights[k] * v for k, v in losses.items()]).sum()
            if self.config.direction_weight:
                total = total + self.config.direction_weight * self._penalty(
                    rows, present, generator
                )
            self.optimiser.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
            self.optimiser.step()
            self._update_mean()
            for kind, value in losses.items():
                share = value.detach().double() * len(rows) / len(self.learn)
                totals[kind] = totals[kind] + share if kind in totals else share
        return {kind: value.item() for kind, value in totals.items()}

    def _penalty(self, rows: Tensor, present: Tensor, generator: torch.Generator) -> Tensor:
        """The penalty on wrong directions. Dropout would hide the effect of a single change."""
        self.learning.eval()
        penalty = self.directions.penalty(self.learning, rows, present, generator)
        self.learning.train()
        return penalty.to(self.device.torch_device)

    @torch.no_grad()
    def _update_mean(self) -> None:
        torch._foreach_lerp_(self._mean_parameters, self._parameters, 1 - self.config.averaging)

    def _raw(self, member: Member, rows: Tensor, present: Tensor) -> dict[str, Tensor]:
        represented = self.prepared.represented.select(rows, present)
        raw, _ = member(represented, present.to(self.device.torch_device))
        return {name: value.float() for name, value in raw.items()}

    def _drop_modalities(self, present: Tensor, generator: torch.Generator) -> Tensor:
        keep_all = torch.rand(len(present), 1, generator=generator)
        keep = torch.rand(present.shape, generator=generator) < 0.5
        return present & (keep | (keep_all < self.config.keep_all_modalities))

    @torch.no_grad()
    def _validate(self) -> tuple[dict[str, float], list[dict[str, Tensor]]]:
        """Mean losses by kind, and raw outputs in chunks, of the held-out samples.

        All modalities are shown, as when the model is served.
        """
        self.mean.eval()
        totals: dict[str, float] = {}
        parts = []
        for rows in torch.from_numpy(self.stop).split(CHUNK):
            raw = self._raw(self.mean, rows, self.prepared.data.present[rows])
            parts.append(raw)
            for kind, value in self.network.losses_of(raw, rows).items():
                share = len(rows) / len(self.stop)
                totals[kind] = totals.get(kind, 0.0) + value.item() * share
        return totals, parts

    def _auroc(self, parts: list[dict[str, Tensor]]) -> float:
        """The mean AUROC of the binary tasks on the held-out samples."""
        if "binary" not in parts[0]:
            return math.nan
        score = torch.cat([raw["binary"] for raw in parts]).cpu().double().numpy()
        pairs = zip(self.network.columns, self.network.facts.tasks, strict=True)
        columns = [column for column, task in pairs if task.kind == "binary"]
        return _mean_auroc(self.prepared.data.samples.outcomes[self.stop][:, columns], score)

    def _save_state(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f"mean/{k}": v for k, v in self.mean.state_dict().items()}
        tensors |= {f"learning/{k}": v for k, v in self.learning.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{i}/{k}": v for k, v in state.items()}
        progress = {
            "epoch": self.epoch,
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "of": self._identity(),
        }
        write_tensors(tensors, path, {"progress": json.dumps(progress)})

    def _identity(self) -> dict[str, Any]:
        """The properties that a run and the one it resumes must share."""
        facts = self.network.facts
        return {
            "training": facts.training,
            "net": facts.net.model_dump(mode="json"),
            "pretrained": {m: encoder.digest for m, encoder in facts.pretrained.items()},
            "tasks": [task.name for task in facts.tasks],
            "cohorts": [c.digest for c in facts.cohorts],
        }

    def _resume(self, path: Path) -> None:
        if not os.path.lexists(path):
            return
        # safetensors has its own error types for a damaged file.
        with wrap_file_errors(path, RunError, Exception):
            tensors, metadata = read_tensors(path)
            progress = json.loads(metadata["progress"])
            if progress["of"] != self._identity():
                raise RunError(
                    f"{path.parent} holds another run (other cohorts or another configuration); "
                    "take another folder, or remove it to start again"
                )
            self._load_state(tensors, progress)

    def _load_state(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        self.mean.load_state_dict(_with_prefix("mean/", tensors))
        self.learning.load_state_dict(_with_prefix("learning/", tensors))
        self.best = _with_prefix("best/", tensors)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _with_prefix("optimiser/", tensors).items():
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.epoch = progress["epoch"]
        self.best_loss, self.best_epoch = progress["best_loss"], progress["best_epoch"]


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _mean_auroc(outcomes: npt.NDArray[np.float32], scores: npt.NDArray[np.float64]) -> float:
    """The mean AUROC over the tasks that have both outcomes; NaN if there is none.

    Both arrays [N, tasks]; an unknown outcome is NaN.
    """
    known = ~np.isnan(outcomes)
    areas = [
        binary_auroc(outcome[rows] == 1, score[rows])
        for outcome, score, rows in zip(outcomes.T, scores.T, known.T, strict=True)
    ]
    areas = [area for area in areas if not math.isnan(area)]
    return float(np.mean(areas)) if areas else float("nan")
