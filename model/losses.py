"""One loss for each kind of problem, over the labels that are there."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from model.phenotypes import nearest
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
    ) -> dict[str, Tensor]:
        """`offset`: log-odds by which a cohort's sampling raises a task above its prevalence."""
        losses: dict[str, list[Tensor]] = {}
        if self.columns:
            target = outcomes[:, self.columns]
            known = ~torch.isnan(target)
            logits = (raw["binary"] + offset[:, self.columns])[known]
            weight = self.weight.expand_as(target)[known]
            loss = F.binary_cross_entropy_with_logits(logits, target[known], weight)
            losses["binary"] = [loss]
        for i, task in enumerate(self.tasks):
            known = ~torch.isnan(outcomes[:, i])
            target = outcomes[known, i]
            if task.kind == "regression":
                days = target.clamp_min(1 / 24).log()
                value, *ends = raw[task.name][known].unbind(1)
                loss = F.huber_loss(value, days)
                for end, share in zip(ends, INTERVAL, strict=True):
                    miss = days - end
                    loss = loss + torch.maximum(share * miss, (share - 1) * miss).mean()
            elif task.kind == "multiclass":
                loss = F.cross_entropy(raw[task.name][known], target.long())
            elif task.kind == "clustering":
                known = ~torch.isnan(statistics).all(dim=1)
                loss = F.cross_entropy(
                    raw[task.name][known], nearest(statistics[known], self.prototypes)
                )
            else:
                continue
            losses.setdefault(task.kind, []).append(loss)
        # A batch without any label of a kind gives NaN there: nothing to learn from.
        return {kind: torch.stack(found).mean().nan_to_num() for kind, found in losses.items()}
