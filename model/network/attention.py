"""Cross-task attention: each task's features become a weighted mean over all tasks."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from model.network.config import NetConfig


class CrossTaskAttention(nn.Module):
    """Attention between tasks (arXiv 2404.18975, in two forms).

    W are the attention weights, M the scores, T the tasks, K `task_width`.

    - `published`: W = softmax(I + M / max M). The identity is the paper's self-exploitation.
    - `balanced`: M / sqrt(K), plus gamma + ln(T - 1) on the diagonal. gamma is learned for each
      task and starts at 0, so that at the start a task's weights on itself and on all others are
      one half each, whatever T is. A single task has W = 1.
    - `none`: W is the identity.

    No residual path goes around W, so that W describes the whole flow between tasks.

    `same_group` [T, T]: whether two tasks are in the same group. `active` [T]: the tasks that take
    part. A task attends only to active tasks of its own group; T and M are counted over these.
    """

    def __init__(
        self, tasks: int, config: NetConfig, same_group: Bool[Tensor, "T T"] | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("same_group", same_group, persistent=False)
        self.same_group: Tensor | None
        width = config.task_width
        self.form = config.attention
        self.query = nn.Parameter(torch.randn(tasks, width) / math.sqrt(width))
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.value.weight)
        self.gamma = nn.Parameter(torch.zeros(tasks))
        self.alpha = nn.Parameter(torch.ones(()))

    def forward(
        self,
        x: Float[Tensor, "B V T K"],
        view: Int[Tensor, " T"],
        active: Bool[Tensor, " T"] | None = None,
    ) -> tuple[Float[Tensor, "B T K"], Float[Tensor, "B T T"]]:
        """Attended features and weights W.

        `x`: the tasks' features in each view. `view`: the view in which a task reads all others.
        """
        rows = torch.arange(len(view), device=view.device)
        identity = torch.eye(len(view), device=x.device, dtype=x.dtype)
        if self.form == "none":
            return self.value(x)[:, view, rows], identity.expand(len(x), -1, -1)
        allowed = self._allowed(active)
        scores = torch.matmul(self.query, self.key(x).transpose(2, 3))
        if self.form == "published":
            # All scores may be zero for a patient without data: M / max M is then taken as zero.
            peak = _mask(scores, allowed).amax(dim=3)
            peak = _mask(peak.unsqueeze(2), allowed).amax(dim=3, keepdim=True)
            scores = scores / torch.where(peak == 0, 1.0, peak) + identity
        else:
            others = torch.full_like(self.gamma, len(view) - 1)
            if allowed is not None:
                others = allowed.sum(1) - 1
            scores = self.alpha * scores / math.sqrt(x.shape[-1])
            scores = scores + identity * (self.gamma + others.clamp_min(1).log())
        weights = torch.softmax(_mask(scores, allowed), dim=-1)
        attended = torch.matmul(weights, self.value(x))
        return attended[:, view, rows], weights[:, view, rows]

    def _allowed(self, active: Tensor | None) -> Tensor | None:
        """[T, T] which tasks a task may attend to; None for all.

        A task may always attend to itself, so that its weights are defined.
        """
        if active is None:
            return self.same_group
        allowed = active if self.same_group is None else self.same_group & active
        return allowed | torch.eye(len(active), dtype=torch.bool, device=active.device)


def _mask(scores: Tensor, allowed: Tensor | None) -> Tensor:
    return scores if allowed is None else scores.masked_fill(~allowed, -math.inf)
