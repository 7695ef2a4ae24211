"""Boosted trees as tensors, so that they are part of the graphs."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

DEPTH = 3
SPLITS, LEAVES = 2**DEPTH - 1, 2**DEPTH
# The left children of a level before the right ones, for splits and for leaves.
_ORDER = [0, 1, 2, 3, 5, 4, 6]
_LEAF_ORDER = [0, 4, 2, 6, 1, 5, 3, 7]


class Trees(nn.Module):
    """The log-odds that trees add to the binary tasks, relative to their mean.

    Each task has N trees of depth 3. `feature`, `threshold`, `missing_goes_right` [L * N, 7]: the
    splits, level by level; a value above its threshold goes to the right. `leaf` [L * N, 8].
    `model.training.per_task.trees` fits them.
    """

    def __init__(self, trees: int, binary_tasks: int) -> None:
        super().__init__()
        self.binary_tasks = binary_tasks
        count = trees * binary_tasks
        self.register_buffer("feature", torch.zeros(count, SPLITS, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(count, SPLITS))
        self.register_buffer("missing_goes_right", torch.zeros(count, SPLITS, dtype=torch.bool))
        self.register_buffer("leaf", torch.zeros(count, LEAVES))
        self.register_buffer("mean", torch.zeros(binary_tasks))
        self.feature: Tensor
        self.threshold: Tensor
        self.missing_goes_right: Tensor
        self.leaf: Tensor
        self.mean: Tensor

    def forward(self, values: Float[Tensor, "B F"]) -> Float[Tensor, "B L"]:
        """`values`: NaN where missing."""
        if not len(self.leaf):
            return values.new_zeros(values.shape[0], self.binary_tasks)
        # Few operations on contiguous blocks: a missing value is -inf or inf, as its split needs,
        # and the left children of a level come before the right ones.
        infinity = torch.full_like(values, torch.inf)
        missing = torch.isnan(values)
        filled = [torch.where(missing, -infinity, values), torch.where(missing, infinity, values)]
        column = self.feature + values.shape[1] * self.missing_goes_right
        splits = column.T[_ORDER].flatten().long()
        right = torch.cat(filled, dim=1)[:, splits].unflatten(1, (SPLITS, -1))
        right = right > self.threshold.T[_ORDER]
        leaves = self.leaf.T[_LEAF_ORDER]
        value = torch.where(right[:, 3:], leaves[4:], leaves[:4])
        value = torch.where(right[:, 1:3], value[:, 2:], value[:, :2])
        value = torch.where(right[:, 0], value[:, 1], value[:, 0])
        return value.unflatten(1, (self.binary_tasks, -1)).sum(2) - self.mean
