"""The losses: one for each kind of task, over the labels that are present."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from schemas.tasks import Task

# The ends of a regression's interval, as quantiles.
INTERVAL = (0.05, 0.95)


class Losses(nn.Module):
    """The mean loss of each kind of task: `binary`, `regression`, `multiclass`, `clustering`.

    - Binary: cross-entropy, divided by the entropy of the task's prevalence. So the loss of a task
      is 1 if only its prevalence is known, and common tasks do not outweigh rare ones.
    - Multiclass: negative log-likelihood.
    - Regression: Huber loss on log-days, so that one very long stay cannot outweigh the others, and
      the pinball loss of both ends of the interval.
    - Clustering: negative log-likelihood of the prototype nearest to the patient's standardised
      statistics, which need no label. The prototypes are fixed before training (k-means): the loss
      cannot be lowered by collapsing them.

    NaN means no label.
    """

    def __init__(
        self,
        tasks: list[Task],
        prevalence: dict[str, float],
        prototypes: Float[Tensor, "clusters V"],
    ) -> None:
        super().__init__()
        self.tasks = tasks
        binary = [(i, t) for i, t in enumerate(tasks) if t.kind == "binary"]
        self.columns = [i for i, _ in binary]
        # A prevalence below 1 % counts as 1 %: a larger weight would amplify noise.
        share = torch.tensor([prevalence[t.name] for _, t in binary]).clamp(0.01, 0.99)
        entropy = -share * share.log() - (1 - share) * (1 - share).log()
        self.register_buffer("weight", 1 / entropy)
        self.weight: Tensor
        self.register_buffer("prototypes", prototypes)
        self.prototypes: Tensor

    def forward(
        self,
        raw: dict[str, Tensor],
        outcomes: Float[Tensor, "B T"],
        offset: Float[Tensor, "B T"],
        statistics: Float[Tensor, "B V"],
        active: Bool[Tensor, " T"] | None = None,
    ) -> dict[str, Tensor]:
        """The losses by kind.

        `offset`: log-odds by which the sampling of the patient's cohort raises a task above its
        prevalence. `active`: the tasks whose losses count; None for all.
        """
        counts = torch.ones_like(outcomes[0]) if active is None else active.to(outcomes.dtype)
        by_kind: dict[str, list[tuple[Tensor, Tensor]]] = {}
        if self.columns:
            mean = self._binary(raw["binary"], outcomes, offset, counts)
            by_kind["binary"] = [(mean, torch.ones_like(counts[0]))]
        for i, task in enumerate(self.tasks):
            if task.kind == "binary":
                continue
            if task.kind == "clustering":
                known = ~torch.isnan(statistics).all(dim=1)
                cluster = nearest_prototype(statistics, self.prototypes)
                losses = F.cross_entropy(raw[task.name], cluster, reduction="none")
            else:
                known = ~torch.isnan(outcomes[:, i])
                target = torch.nan_to_num(outcomes[:, i])
                if task.kind == "regression":
                    losses = _regression(raw[task.name], target)
                else:
                    losses = F.cross_entropy(raw[task.name], target.long(), reduction="none")
            by_kind.setdefault(task.kind, []).append((_mean(losses, known * 1.0), counts[i]))
        return {
            kind: _mean(*map(torch.stack, zip(*losses_and_counts, strict=True)))
            for kind, losses_and_counts in by_kind.items()
        }

    def _binary(self, raw: Tensor, outcomes: Tensor, offset: Tensor, counts: Tensor) -> Tensor:
        target = outcomes[:, self.columns]
        known = ~torch.isnan(target) * counts[self.columns]
        logits = raw + offset[:, self.columns]
        losses = F.binary_cross_entropy_with_logits(
            logits, torch.nan_to_num(target), self.weight.expand_as(target), reduction="none"
        )
        return _mean(losses, known)


def nearest_prototype(
    statistics: Float[Tensor, "N V"], prototypes: Float[Tensor, "clusters V"]
) -> Int[Tensor, " N"]:
    """The index of the nearest prototype; missing values count as the median, 0."""
    return torch.cdist(torch.nan_to_num(statistics), prototypes).argmin(dim=1)


def _regression(raw: Tensor, target: Tensor) -> Tensor:
    days = target.clamp_min(1 / 24).log()
    value, *ends = raw.unbind(1)
    losses = F.huber_loss(value, days, reduction="none")
    for end, share in zip(ends, INTERVAL, strict=True):
        miss = days - end
        losses = losses + torch.maximum(share * miss, (share - 1) * miss)
    return losses


def _mean(losses: Tensor, counts: Tensor) -> Tensor:
    """The weighted mean; 0 if nothing counts, so that it has no gradient."""
    return (losses * counts).sum() / counts.sum().clamp_min(1)
