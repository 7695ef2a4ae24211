"""Training: many tasks, any subset of the modalities, an ensemble of members."""

import copy
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from model.calibration import calibrate
from model.errors import naming
from model.evaluation.evaluate import held_out_auroc
from model.network.checkpoint import Checkpoint, make_net, write_tensors
from model.network.losses import INTERVAL, Losses
from model.network.net import Member
from model.representations.phenotypes import describe
from model.training.data import CHUNK, Rows, member_outputs
from model.training.prepare import Prepared, RunError
from model.training.training_log import Epoch, TrainingLog
from schemas.manifest import Phenotype, Sets, Steps
from schemas.tasks import only

STATE = "member-{}.safetensors"

Floats = npt.NDArray[np.float64]


class Trainer:
    """One training run: its members, one after the other, or dealt to several processes.

    Every epoch is seeded on its own, so that a resumed run is the same run, and every process ends
    with the whole model. With `tasks`, by name, the network has these alone, and begins with the
    weights that the network of all tasks has for them.
    """

    def __init__(self, prepared: Prepared, *, tasks: Sequence[str] | None = None) -> None:
        self.prepared, self.config = prepared, prepared.config
        self.device, self.processes = prepared.device, prepared.processes
        every = prepared.facts.tasks
        names = [t.name for t in every] if tasks is None else tasks
        self.columns = [i for i, t in enumerate(every) if t.name in names]
        mine = only(every, names)
        self.facts = prepared.facts.model_copy(update={"tasks": mine})
        torch.manual_seed(self.config.seed)
        self.net = make_net(self.facts)
        self.net.encoders.load_state_dict(prepared.label_free(), strict=False)
        if tasks is not None:
            torch.manual_seed(self.config.seed)
            whole = make_net(prepared.facts)
            whole.encoders.load_state_dict(prepared.label_free(), strict=False)
            self.net.begin_as(whole, self.columns)
        self.losses = Losses(list(mine), self.facts.prevalence, prepared.prototypes)
        self.losses.to(self.device.where)
        # What each member says of the samples that it held out; NaN where none did.
        self.held_out: dict[str, Tensor] = {}
        # [members, 2] the best of its epochs, and how many there were.
        self.epochs = torch.zeros(self.config.members, 2, dtype=torch.int64)

    def run(self, folder: Path | None = None) -> Iterator[Epoch]:
        """Trains this process's members, each until `patience` epochs bring nothing.

        Yields after each epoch. With a folder, the state is kept there after each epoch, and a run
        that was killed goes on from it, with as many processes as it is then given; `TrainingLog`
        says what is written beside it. At the end the ensemble is calibrated. Raises ProcessesError
        if another process ended, RunError if the state is another run's or is damaged.
        """
        mine = self.processes.mine(self.config.members)
        log = None if folder is None else TrainingLog(folder, self.config.members)
        for k in mine:
            if folder is not None and log is not None and not (folder / STATE.format(k)).exists():
                log.resume(k, 0)
        for k in mine:
            run = MemberRun(self, k)
            yield from run.epochs(None if folder is None else folder / STATE.format(k), log)
            _round(run.mean.cpu())
            self.epochs[k] = torch.tensor([run.best_epoch, run.epoch])
        self.processes.meet("has trained its members")
        for k in range(self.config.members):
            weights = [p.data for p in self.net.member(k).parameters()]
            self.processes.send([self.epochs[k], *weights], source=self.processes.owner(k))
            self._hold(k)
        self._calibrate()

    def _hold(self, k: int) -> None:
        """What a member says of the samples that it did not learn from."""
        data, stop = self.prepared.data, torch.from_numpy(self.prepared.splits[k][1])
        member = self.net.member(k).to(self.device.where)
        # Some at a time: the attention of all of them would not fit for many patients.
        for some in stop.split(CHUNK):
            raw, _ = member_outputs(member, self.prepared.represented, data, some.numpy())
            for name, value in raw.items():
                if name not in self.held_out:
                    shape = (len(self.prepared.data), *value.shape[1:])
                    self.held_out[name] = torch.full(shape, torch.nan)
                self.held_out[name][some] = value
        member.cpu()

    def losses_of(
        self, raw: dict[str, Tensor], rows: Tensor, taking: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The mean losses by kind, of the raw outputs of the samples at `rows`."""
        where, columns = self.device.where, self.columns
        found: dict[str, Tensor] = self.losses(
            raw,
            self.prepared.data.outcomes[rows][:, columns].to(where),
            self.prepared.offset[rows][:, columns].to(where),
            self.prepared.statistics[rows].to(where),
            taking,
        )
        return found

    def checkpoint(self) -> Checkpoint:
        weights = {n: v.detach().clone() for n, v in self.net.state_dict().items()}
        intervals, sets = self._intervals_and_sets()
        facts = self.facts.model_copy(
            update={"phenotypes": self._phenotypes(), "intervals": intervals, "sets": sets}
        )
        return Checkpoint(facts, weights)

    def calibration(self, column: int) -> tuple[Rows, Floats, Floats]:
        """The held-out samples of the first cohort with a label, the labels, and their weights."""
        outcome = self.prepared.data.outcomes[:, self.columns[column]].double().numpy()
        held = ~torch.isnan(next(iter(self.held_out.values()))[:, 0]).numpy()
        rows = np.flatnonzero(held & ~np.isnan(outcome) & (self.prepared.data.cohort == 0))
        return rows, outcome[rows], self.prepared.weight[rows]

    @torch.no_grad()
    def _calibrate(self) -> None:
        prepared, fitted = self.prepared, self.net.calibrate
        nothing = self.net.eval().raw_of_nothing()
        if "binary" in nothing:
            fitted.nothing.copy_(nothing["binary"][0])
        held = ~torch.isnan(next(iter(self.held_out.values()))[:, 0])
        for i, task in enumerate(self.facts.tasks):
            target = prepared.data.outcomes[:, self.columns[i]]
            rows = torch.nonzero(held & ~torch.isnan(target)).squeeze(1)
            y, weight = target[rows].double().numpy(), prepared.weight[rows.numpy()]
            if task.kind == "binary":
                k = fitted.names.index(task.name)
                base = fitted.prior[k] + prepared.offset[rows, self.columns[i]]
                evidence = self.held_out["binary"][rows, k] - fitted.nothing[k]
                fitted.scale[k] = calibrate.stretch(
                    evidence.double().numpy(), base.double().numpy(), y, weight
                )
                fitted.bound[k] = calibrate.half_a_patient(float(weight.sum()))
            elif task.kind == "regression" and len(rows):
                low, high = self.held_out[task.name][rows, 1:].double().numpy().T
                log_days = np.log(np.maximum(y, 1 / 24))
                for end, miss in enumerate((low - log_days, log_days - high)):
                    fitted.margin[end] = calibrate.weighted_quantile(miss, weight, INTERVAL[1])

    def _intervals_and_sets(self) -> tuple[dict[str, Steps], dict[str, Sets]]:
        with torch.no_grad():
            served = self.net.calibrate(self.held_out)
        intervals, sets = {}, {}
        for i, task in enumerate(self.facts.tasks):
            if task.kind not in ("binary", "multiclass"):
                continue
            rows, outcome, weight = self.calibration(i)
            if task.kind == "binary":
                yes = served["binary"][:, self.net.calibrate.names.index(task.name)]
                probabilities = torch.stack([1 - yes, yes], dim=1)[rows].double().numpy()
                intervals[task.name] = calibrate.venn_abers(probabilities[:, 1], outcome, weight)
            else:
                probabilities = served[task.name][rows].double().numpy()
            sets[task.name] = calibrate.conformal_sets(
                probabilities, outcome, weight, task.classes or ("no", "yes")
            )
        return intervals, sets

    def _phenotypes(self) -> tuple[Phenotype, ...]:
        name = next((t.name for t in self.facts.tasks if t.kind == "clustering"), None)
        if name is None:
            return ()
        prepared = self.prepared
        outcomes = prepared.data.outcomes[:, self.columns]
        return describe(self.held_out[name], prepared.statistics, outcomes, self.facts)


class MemberRun:
    """The training of one member. `learning` is moved by the gradient, `mean` follows it."""

    def __init__(self, trainer: Trainer, number: int) -> None:
        self.trainer, self.number = trainer, number
        self.config, self.prepared, self.device = trainer.config, trainer.prepared, trainer.device
        self.learn, self.stop = trainer.prepared.splits[number]
        self.seed = self.config.seed * 101 + number
        torch.manual_seed(self.seed)
        self.mean: Member = trainer.net.member(number).to(self.device.where)
        self.learning = copy.deepcopy(self.mean)
        parameters = list(self.learning.parameters())
        # Biases, norms and the attention's scalars are not pulled to zero.
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(
            groups, lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        self.epoch, self.best_loss, self.best_epoch = 0, math.inf, 0
        self.best = self._weights()

    def epochs(self, state: Path | None = None, log: TrainingLog | None = None) -> Iterator[Epoch]:
        if state is not None:
            self._resume(state)
        if log is not None:
            log.resume(self.number, self.epoch)
        last, patience = self.config.epochs, self.config.patience
        while self.epoch < last and self.epoch - self.best_epoch < patience:
            self.epoch += 1
            began = time.monotonic()
            training = self._one_epoch()
            validation, raw = self._validate()
            loss = sum(self.config.loss_weights[kind] * v for kind, v in validation.items())
            best = loss < self.best_loss
            if best:
                self.best_loss, self.best_epoch, self.best = loss, self.epoch, self._weights()
            done = Epoch(
                member=self.number,
                number=self.epoch,
                training=training,
                validation=validation,
                best=best,
                auroc=math.nan if log is None else self._auroc(raw),
                seconds=time.monotonic() - began,
                learning_rate=self.optimiser.param_groups[0]["lr"],
            )
            if log is not None:  # before the state: a resumed run drops what is later than that
                log.write(done)
            if state is not None:
                self._keep(state)
            yield done
        self.mean.load_state_dict(self.best)

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.mean.state_dict().items()}

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """An epoch's rows, and which of their modalities are shown; seeds dropout as well."""
        self.learning.train()
        seed = self.seed * 100_003 + epoch
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        order = torch.from_numpy(self.learn)[torch.randperm(len(self.learn), generator=generator)]
        for rows in order.split(self.config.batch):
            yield rows, self._hide(self.prepared.data.present[rows], generator)

    def _one_epoch(self) -> dict[str, float]:
        # Added up on the device: asking for a number would make it wait after every batch.
        totals: dict[str, Tensor] = {}
        for rows, present in self.batches(self.epoch):
            with self.device.autocast():
                raw = self._raw(self.learning, rows, present)
            losses = self.trainer.losses_of(raw, rows)
            total = torch.stack([self.config.loss_weights[k] * v for k, v in losses.items()]).sum()
            self.optimiser.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(self.learning.parameters(), 1.0)
            self.optimiser.step()
            self._follow()
            for kind, value in losses.items():
                share = value.detach().double() * len(rows) / len(self.learn)
                totals[kind] = totals[kind] + share if kind in totals else share
        return {kind: value.item() for kind, value in totals.items()}

    @torch.no_grad()
    def _follow(self) -> None:
        pairs = zip(self.mean.parameters(), self.learning.parameters(), strict=True)
        for mean, latest in pairs:
            mean.lerp_(latest, 1 - self.config.averaging)

    def _raw(self, member: Member, rows: Tensor, present: Tensor) -> dict[str, Tensor]:
        represented = self.prepared.represented.at(rows, present)
        raw, _ = member(represented, present.to(self.device.where))
        return {name: value.float() for name, value in raw.items()}

    def _hide(self, present: Tensor, generator: torch.Generator) -> Tensor:
        all_of_them = torch.rand(len(present), 1, generator=generator)
        keep = torch.rand(present.shape, generator=generator) < 0.5
        return present & (keep | (all_of_them < self.config.keep_all_modalities))

    @torch.no_grad()
    def _validate(self) -> tuple[dict[str, float], list[dict[str, Tensor]]]:
        """With everything that is there, the way that the model is served.

        Gives the mean losses by kind, and the raw outputs of the samples held out, in parts.
        """
        self.mean.eval()
        totals: dict[str, float] = {}
        parts = []
        for rows in torch.from_numpy(self.stop).split(1024):
            raw = self._raw(self.mean, rows, self.prepared.data.present[rows])
            parts.append(raw)
            for kind, value in self.trainer.losses_of(raw, rows).items():
                share = len(rows) / len(self.stop)
                totals[kind] = totals.get(kind, 0.0) + value.item() * share
        return totals, parts

    def _auroc(self, parts: list[dict[str, Tensor]]) -> float:
        """The mean AUROC of the binary tasks on the samples held out."""
        if "binary" not in parts[0]:
            return math.nan
        score = torch.cat([raw["binary"] for raw in parts]).cpu().double().numpy()
        pairs = zip(self.trainer.columns, self.trainer.facts.tasks, strict=True)
        columns = [column for column, task in pairs if task.kind == "binary"]
        return held_out_auroc(self.prepared.data.samples.outcomes[self.stop][:, columns], score)

    def _keep(self, path: Path) -> None:
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
        """What a run must have in common with the one that it resumes."""
        facts = self.trainer.facts
        return {
            "training": facts.training,
            "net": facts.net.model_dump(mode="json"),
            "pretrained": {m: found.digest for m, found in facts.pretrained.items()},
            "tasks": [task.name for task in facts.tasks],
            "cohorts": [c.digest for c in facts.cohorts],
        }

    def _resume(self, path: Path) -> None:
        if not os.path.lexists(path):
            return
        # safetensors raises errors of its own for a damaged file.
        with naming(path, RunError, Exception):
            with safe_open(path, framework="pt") as state_file:
                progress = json.loads(state_file.metadata()["progress"])
            if progress["of"] != self._identity():
                raise RunError(
                    f"{path.parent} holds another run (other cohorts or another configuration); "
                    "take another folder, or remove it to start anew"
                )
            self._take(load_file(path), progress)

    def _take(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        self.mean.load_state_dict(_below("mean/", tensors))
        self.learning.load_state_dict(_below("learning/", tensors))
        self.best = _below("best/", tensors)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimiser/", tensors).items():
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.epoch = progress["epoch"]
        self.best_loss, self.best_epoch = progress["best_loss"], progress["best_epoch"]


@torch.no_grad()
def _round(member: Member) -> None:
    """To half precision, which is how a bundle keeps matrices: what is calibrated is served."""
    for parameter in member.parameters():
        if parameter.ndim > 1:
            parameter.copy_(parameter.half().float())


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
