"""Failure signatures: figures that show a failed training, each with a warning and advice.

They are measured on held-out patients.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.network.checkpoint import ByModality, Checkpoint, Facts, FailureSignatures
from model.training.trainer import Trainer
from schemas.response import MODALITIES, Modality
from schemas.tasks import Task

MAX_SAMPLES = 1024  # held-out samples of each member for attention and modalities
MAX_ENTROPY = 0.98  # normalised entropy of attention; above it, attention is uniform
MIN_INFLUENCE, MAX_INFLUENCE = 0.01, 0.95  # of a modality


def checkpoint_with_signatures(trainer: Trainer) -> Checkpoint:
    """The trained model, with its failure signatures."""
    checkpoint = trainer.checkpoint()
    facts = checkpoint.facts.model_copy(update={"signatures": measure(trainer)})
    return replace(checkpoint, facts=facts)


@torch.no_grad()
def measure(trainer: Trainer) -> FailureSignatures:
    """The signatures of a trained model, the mean over its members."""
    members = [_measure_member(trainer, k) for k in range(trainer.config.members)]
    changes = _mean_by_modality([change for _, change, _ in members])
    total = sum(changes.values())
    attention = torch.stack([attention for attention, _, _ in members]).mean(dim=0)
    return FailureSignatures(
        attention_entropy=float(attention[0]),
        self_weight=float(attention[1]),
        influence={m: value / total if total else 0.0 for m, value in changes.items()},
        worth=_mean_by_modality([gain for _, _, gain in members]),
        learned_nothing=tuple(_tasks_without_gain(trainer)),
        best_epoch=tuple(trainer.epochs[:, 0].tolist()),
        epochs=tuple(trainer.epochs[:, 1].tolist()),
    )


def _measure_member(trainer: Trainer, number: int) -> tuple[Tensor, ByModality, ByModality]:
    """[entropy, weight on itself] of attention; each modality's change of log-odds; its gain.

    The gain is the share by which the patient's own input lowers the loss.
    """
    prepared, stop = trainer.prepared, trainer.prepared.splits[number][1]
    device = trainer.device.torch_device
    rows = torch.from_numpy(stop[:: -(-len(stop) // MAX_SAMPLES)])
    member = trainer.net.member(number).to(device).eval()
    present = prepared.data.present[rows]
    represented = prepared.represented.select(rows, present)
    raw, weights = member(represented, present.to(device))
    entropy = -torch.xlogy(weights, weights).sum(dim=2).mean() / math.log(max(weights.shape[1], 2))
    attention = torch.stack([entropy, weights.diagonal(dim1=1, dim2=2).mean()]).cpu()
    changes: ByModality = {}
    gains: ByModality = {}
    for modality, vectors in represented.items():
        columns = _tasks_that_see(trainer, modality)
        has = present[:, MODALITIES.index(modality)]
        if not columns or len(vectors) < 2:
            continue
        # Rolled by half, because a patient's own samples are neighbours.
        permuted = {**represented, modality: vectors.roll(len(vectors) // 2, dims=0)}
        permuted_raw, _ = member(permuted, present.to(device))
        own, others = (
            {name: value[has.to(value.device)] for name, value in outputs.items()}
            for outputs in (raw, permuted_raw)
        )
        change = (others["binary"] - own["binary"])[:, columns]
        changes[modality] = float(change.abs().mean())
        own_loss, others_loss = (
            float(trainer.losses_of(outputs, rows[has])["binary"]) for outputs in (own, others)
        )
        gains[modality] = (others_loss - own_loss) / others_loss if others_loss else 0.0
    member.cpu()
    return attention, changes, gains


def _tasks_that_see(trainer: Trainer, modality: Modality) -> list[int]:
    """The columns of the binary tasks that see the modality."""
    facts = trainer.facts
    binary = [task for task in facts.tasks if task.kind == "binary"]
    return [k for k, task in enumerate(binary) if modality in facts.visible_modalities(task)]


def _mean_by_modality(members: list[ByModality]) -> ByModality:
    """The mean over the members that held out a sample with the modality."""
    return {
        m: float(np.mean([member[m] for member in members if m in member]))
        for m in MODALITIES
        if any(m in member for member in members)
    }


def _tasks_without_gain(trainer: Trainer) -> Iterator[str]:
    """Tasks whose held-out loss is not below that of a constant prediction."""
    for i, task in enumerate(trainer.facts.tasks):
        raw = trainer.held_out["binary" if task.kind == "binary" else task.name]
        target = trainer.prepared.data.outcomes[:, trainer.columns[i]]
        rows = torch.nonzero(~torch.isnan(raw[:, 0]) & ~torch.isnan(target)).squeeze(1)
        if task.kind == "clustering" or not len(rows):
            continue
        weight = torch.from_numpy(trainer.prepared.data.weight[rows.numpy()])
        losses = _losses_and_baseline(trainer, i, task, rows, weight)
        learned, constant = (float((loss * weight).sum() / weight.sum()) for loss in losses)
        if learned >= constant:
            yield task.name


def _losses_and_baseline(
    trainer: Trainer, i: int, task: Task, rows: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """The losses [n] of the model, and of the best constant prediction, at `rows`."""
    y = trainer.prepared.data.outcomes[rows, trainer.columns[i]]
    if task.kind == "binary":
        k = trainer.net.calibrate.names.index(task.name)
        prior = trainer.net.calibrate.prior[k].expand(len(y))
        offset = trainer.prepared.offset[rows, trainer.columns[i]]
        model, constant = (
            F.binary_cross_entropy_with_logits(z + offset, y, reduction="none")
            for z in (trainer.held_out["binary"][rows, k], prior)
        )
        return model, constant
    raw = trainer.held_out[task.name][rows]
    if task.kind == "multiclass":
        shares = torch.bincount(y.long(), weight, minlength=raw.shape[1]) / weight.sum()
        return F.cross_entropy(raw, y.long(), reduction="none"), -shares.log()[y.long()]
    days = y.clamp_min(1 / 24).log()
    return (raw[:, 0] - days).abs(), (days.median() - days).abs()


def warnings(facts: Facts) -> list[str]:
    """One line for each sign of a failed training: the figure, and advice."""
    signatures = facts.signatures
    if signatures is None:
        return []
    return [
        *_attention_warnings(signatures, facts),
        *_modality_warnings(signatures),
        *_learning_warnings(signatures, facts),
    ]


def _attention_warnings(signatures: FailureSignatures, facts: Facts) -> Iterator[str]:
    tasks = len(facts.tasks)
    uniform = signatures.attention_entropy > MAX_ENTROPY or signatures.self_weight < 2 / tasks
    # With two tasks, balanced attention starts at one half each.
    if tasks > 2 and uniform and facts.net.attention != "none":
        other = "none" if facts.net.attention == "balanced" else "balanced"
        yield (
            f"attention averages all {tasks} tasks: its entropy is "
            f"{signatures.attention_entropy:.3f} of 1, and a task's weight on itself is "
            f'{signatures.self_weight:.3f}; compare with attention = "{other}" under [net]'
        )


def _modality_warnings(signatures: FailureSignatures) -> Iterator[str]:
    for modality, share in signatures.influence.items():
        effect = f"{share:.1%} of all modalities' effect on log-odds"
        change = f"replacing it by another patient's has {effect}"
        gain = signatures.worth[modality]
        if share < MIN_INFLUENCE:
            yield (
                f"{modality} has no influence: {change}; check what its reader reads, "
                "or train without it (--modality)"
            )
        elif gain <= 0:
            yield (
                f"{modality} does not help: {change}, and lowers the loss by "
                f"{-gain:.2%}; raise its input_dropout under [net], "
                "or train without it (--modality)"
            )
        if share > MAX_INFLUENCE and len(signatures.influence) > 1:
            yield (
                f"{modality} dominates: {change}; check that it does not contain the outcome, "
                "raise its input_dropout under [net], or lower keep_all_modalities"
            )


def _learning_warnings(signatures: FailureSignatures, facts: Facts) -> Iterator[str]:
    names = signatures.learned_nothing
    if names:
        yield (
            f"{len(names)} of {len(facts.tasks)} tasks learned nothing, their held-out loss is not "
            f"below that of the prevalence: {', '.join(names)}; add patients with these outcomes, "
            "or leave the tasks out"
        )
    last = facts.training["epochs"]
    epochs = zip(signatures.best_epoch, signatures.epochs, strict=True)
    for number, (best, count) in enumerate(epochs, 1):
        if best <= 1:
            yield (
                f"member {number} was best at epoch {best} of {count}: it learned almost nothing "
                "that generalises to other hospitals; lower learning_rate, or check that inputs "
                "and outcomes belong to the same patients"
            )
        elif best == last:
            yield (f"member {number} was still improving at epoch {best}, its last; raise epochs")
