"""Training of an ensemble: its members, its calibration, and the finished checkpoint."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.calibration import calibrate
from model.network.checkpoint import Checkpoint
from model.network.encoders import of_one_task
from model.network.losses import INTERVAL
from model.network.m3h import SUBSET_MODALITIES, Fusion, Member, subset_number
from model.training.data import CHUNK, Rows, member_outputs
from model.training.member_run import MemberRun
from model.training.phenotypes import describe
from model.training.preparation import PreparedTraining
from model.training.task_network import TaskNetwork
from model.training.training_log import Epoch, TrainingLog
from schemas.manifest import ConformalSets, Phenotype, VennAbersCurve
from schemas.response import MODALITIES, Modality

STATE = "member-{}.safetensors"
_WITH_AND_WITHOUT_NOTES = (
    torch.tensor([[m == "notes" for m in MODALITIES]]),
    torch.zeros(1, len(MODALITIES), dtype=torch.bool),
)

Floats = npt.NDArray[np.float64]


class Trainer(TaskNetwork):
    """The training of an ensemble, by one process or by several.

    At the end each process has the whole model.
    """

    def __init__(self, prepared: PreparedTraining, *, tasks: Sequence[str] | None = None) -> None:
        super().__init__(prepared, tasks=tasks)
        # Raw outputs of each member for the samples that it held out; NaN for all other samples.
        self.held_out: dict[str, Tensor] = {}
        self.held_out_without_notes: dict[str, Tensor] = {}
        # [members, 2] the best epoch, and the number of epochs.
        self.epochs = torch.zeros(self.config.members, 2, dtype=torch.int64)

    def run(self, folder: Path | None = None) -> Iterator[Epoch]:
        """Trains this process's members, then calibrates the ensemble; yields after each epoch.

        With a folder, each member's state is saved there after each epoch. A killed run resumes
        from it, also with another number of processes. `TrainingLog` describes the log.
        Raises ProcessGroupError if another process ended, RunError if the state is damaged or that
        of another run.
        """
        own = self.processes.own(self.config.members)
        log = None if folder is None else TrainingLog(folder, self.config.members)
        for k in own:
            if folder is not None and log is not None and not (folder / STATE.format(k)).exists():
                log.resume(k, 0)
        for k in own:
            run = MemberRun(self, k)
            yield from run.epochs(None if folder is None else folder / STATE.format(k), log)
            _round_matrices(run.mean.cpu())
            self.epochs[k] = torch.tensor([run.best_epoch, run.epoch])
        self.processes.barrier("has trained its members")
        for k in range(self.config.members):
            member = self.net.member(k)
            weights = [p.data for p in member.parameters()]
            weights += [b for n, b in member.named_buffers() if of_one_task(n)]
            self.processes.broadcast([self.epochs[k], *weights], source=self.processes.owner(k))
        self.calibrate_members()

    def calibrate_members(self) -> None:
        """Calibrates the trained members' ensemble on the samples that each of them held out."""
        for fusion in self._fusions():
            fusion.subset_shift.zero_()
        for k in range(self.config.members):
            self._predict_held_out(k)
        self._calibrate()
        self._calibrate_subsets()

    def _predict_held_out(self, k: int) -> None:
        """Stores the raw outputs of member `k` for the samples that it held out."""
        data, stop = self.prepared.data, torch.from_numpy(self.prepared.splits[k][1])
        member = self.net.member(k).to(self.device.torch_device)
        versions: list[tuple[dict[str, Tensor], tuple[Modality, ...]]] = [
            (self.held_out, ()),
            (self.held_out_without_notes, ("notes",)),
        ]
        # In chunks, because the attention weights of many samples need much memory.
        for rows, (outputs, hidden) in itertools.product(stop.split(CHUNK), versions):
            raw, _ = member_outputs(
                member, self.prepared.represented, data, rows.numpy(), hidden=hidden
            )
            for name, value in raw.items():
                if name not in outputs:
                    shape = (len(self.prepared.data), *value.shape[1:])
                    outputs[name] = torch.full(shape, torch.nan)
                outputs[name][rows] = value
        member.cpu()

    def checkpoint(self) -> Checkpoint:
        """The trained and calibrated model."""
        weights = {n: v.detach().clone() for n, v in self.net.state_dict().items()}
        intervals, sets = self._intervals_and_sets()
        facts = self.facts.model_copy(
            update={"phenotypes": self._phenotypes(), "intervals": intervals, "sets": sets}
        )
        return Checkpoint(facts, weights)

    def calibration_samples(self, task: int) -> tuple[Rows, Floats, Floats]:
        """Rows, labels and weights of the first cohort's held-out samples with a label."""
        outcome = self.prepared.data.outcomes[:, self.columns[task]].double().numpy()
        held = ~torch.isnan(next(iter(self.held_out.values()))[:, 0]).numpy()
        rows = np.flatnonzero(held & ~np.isnan(outcome) & (self.prepared.data.cohort == 0))
        return rows, outcome[rows], self.prepared.data.weight[rows]

    @torch.no_grad()
    def _calibrate(self) -> None:
        prepared, fitted = self.prepared, self.net.calibrate
        nothing = self.net.eval().raw_without_data()
        if "binary" in nothing:
            fitted.nothing.copy_(nothing["binary"][0])
        held = ~torch.isnan(next(iter(self.held_out.values()))[:, 0])
        for i, task in enumerate(self.facts.tasks):
            target = prepared.data.outcomes[:, self.columns[i]]
            rows = torch.nonzero(held & ~torch.isnan(target)).squeeze(1)
            y, weight = target[rows].double().numpy(), prepared.data.weight[rows.numpy()]
            if task.kind == "binary":
                k = fitted.names.index(task.name)
                base = fitted.prior[k] + prepared.offset[rows, self.columns[i]]
                # Each patient with and without notes: they hide how much the other inputs tell.
                versions = self.held_out, self.held_out_without_notes
                parts = [fitted.parts(version)[:, rows, k] for version in versions]
                scales = calibrate.fit_scales(
                    torch.cat(parts, dim=1).double().numpy(),
                    np.tile(base.double().numpy(), 2),
                    np.tile(y, 2),
                    np.tile(weight / 2, 2),
                )
                fitted.evidence_scale[k], fitted.scale[k], fitted.tree_scale[k] = scales
                fitted.bound[k] = calibrate.log_odds_bound(float(weight.sum()))
            elif task.kind == "regression" and len(rows):
                low, high = self.held_out[task.name][rows, 1:].double().numpy().T
                log_days = np.log(np.maximum(y, 1 / 24))
                for end, miss in enumerate((low - log_days, log_days - high)):
                    fitted.margin[end] = calibrate.conformal_margin(miss, weight, INTERVAL[1])

    def _fusions(self) -> list[Fusion]:
        return [cast("Fusion", fusion) for fusion in self.net.fusion.members]

    @torch.no_grad()
    def _calibrate_subsets(self) -> None:
        """Shifts the log-odds of each set of modalities to the rate of the held-out patients.

        A patient counts for each set of the modalities that it has, with the others hidden: once
        with its notes, and once without.
        """
        prepared, fitted = self.prepared, self.net.calibrate
        for subset in itertools.product([False, True], repeat=len(SUBSET_MODALITIES)):
            shown = torch.zeros(1, len(MODALITIES), dtype=torch.bool)
            shown[0, [MODALITIES.index(m) for m in SUBSET_MODALITIES]] = torch.tensor(subset)
            if not any(subset) or not fitted.names:
                continue
            parts = [self._subset_log_odds(shown | notes) for notes in _WITH_AND_WITHOUT_NOTES]
            log_odds, rows = (torch.cat(part) for part in zip(*parts, strict=True))
            if not len(rows):
                continue
            shift = torch.zeros(len(fitted.names))
            binary = [i for i, task in enumerate(self.facts.tasks) if task.kind == "binary"]
            for k, i in enumerate(binary):
                target = prepared.data.outcomes[rows, self.columns[i]]
                known = ~torch.isnan(target)
                shift[k] = calibrate.fit_shift(
                    (log_odds[:, k] + prepared.offset[rows, self.columns[i]])[known].numpy(),
                    target[known].double().numpy(),
                    prepared.data.weight[rows[known].numpy()] / len(parts),
                )
            for fusion in self._fusions():
                # A task to which a modality is hidden has the shift of the set without it.
                all_seen = subset_number(shown, torch.ones_like(fusion.visible_binary))[0]
                number = subset_number(shown, fusion.visible_binary)[0]
                tasks = torch.nonzero(number == all_seen).squeeze(1)
                fusion.subset_shift[number[tasks], tasks] = (shift / fitted.evidence_scale)[tasks]

    def _subset_log_odds(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        """The log-odds [n, L] of held-out samples with only the modalities `shown`; their rows."""
        prepared, fitted = self.prepared, self.net.calibrate
        rows = torch.nonzero((prepared.data.present | ~shown).all(dim=1)).squeeze(1)
        log_odds = [torch.zeros(0, len(fitted.names))]
        used = [rows[:0]]
        for k in range(self.config.members):
            member = self.net.member(k).to(self.device.torch_device).eval()
            own = rows[torch.isin(rows, torch.from_numpy(prepared.splits[k][1]))]
            for chunk in own.split(CHUNK):
                present = shown.expand(len(chunk), -1)
                represented = prepared.represented.select(chunk, present)
                raw, _ = member(represented, present.to(self.device.torch_device))
                log_odds.append(fitted.log_odds({n: value.cpu() for n, value in raw.items()}))
                used.append(chunk)
            member.cpu()
        return torch.cat(log_odds).double(), torch.cat(used)

    def _intervals_and_sets(self) -> tuple[dict[str, VennAbersCurve], dict[str, ConformalSets]]:
        with torch.no_grad():
            served = self.net.calibrate(self.held_out)
        intervals, sets = {}, {}
        for i, task in enumerate(self.facts.tasks):
            if task.kind not in ("binary", "multiclass"):
                continue
            rows, outcome, weight = self.calibration_samples(i)
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


@torch.no_grad()
def _round_matrices(member: Member) -> None:
    """Rounds to half precision, as a bundle does, so that calibration uses the served weights."""
    for parameter in member.parameters():
        if parameter.ndim > 1:
            parameter.copy_(parameter.half().float())
