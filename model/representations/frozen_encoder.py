"""What pretrained encoders have in common: metadata, and the scaling of their features.

A pretrained encoder is a representation like those of `model.representations.modalities`: fixed,
computed once for each sample, and shared by the members of an ensemble and the coalitions of TIM.
Only each member's linear adapter is learned. The encoder is not fine-tuned: a few thousand patients
would overfit a hundred million weights, and each member and coalition would need its own copy.
HAIM, earlier work of M3H's authors, uses Bio_ClinicalBERT and a DenseNet-121 of torchxrayvision in
the same way (Soenksen et al. 2022, npj Digital Medicine 5:149).
Shapes: B patients, F the encoder's `width`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Self

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from model.representations.modalities import RobustScaler


class EncoderFacts(BaseModel):
    """Facts about a pretrained encoder; with the checkpoint's weights they rebuild it.

    `name`: of the file or folder, without its path. `digest`: SHA-256 of the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}, not fine-tuned; SHA-256 of its weights: {self.digest}"


class FrozenEncoder(nn.Module, ABC):
    """A pretrained network whose features are scaled by the training patients."""

    # Samples in one forward pass; limits the memory.
    batch_size: int

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.normalise = RobustScaler((width,))

    @property
    def device(self) -> torch.device:
        return self.normalise.centre.device

    @abstractmethod
    def embed(self, inputs: Tensor) -> Float[Tensor, "B F"]:
        """The network's features for tokens or pixels, before scaling."""

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fits the scaling on batches of training patients' inputs."""
        features = [self.embed(batch.to(self.device)).cpu() for batch in batches]
        if not features:
            return
        self.normalise.fit(torch.cat(features))
        # Does not amplify a feature that hardly differs between patients.
        scale = self.normalise.scale
        scale.clamp_(min=0.1 * float(scale.median()))

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 - no dropout, fixed statistics
        return super().train(False)

    def _freeze(self) -> None:
        self.eval()
        self.requires_grad_(False)
