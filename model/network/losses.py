"""One loss for each kind of problem, over the labels that are there."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from model.representations.phenotypes import nearest
from schemas.tasks import Task

# The ends of the interval of a regression, as shares of the patients below them.
INTERVAL = (0.05, 0.95)


class Losses(nn.Module):
    """The mean loss of each kind: `binary`, `regression`, `multiclass`, `clustering`.

    Binary: cross-entropy, each task's divided by the entropy of its prevalence: a task's loss is 1
    when its prevalence is all that is known, and the common tasks do not drown the rare ones.
    Multiclass: negative log-likelihood. Regression: Huber on log-days, so that one very long stay
    cannot outweigh the others, and the pinball loss of the ends of its interval. Clustering: the
    negative log-likelihood of the prototype nearest to a patient's standardised, label-free
    statistics; the prototypes are fixed before training (k-means), so that the loss cannot be
    lowered by collapsing them. NaN: no label.
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
        # No task counts more than one of a prevalence of 1 %: the rest would be noise.
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
        taking: Bool[Tensor, " T"] | None = None,
    ) -> dict[str, Tensor]:
        """`offset`: log-odds by which a cohort's sampling raises a task above its prevalence.

        `taking`: the tasks whose losses count, all if it is not given.
        """
        counts = torch.ones_like(outcomes[0]) if taking is None else taking.to(outcomes.dtype)
        found: dict[str, list[tuple[Tensor, Tensor]]] = {}
        if self.columns:
            target = outcomes[:, self.columns]
            known = ~torch.isnan(target) * counts[self.columns]
            logits = raw["binary"] + offset[:, self.columns]
            each = F.binary_cross_entropy_with_logits(
                logits, torch.nan_to_num(target), self.weight.expand_as(target), reduction="none"
            )
            found["binary"] = [(_mean(each, known), torch.ones_like(counts[0]))]
        for i, task in enumerate(self.tasks):
            known = ~torch.isnan(outcomes[:, i])
            target = torch.nan_to_num(outcomes[:, i])
            if task.kind == "regression":
                days = target.clamp_min(1 / 24).log()
                value, *ends = raw[task.name].unbind(1)
                each = F.huber_loss(value, days, reduction="none")
                for end, share in zip(ends, INTERVAL, strict=True):
                    miss = days - end
                    each = each + torch.maximum(share * miss, (share - 1) * miss)
            elif task.kind == "multiclass":
                each = F.cross_entropy(raw[task.name], target.long(), reduction="none")
            elif task.kind == "clustering":
                known = ~torch.isnan(statistics).all(dim=1)
                cluster = nearest(statistics, self.prototypes)
                each = F.cross_entropy(raw[task.name], cluster, reduction="none")
            else:
                continue
            found.setdefault(task.kind, []).append((_mean(each, known * 1.0), counts[i]))
        return {
            kind: _mean(*map(torch.stack, zip(*each_task, strict=True)))
            for kind, each_task in found.items()
        }


def _mean(each: Tensor, counts: Tensor) -> Tensor:
    """Where nothing counts it is 0: there is nothing to learn from."""
    return (each * counts).sum() / counts.sum().clamp_min(1)
