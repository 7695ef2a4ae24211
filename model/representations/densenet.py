"""A DenseNet as the encoder of chest X-rays, read from a file of weights.

Shapes: B patients, F the encoder's `width`.
"""

import re
from collections import OrderedDict
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from model.representations.frozen_encoder import EncoderFacts, FrozenEncoder
from model.representations.weight_files import (
    EncoderError,
    Weights,
    list_names,
    load_into,
    read_weights,
    round_matrices,
    sha256_of,
)


class DenseNetFacts(EncoderFacts):
    """Facts about a DenseNet: layers of each block, and the channels (`growth`) each layer adds."""

    kind: Literal["densenet"] = "densenet"
    channels: int
    initial: int
    growth: int
    bottleneck: int
    blocks: tuple[int, ...]


class DenseNet(FrozenEncoder):
    """The pooled features of a DenseNet (Huang et al. 2017, arXiv 1608.06993).

    Parameters have torchvision's names. A network with one input channel is torchxrayvision's,
    trained on grey values from -1024 to 1024. One with three channels was trained with ImageNet's
    normalisation on three copies of the grey value (CheXNet, torchvision).
    """

    batch_size = 64

    def __init__(self, facts: DenseNetFacts) -> None:
        features, width = _layers(facts)
        super().__init__(width)
        self.facts = facts
        grey = facts.channels == 1
        mean = (0.5,) if grey else (0.485, 0.456, 0.406)
        deviation = (1 / 2048,) if grey else (0.229, 0.224, 0.225)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1), persistent=False)
        self.mean: Tensor
        self.deviation: Tensor
        self.features = features
        self._freeze()

    def forward(self, pixels: UInt8[Tensor, "B 1 side side"]) -> Float[Tensor, "B F"]:
        return self.normalise(self.embed(pixels))

    def embed(self, inputs: UInt8[Tensor, "B 1 side side"]) -> Float[Tensor, "B F"]:
        scaled = (inputs.to(torch.float32) / 255.0 - self.mean) / self.deviation
        return F.relu(self.features(scaled)).mean(dim=(2, 3))


class _DenseLayer(nn.Module):
    """Adds `growth` channels to its input channels."""

    def __init__(self, channels: int, facts: DenseNetFacts) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, facts.bottleneck, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(facts.bottleneck)
        self.conv2 = nn.Conv2d(facts.bottleneck, facts.growth, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        added = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, added], dim=1)


def _layers(facts: DenseNetFacts) -> tuple[nn.Sequential, int]:
    """The layers before pooling, and the number of their output channels."""
    channels = facts.initial
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv0=nn.Conv2d(facts.channels, channels, 7, stride=2, padding=3, bias=False),
        norm0=nn.BatchNorm2d(channels),
        relu0=nn.ReLU(),
        pool0=nn.MaxPool2d(3, stride=2, padding=1),
    )
    for b, count in enumerate(facts.blocks, start=1):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, count + 1):
            layers[f"denselayer{i}"] = _DenseLayer(channels, facts)
            channels += facts.growth
        parts[f"denseblock{b}"] = nn.Sequential(layers)
        if b < len(facts.blocks):
            parts[f"transition{b}"] = nn.Sequential(
                OrderedDict(
                    norm=nn.BatchNorm2d(channels),
                    relu=nn.ReLU(),
                    conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
                    pool=nn.AvgPool2d(2),
                )
            )
            channels //= 2
    parts["norm5"] = nn.BatchNorm2d(channels)
    return nn.Sequential(parts), channels


def read_densenet(file: Path) -> DenseNet:
    """A DenseNet from a torch or safetensors file.

    Reads torchvision's names, also those before its version 0.2.1 (`norm.1`, `conv.1`), with any
    prefix (`module.densenet121.` of CheXNet). Layers after the pooling are ignored.
    Raises EncoderError if the file does not exist, is damaged, or holds no DenseNet.
    """
    if not file.is_file():
        raise EncoderError(f"image_encoder: there is no file {file}")
    stored = read_weights(file)
    weights = round_matrices(file, _torchvision_names(stored))
    facts = _facts(file, stored, weights)
    encoder = DenseNet(facts)
    load_into(file, encoder.features, weights)
    return encoder


def _torchvision_names(stored: Weights) -> Weights:
    """The weights before the pooling, by torchvision's current names."""
    first_layer = next((n for n in stored if n.endswith("features.conv0.weight")), "")
    prefix = first_layer.removesuffix("conv0.weight")
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
    return {
        old.sub(r"\1\2.", name.removeprefix(prefix)): weight
        for name, weight in stored.items()
        if name.startswith(prefix)
    }


def _facts(file: Path, stored: Weights, weights: Weights) -> DenseNetFacts:
    """The shape of the network, from the shapes of its weights."""
    layers = [re.fullmatch(r"denseblock(\d+)\.denselayer(\d+)\.conv2\.weight", n) for n in weights]
    blocks: dict[int, int] = {}
    for b, i in (map(int, layer.groups()) for layer in layers if layer):
        blocks[b] = max(i, blocks.get(b, 0))
    first, inner = weights.get("conv0.weight"), weights.get("denseblock1.denselayer1.conv2.weight")
    if first is None or inner is None:
        raise EncoderError(
            f"{file} is not a DenseNet: it has no features.conv0 or no first layer; "
            f"it has {list_names(stored)}"
        )
    facts = DenseNetFacts(
        name=file.name,
        digest=sha256_of(file),
        channels=first.shape[1],
        initial=first.shape[0],
        growth=inner.shape[0],
        bottleneck=inner.shape[1],
        blocks=tuple(blocks.get(b, 0) for b in range(1, max(blocks) + 1)),
    )
    if facts.channels not in (1, 3):
        raise EncoderError(f"{file} reads {facts.channels} channels; it must read 1 or 3")
    return facts
