"""What a modality looks like before anything is learned from a label.

Each representation is fitted on the training patients' inputs alone and then fixed: the members of
an ensemble, and the coalitions of TIM, share it, and it is computed once for each sample.
Shapes: B patients, F the representation's `width`.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from torch import Tensor, nn

from schemas.response import Modality

# An n-gram of fewer patients than this teaches little, and could tell who somebody is.
FEWEST_PATIENTS = 5
# A token of more than this share of the patients is a form's own text.
MOST_PATIENTS = 0.95


class Normalise(nn.Module):
    """Missing-aware scaling: median and spread of the training patients, tails compressed.

    NaN becomes 0, the median. `asinh` keeps order and is linear around it, so that one extreme
    laboratory value cannot outweigh all else.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))
        self.centre: Tensor
        self.scale: Tensor

    def fit(self, values: Float[Tensor, "n *shape"]) -> None:
        """Takes centre and scale from training values; columns never seen stay as they are."""
        # torch.nanquantile refuses more than 16 M numbers; 10,000 patients tell the quartiles.
        values = values[:: max(1, len(values) // 10_000)]
        quartiles = torch.nanquantile(values, torch.tensor([0.25, 0.5, 0.75]), dim=0)
        spread = (quartiles[2] - quartiles[0]) / 1.349
        deviation = torch.sqrt(torch.nanmean((values - quartiles[1]) ** 2, dim=0))
        scale = torch.where(spread > 1e-6, spread, deviation)
        self.centre.copy_(torch.nan_to_num(quartiles[1], nan=0.0))
        self.scale.copy_(torch.where(scale > 1e-6, scale, torch.ones_like(scale)))

    def forward(self, values: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        scaled = torch.asinh((values - self.centre) / self.scale)
        return torch.where(torch.isnan(values), torch.zeros_like(scaled), scaled)


class Tabular(nn.Module):
    """Scaled values, and which of them are known."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.normalise = Normalise((features,))
        self.width = 2 * features

    def fit(self, values: Float[Tensor, "n F"]) -> None:
        self.normalise.fit(values)

    def forward(self, values: Float[Tensor, "B F"]) -> Float[Tensor, "B W"]:
        known = (~torch.isnan(values)).to(values.dtype)
        return torch.cat([self.normalise(values), known], dim=1)


class Directions(nn.Module):
    """The directions in which training patients differ most.

    A network that is trained with Adam learns rare and common inputs equally fast; along these
    directions it learns first what many patients have, as ridge regression does. They are the
    leading right singular vectors, found at random (Halko, Martinsson & Tropp 2011): in memory and
    time they grow with the features, not with their square.
    """

    MOST = 512

    def __init__(self, features: int) -> None:
        super().__init__()
        self.width = min(features, self.MOST)
        self.register_buffer("matrix", torch.zeros(features, self.width))
        self.register_buffer("centre", torch.zeros(self.width))
        self.matrix: Tensor
        self.centre: Tensor

    def fit(self, x: Any, loudness: float = 1.0) -> None:
        """`x`: [n, features], a NumPy array or SciPy sparse matrix; n may be below the width.

        `loudness`: what the directions are multiplied by.
        """
        found = TruncatedSVD(self.width, random_state=0).fit(x).components_
        matrix = torch.zeros_like(self.matrix)
        matrix[:, : len(found)] = torch.from_numpy(found.T) * loudness
        # In half precision, as a bundle stores them.
        self.matrix.copy_(matrix.half())
        mean = np.asarray(x.mean(axis=0), np.float32).reshape(1, -1)
        self.centre.copy_((torch.from_numpy(mean) @ self.matrix)[0])

    def forward(self, x: Float[Tensor, "B F"]) -> Float[Tensor, "B W"]:
        return x @ self.matrix - self.centre


class Series(nn.Module):
    """Statistics of each variable, whether it was measured at all, and treatments."""

    def __init__(self, statistics: tuple[int, int], treatments: tuple[int, int]) -> None:
        super().__init__()
        self.normalise = Normalise(statistics)
        self.normalise_treatments = Normalise(treatments)
        features = math.prod(statistics) + statistics[0] + math.prod(treatments)
        self.directions = Directions(features)
        self.width = self.directions.width

    def fit(self, statistics: Float[Tensor, "n V S"], treatments: Float[Tensor, "n R 4"]) -> None:
        self.normalise.fit(statistics)
        self.normalise_treatments.fit(treatments)
        self.directions.fit(self._scaled(statistics, treatments).numpy())

    def forward(
        self, statistics: Float[Tensor, "B V S"], treatments: Float[Tensor, "B R 4"]
    ) -> Float[Tensor, "B W"]:
        directed: Tensor = self.directions(self._scaled(statistics, treatments))
        return directed

    def _scaled(
        self, statistics: Float[Tensor, "B V S"], treatments: Float[Tensor, "B R 4"]
    ) -> Float[Tensor, "B F"]:
        measured = (~torch.isnan(statistics[:, :, 0])).to(statistics.dtype)
        parts = [
            self.normalise(statistics).flatten(1),
            measured,
            self.normalise_treatments(treatments).flatten(1),
        ]
        return torch.cat(parts, dim=1)


class Words(nn.Module):
    """Which words and phrases occur anywhere in the notes; and how much of them is unknown.

    Any number, none of them cut. `words` of the vocabulary are kept: those of enough, and not of
    nearly all, training patients. Their presence is told along the directions in which notes
    differ most (latent semantic analysis, Deerwester et al. 1990).
    """

    # How loud beside the other modalities: chosen on hospitals held out (docs/experiments.md).
    LOUDNESS = 2.0

    def __init__(self, vocabulary: int, words: int) -> None:
        super().__init__()
        self.words = words
        self.register_buffer("column", torch.zeros(vocabulary, dtype=torch.int64))
        self.column: Tensor
        self.directions = Directions(words)
        self.width = self.directions.width + 1

    def fit(self, words: Int[Tensor, " words"], notes: Iterable[Int[Tensor, "b L"]]) -> None:
        """`words` to keep; the training `notes`, some patients at a time."""
        self.column.zero_()
        self.column[words] = torch.arange(1, len(words) + 1)
        there = [sparse.csr_matrix(self._there(self.column[tokens]).numpy()) for tokens in notes]
        if there:
            self.directions.fit(sparse.vstack(there), self.LOUDNESS)

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B W"]:
        column = self.column[tokens]
        given = (tokens != 0).sum(dim=1)
        kept = (column != 0).sum(dim=1)
        unknown = (given - kept) / given.clamp_min(1)
        about = self.directions(self._there(column))
        return torch.cat([about, unknown.unsqueeze(1).to(about.dtype)], dim=1)

    def _there(self, column: Int[Tensor, "B L"]) -> Float[Tensor, "B words"]:
        """1 where a word is there. Column 0 takes all that is not kept, padding among it."""
        there = torch.zeros(column.shape[0], self.words + 1, device=column.device)
        return there.scatter(1, column, 1.0)[:, 1:]


def kept_words(share: Float[Tensor, " vocabulary"], patients: int) -> Int[Tensor, " words"]:
    """The tokens that `Words` keeps, padding never."""
    keep = (share * patients >= FEWEST_PATIENTS - 0.5) & (share <= MOST_PATIENTS)
    keep[0] = False
    return keep.nonzero().squeeze(1)


class Pixels(nn.Module):
    """The image itself: what it shows is learned by each member."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.width = side * side

    def forward(self, pixels: UInt8[Tensor, "B 1 side side"]) -> UInt8[Tensor, "B 1 side side"]:
        return pixels


class Ordinary(nn.Module):
    """How unusual a representation is among those of the training patients, from 0 to 1.

    The distance of probabilistic principal component analysis (Tipping & Bishop 1999): how far out
    in the directions in which patients differ, and how far from these directions. The answer is the
    share of training patients that are less far out.
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
        """Pixels are compared at 16 x 16, all else as it is."""
        if represented.ndim == 2:
            return represented
        grey = represented.to(torch.float32) / 255.0
        return nn.functional.adaptive_avg_pool2d(grey, cls.IMAGE_SIDE).flatten(1)

    def fit(self, represented: Tensor) -> None:
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
        along = centred @ self.directions
        beside = (centred**2).sum(1) - (along**2).sum(1)
        return (along**2 * self.inverse).sum(1) + beside.clamp_min(0.0) / self.noise

    def forward(self, represented: Tensor) -> Float[Tensor, " B"]:
        beyond = self._distance(represented).unsqueeze(1) - self.quantiles[:-1]
        steps = self.quantiles.diff().clamp_min(1e-6)
        return (beyond / steps).clamp(0.0, 1.0).mean(dim=1)


def make_representations(
    *,
    tabular: int,
    statistics: tuple[int, int],
    treatments: tuple[int, int],
    vocabulary: int,
    words: int,
    image_side: int,
) -> dict[Modality, Any]:
    """One representation for each modality, not yet fitted."""
    return {
        "tabular": Tabular(tabular),
        "series": Series(statistics, treatments),
        "notes": Words(vocabulary, words),
        "image": Pixels(image_side),
    }
