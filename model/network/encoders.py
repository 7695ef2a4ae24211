"""Encoders: the representation of a modality to the embeddings of the ensemble's members.

Shapes: B patients, E members of the ensemble, D `trunks` x `width`, L binary tasks, W the width of
the representation, K the number of its findings. A member's embedding has D features for the
network, and then L log-odds of evidence and L of trees, which the findings and the values of the
modality add to the tasks.
"""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from model.network.config import NetConfig
from model.network.trees import Trees
from model.representations.modalities import Pixels
from model.representations.novelty import Novelty
from schemas.response import Modality


def of_one_task(name: str) -> bool:
    """Whether the weight of an encoder is fitted for each task alone, not trained."""
    return ".evidence." in name or ".trees." in name


class ModalityEncoder(nn.Module):
    """The encoder of one modality: one shared representation and one adapter for each member.

    Returns the members' embeddings side by side, and the novelty of the input (0 to 1).
    """

    def __init__(
        self,
        modality: Modality,
        represent: Any,
        config: NetConfig,
        members: int,
        binary_tasks: int,
    ) -> None:
        super().__init__()
        self.represent = represent
        pixels = isinstance(represent, Pixels)
        self.width = Novelty.IMAGE_SIDE**2 if pixels else represent.width
        self.ordinary = Novelty(self.width)
        findings = getattr(represent, "findings", None)
        count = 0 if findings is None else len(findings.names)
        self.adapters = nn.ModuleList(
            ImageAdapter(config, binary_tasks)
            if pixels
            else LinearAdapter(modality, represent.width, count, config, binary_tasks)
            for _ in range(members)
        )

    def forward(self, *inputs: Tensor) -> tuple[Float[Tensor, "B ED"], Float[Tensor, " B"]]:
        """`inputs`: the modality's inputs, in the order of the representation's parameters."""
        represented = self.represent(*inputs)
        embedding = torch.cat([adapter(represented) for adapter in self.adapters], dim=1)
        return embedding, self.novelty(represented)

    def novelty(self, represented: Tensor) -> Float[Tensor, " B"]:
        """The novelty of represented inputs, 0 to 1. Findings have no part in it."""
        learned = represented if represented.ndim > 2 else represented[:, : self.width]
        novelty: Tensor = self.ordinary(learned)
        return novelty


class Evidence(nn.Module):
    """The log-odds that findings add to the binary tasks, relative to their mean.

    `model.knowledge.evidence` fits the weights [L, K]; the network is trained on top of them.
    """

    def __init__(self, findings: int, binary_tasks: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(binary_tasks, findings))
        self.register_buffer("mean", torch.zeros(binary_tasks))
        self.weight: Tensor
        self.mean: Tensor

    def forward(self, findings: Float[Tensor, "B K"]) -> Float[Tensor, "B L"]:
        return findings @ self.weight.T - self.mean


class LinearAdapter(nn.Module):
    """A member's own part of an encoder: dropout and one linear layer, evidence, and trees."""

    def __init__(
        self, modality: Modality, features: int, findings: int, config: NetConfig, binary_tasks: int
    ) -> None:
        super().__init__()
        self.features, self.findings = features, findings
        self.dropout = nn.Dropout(config.input_dropout[modality])
        # Without a bias, notes without a known word are the same as no notes.
        self.linear = nn.Linear(features, config.trunks * config.width, bias=modality != "notes")
        self.evidence = Evidence(findings, binary_tasks)
        self.trees = Trees(config.tree_count(modality), binary_tasks)

    def forward(self, represented: Float[Tensor, "B W"]) -> Float[Tensor, "B DLL"]:
        embedding = self.linear(self.dropout(represented[:, : self.features]))
        end = self.features + self.findings
        evidence = self.evidence(represented[:, self.features : end])
        return torch.cat([embedding, evidence, self.trees(represented[:, self.features :])], dim=1)


def without_trees(member: Any) -> Any:
    """Removes the trees from the adapters of a member, and returns it. They add 0 to each task."""
    for adapter in member.adapters.values():
        if isinstance(adapter, LinearAdapter):
            adapter.trees = Trees(0, adapter.trees.binary_tasks)
    return member


class ImageAdapter(nn.Module):
    """A member's own image encoder: a small residual network. Images have no findings.

    Group normalisation, because a batch may hold a single image.
    """

    def __init__(self, config: NetConfig, binary_tasks: int) -> None:
        super().__init__()
        self.binary_tasks = binary_tasks
        stages: list[nn.Module] = []
        previous = 1
        for channels in config.image_channels:
            stages += [
                nn.Conv2d(previous, channels, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(8, channels),
                nn.GELU(),
                ResidualBlock(channels),
            ]
            previous = channels
        self.stages = nn.Sequential(*stages)
        self.project = nn.Sequential(
            nn.Dropout(config.input_dropout["image"]),
            nn.Linear(previous, config.trunks * config.width),
        )

    def forward(self, pixels: UInt8[Tensor, "B 1 side side"]) -> Float[Tensor, "B DLL"]:
        grey = pixels.to(torch.float32) / 255.0
        mean = grey.mean(dim=(2, 3), keepdim=True)
        spread = torch.sqrt(((grey - mean) ** 2).mean(dim=(2, 3), keepdim=True) + 1e-4)
        embedding = self.project(self.stages((grey - mean) / spread).mean(dim=(2, 3)))
        return F.pad(embedding, (0, 2 * self.binary_tasks))


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return F.gelu(x + self.norm(self.conv(x)))
