"""Signs of a training that failed, each a figure and what to do; from patients held out."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.network.checkpoint import ByModality, Checkpoint, Facts, Signatures
from model.training.train import Trainer
from schemas.response import MODALITIES, Modality

ROWS = 1024  # of the samples that a member held out, for attention and modalities
UNIFORM = 0.98
IDLE, DOMINANT = 0.01, 0.95


def signed(trainer: Trainer) -> Checkpoint:
    """The trained model, its signatures among its facts."""
    found = trainer.checkpoint()
    return replace(found, facts=found.facts.model_copy(update={"signatures": of(trainer)}))


@torch.no_grad()
def of(trainer: Trainer) -> Signatures:
    """The signatures of a trained model, from some of the samples that its members held out."""
    found = [_of_member(trainer, k) for k in range(trainer.config.members)]
    moved = _means([moved for _, moved, _ in found])
    total = sum(moved.values())
    attention = torch.stack([attention for attention, _, _ in found]).mean(dim=0)
    return Signatures(
        attention_entropy=float(attention[0]),
        self_weight=float(attention[1]),
        influence={m: value / total if total else 0.0 for m, value in moved.items()},
        worth=_means([worth for _, _, worth in found]),
        learned_nothing=tuple(_learned_nothing(trainer)),
        best_epoch=tuple(trainer.epochs[:, 0].tolist()),
        epochs=tuple(trainer.epochs[:, 1].tolist()),
    )


def _of_member(trainer: Trainer, number: int) -> tuple[Tensor, ByModality, ByModality]:
    """Attention's entropy and weight on itself; each modality's movement of log-odds, and worth."""
    prepared, stop = trainer.prepared, trainer.prepared.splits[number][1]
    rows = torch.from_numpy(stop[:: -(-len(stop) // ROWS)])
    member = trainer.net.member(number).to(trainer.device.where).eval()
    present = prepared.data.present[rows]
    represented = prepared.represented.at(rows, present)
    raw, weights = member(represented, present.to(trainer.device.where))
    entropy = -torch.xlogy(weights, weights).sum(dim=2).mean() / math.log(max(weights.shape[1], 2))
    attention = torch.stack([entropy, weights.diagonal(dim1=1, dim2=2).mean()]).cpu()
    moved: ByModality = {}
    worth: ByModality = {}
    for modality, vectors in represented.items():
        sees = _seen_by(trainer, modality)
        has = present[:, MODALITIES.index(modality)]
        if not sees or len(vectors) < 2:
            continue
        # Half of them away, because a patient's own samples lie side by side.
        of_others = {**represented, modality: vectors.roll(len(vectors) // 2, dims=0)}
        mixed, _ = member(of_others, present.to(trainer.device.where))
        with_own, with_others = (
            {name: value[has.to(value.device)] for name, value in outputs.items()}
            for outputs in (raw, mixed)
        )
        moves = (with_others["binary"] - with_own["binary"])[:, sees]
        moved[modality] = float(moves.abs().mean())
        learned, lost = (
            float(trainer.losses_of(outputs, rows[has])["binary"])
            for outputs in (with_own, with_others)
        )
        worth[modality] = (lost - learned) / lost if lost else 0.0
    member.cpu()
    return attention, moved, worth


def _seen_by(trainer: Trainer, modality: Modality) -> list[int]:
    """Which of the binary tasks see the modality."""
    binary = [task for task in trainer.facts.tasks if task.kind == "binary"]
    return [k for k, task in enumerate(binary) if modality in trainer.facts.seen(task)]


def _means(parts: list[ByModality]) -> ByModality:
    """Over the members that held out a sample with the modality."""
    return {
        m: float(np.mean([part[m] for part in parts if m in part]))
        for m in MODALITIES
        if any(m in part for part in parts)
    }


def _learned_nothing(trainer: Trainer) -> Iterator[str]:
    """Tasks whose held-out loss is not below that of what is known without learning."""
    prepared, prior = trainer.prepared, trainer.net.calibrate.prior
    names = trainer.net.calibrate.names
    for i, task in enumerate(trainer.facts.tasks):
        name = "binary" if task.kind == "binary" else task.name
        raw = trainer.held_out[name]
        target = prepared.data.outcomes[:, trainer.columns[i]]
        rows = torch.nonzero(~torch.isnan(raw[:, 0]) & ~torch.isnan(target)).squeeze(1)
        if task.kind == "clustering" or not len(rows):
            continue
        y, said = target[rows], raw[rows]
        weight = torch.from_numpy(prepared.weight[rows.numpy()])
        if task.kind == "binary":
            k = names.index(task.name)
            offset = prepared.offset[rows, trainer.columns[i]]
            losses = [
                F.binary_cross_entropy_with_logits(z + offset, y, reduction="none")
                for z in (said[:, k], prior[k].expand(len(y)))
            ]
        elif task.kind == "multiclass":
            shares = torch.bincount(y.long(), weight, minlength=said.shape[1]) / weight.sum()
            losses = [F.cross_entropy(said, y.long(), reduction="none"), -shares.log()[y.long()]]
        else:
            days = y.clamp_min(1 / 24).log()
            losses = [(said[:, 0] - days).abs(), (days.median() - days).abs()]
        learned, known = (float((loss * weight).sum() / weight.sum()) for loss in losses)
        if learned >= known:
            yield task.name


def warnings(facts: Facts) -> list[str]:
    """A line for each sign of failure: the figure, and what to do."""
    found = facts.signatures
    if found is None:
        return []
    return [*_of_attention(found, facts), *_of_modalities(found), *_of_learning(found, facts)]


def _of_attention(found: Signatures, facts: Facts) -> Iterator[str]:
    tasks = len(facts.tasks)
    uniform = found.attention_entropy > UNIFORM or found.self_weight < 2 / tasks
    # Of two tasks, one half each is how balanced attention starts.
    if tasks > 2 and uniform and facts.net.attention != "none":
        form = "none" if facts.net.attention == "balanced" else "balanced"
        yield (
            f"attention averages all {tasks} tasks: its entropy is {found.attention_entropy:.3f} "
            f"of 1, and a task gives itself {found.self_weight:.3f} of the weight; "
            f'compare with attention = "{form}" under [net]'
        )


def _of_modalities(found: Signatures) -> Iterator[str]:
    for modality, share in found.influence.items():
        moves = f"another patient's in its place moves log-odds by {share:.1%} of what all do"
        if share < IDLE:
            yield (
                f"{modality} has no influence: {moves}; see what its reader finds, "
                "or train without it (--modality)"
            )
        elif found.worth[modality] <= 0:
            yield (
                f"{modality} does not help: {moves}, and lowers the loss by "
                f"{-found.worth[modality]:.2%}; raise its input_dropout under [net], "
                "or train without it (--modality)"
            )
        if share > DOMINANT and len(found.influence) > 1:
            yield (
                f"{modality} dominates: {moves}; see that it does not tell the outcome, raise its "
                "input_dropout under [net], or lower keep_all_modalities"
            )


def _of_learning(found: Signatures, facts: Facts) -> Iterator[str]:
    if found.learned_nothing:
        yield (
            f"{len(found.learned_nothing)} of {len(facts.tasks)} tasks learned nothing, their "
            "held-out loss is not below that of the prevalence: "
            f"{', '.join(found.learned_nothing)}; give more patients with these, or leave them out"
        )
    most = facts.training["epochs"]
    for number, (best, epochs) in enumerate(zip(found.best_epoch, found.epochs, strict=True), 1):
        if best <= 1:
            yield (
                f"member {number} was best at epoch {best} of {epochs}: it learned next to nothing "
                "that holds for other hospitals; lower learning_rate, or see whether inputs and "
                "outcomes belong together"
            )
        elif best == most:
            yield (f"member {number} was still improving at epoch {best}, its last; raise epochs")
