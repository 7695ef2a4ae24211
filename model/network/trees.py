"""Boosted trees as tensors, so that they are part of the graphs."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

DEPTH = 3
SPLITS, LEAVES = 2**DEPTH - 1, 2**DEPTH


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
        x = values[:, self.feature.flatten().long()].unflatten(1, self.feature.shape)
        right = (x > self.threshold) | (torch.isnan(x) & self.missing_goes_right)
        # From the leaves to the root: each split chooses between the values of its two children.
        value = self.leaf.expand(values.shape[0], -1, -1)  # not len(), which the export fixes
        for level in reversed(range(DEPTH)):
            splits = right[:, :, 2**level - 1 : 2 ** (level + 1) - 1]
            value = torch.where(splits, value[:, :, 1::2], value[:, :, 0::2])
        return value.squeeze(2).unflatten(1, (self.binary_tasks, -1)).sum(2) - self.mean
