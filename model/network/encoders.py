"""Encoders: the representation of a modality to the embeddings of the ensemble's members.

Shapes: B patients, E members of the ensemble, D `trunks` x `width`.
"""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from model.network.config import NetConfig
from model.representations.modalities import Pixels
from model.representations.novelty import Novelty
from schemas.response import Modality


class ModalityEncoder(nn.Module):
    """The encoder of one modality: one shared representation and one adapter for each member.

    Returns the members' embeddings side by side, and the novelty of the input (0 to 1).
    """

    def __init__(self, modality: Modality, represent: Any, config: NetConfig, members: int) -> None:
        super().__init__()
        self.represent = represent
        pixels = isinstance(represent, Pixels)
        self.ordinary = Novelty(Novelty.IMAGE_SIDE**2 if pixels else represent.width)
        self.adapters = nn.ModuleList(
            ImageAdapter(config) if pixels else LinearAdapter(modality, represent.width, config)
            for _ in range(members)
        )

    def forward(self, *inputs: Tensor) -> tuple[Float[Tensor, "B ED"], Float[Tensor, " B"]]:
        """`inputs`: the modality's inputs, in the order of the representation's parameters."""
        represented = self.represent(*inputs)
        embedding = torch.cat([adapter(represented) for adapter in self.adapters], dim=1)
        return embedding, self.ordinary(represented)


class LinearAdapter(nn.Sequential):
    """A member's own part of an encoder: dropout and one linear layer."""

    def __init__(self, modality: Modality, features: int, config: NetConfig) -> None:
        dropout = nn.Dropout(config.input_dropout[modality])
        super().__init__(dropout, nn.Linear(features, config.trunks * config.width))


class ImageAdapter(nn.Module):
    """A member's own image encoder: a small residual network.

    Group normalisation, because a batch may hold a single image.
    """

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
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

    def forward(self, pixels: UInt8[Tensor, "B 1 side side"]) -> Float[Tensor, "B D"]:
        grey = pixels.to(torch.float32) / 255.0
        mean = grey.mean(dim=(2, 3), keepdim=True)
        spread = torch.sqrt(((grey - mean) ** 2).mean(dim=(2, 3), keepdim=True) + 1e-4)
        return self.project(self.stages((grey - mean) / spread).mean(dim=(2, 3)))


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return F.gelu(x + self.norm(self.conv(x)))
