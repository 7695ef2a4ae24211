"""Novelty of an input: how unusual it is among the training patients."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Novelty(nn.Module):
    """How unusual a representation is among those of the training patients, from 0 to 1.

    The distance is that of probabilistic principal component analysis (Tipping & Bishop 1999): the
    distance within the principal directions plus the distance from them. The score is the share of
    training patients with a smaller distance.
    """

    POINTS = 100
    RANK = 24
    IMAGE_SIDE = 16

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rank = min(self.RANK, width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.zeros(width, self.rank))
        self.register_buffer("inverse", torch.ones(self.rank))
        self.register_buffer("noise", torch.ones(()))
        self.register_buffer("quantiles", torch.arange(self.POINTS + 1.0))
        self.mean: Tensor
        self.directions: Tensor
        self.inverse: Tensor
        self.noise: Tensor
        self.quantiles: Tensor

    @classmethod
    def features_of(cls, represented: Tensor) -> Tensor:
        """Images at 16 x 16 pixels; other representations unchanged."""
        if represented.ndim == 2:
            return represented
        grey = represented.to(torch.float32) / 255.0
        return nn.functional.adaptive_avg_pool2d(grey, cls.IMAGE_SIDE).flatten(1)

    def fit(self, represented: Tensor) -> None:
        """`represented`: of the training patients. No effect with `rank` patients or fewer."""
        x = self.features_of(represented).to(torch.float64)
        if len(x) <= self.rank:
            return
        self.mean.copy_(x.mean(0))
        centred = x - self.mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
        top, rest = values[-self.rank :], values[: -self.rank]
        self.directions.copy_(vectors[:, -self.rank :])
        self.noise.copy_(rest.mean().clamp_min(1e-3) if len(rest) else torch.tensor(1e-3))
        self.inverse.copy_(1 / top.clamp_min(float(self.noise)))
        shares = torch.linspace(0.0, 1.0, self.POINTS + 1, dtype=torch.float64)
        self.quantiles.copy_(torch.quantile(self._distance(represented).double(), shares))

    def _distance(self, represented: Tensor) -> Float[Tensor, " B"]:
        centred = self.features_of(represented) - self.mean
        within = centred @ self.directions
        residual = (centred**2).sum(1) - (within**2).sum(1)
        return (within**2 * self.inverse).sum(1) + residual.clamp_min(0.0) / self.noise

    def forward(self, represented: Tensor) -> Float[Tensor, " B"]:
        excess = self._distance(represented).unsqueeze(1) - self.quantiles[:-1]
        steps = self.quantiles.diff().clamp_min(1e-6)
        return (excess / steps).clamp(0.0, 1.0).mean(dim=1)
