"""Representations of the modalities, learned without labels.

Each representation is fitted on the training patients' inputs and then fixed. It is computed once
for each sample; the members of an ensemble and the coalitions of TIM share it. Findings
(`model.knowledge.findings`) follow it, and the plain values for trees.
Shapes: B patients, W the representation's `width` and the number of its findings.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from torch import Tensor, nn

from schemas.response import Modality

# An n-gram of fewer patients teaches little and might identify a person.
MIN_PATIENTS = 5
# A token that a larger share of the patients have belongs to a form's own text.
MAX_PATIENT_SHARE = 0.95


class RobustScaler(nn.Module):
    """Scales by the training patients' median and spread, compresses tails, fills missing values.

    NaN becomes 0, the median. `asinh` keeps the order of values and is linear near the median, so
    that one extreme laboratory value cannot outweigh all others.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))
        self.centre: Tensor
        self.scale: Tensor

    def fit(self, values: Float[Tensor, "n *shape"]) -> None:
        """Sets centre and scale from training values; a column without values keeps 0 and 1."""
        # torch.nanquantile refuses more than 16 M numbers; 10,000 patients suffice for quartiles.
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


class TabularFeatures(nn.Module):
    """Scaled values, indicators of the values that are known, findings, and the values."""

    def __init__(self, features: int, findings: Any = None, *, values: bool = False) -> None:
        super().__init__()
        self.normalise = RobustScaler((features,))
        self.findings, self.values = findings, values
        self.width = 2 * features

    def fit(self, values: Float[Tensor, "n F"]) -> None:
        self.normalise.fit(values)
        if self.findings is not None:
            self.findings.fit(values)

    def forward(self, values: Float[Tensor, "B F"]) -> Float[Tensor, "B W"]:
        known = (~torch.isnan(values)).to(values.dtype)
        parts = [self.normalise(values), known]
        if self.findings is not None:
            parts.append(self.findings(values))
        if self.values:
            parts.append(values)
        return torch.cat(parts, dim=1)


class PrincipalDirections(nn.Module):
    """Projection on the directions in which the training patients differ most.

    A network trained with Adam learns rare and common inputs equally fast. Along these directions
    it learns first the features of many patients, as ridge regression does. The directions are the
    leading right singular vectors of a randomised decomposition (Halko, Martinsson & Tropp 2011),
    whose memory and time grow linearly with the number of features.
    """

    MAX_WIDTH = 512

    def __init__(self, features: int, *, centred: bool = True) -> None:
        super().__init__()
        self.centred = centred
        self.width = min(features, self.MAX_WIDTH)
        self.register_buffer("matrix", torch.zeros(features, self.width))
        self.register_buffer("centre", torch.zeros(self.width))
        self.matrix: Tensor
        self.centre: Tensor

    def fit(self, x: Any, scale: float = 1.0) -> None:
        """`x`: [n, features], a NumPy array or SciPy sparse matrix; n may be below the width.

        `scale` multiplies the directions.
        """
        components = TruncatedSVD(self.width, random_state=0).fit(x).components_
        matrix = torch.zeros_like(self.matrix)
        matrix[:, : len(components)] = torch.from_numpy(components.T) * scale
        # Half precision, as in a bundle.
        self.matrix.copy_(matrix.half())
        if not self.centred:
            return
        mean = np.asarray(x.mean(axis=0), np.float32).reshape(1, -1)
        self.centre.copy_((torch.from_numpy(mean) @ self.matrix)[0])

    def forward(self, x: Float[Tensor, "B F"]) -> Float[Tensor, "B W"]:
        return x @ self.matrix - self.centre


class SeriesFeatures(nn.Module):
    """Statistics of each variable, the measured variables, treatments; findings; and the values."""

    def __init__(
        self,
        statistics: tuple[int, int],
        treatments: tuple[int, int],
        findings: Any = None,
        *,
        values: bool = False,
    ) -> None:
        super().__init__()
        self.findings, self.values = findings, values
        self.normalise = RobustScaler(statistics)
        self.normalise_treatments = RobustScaler(treatments)
        features = math.prod(statistics) + statistics[0] + math.prod(treatments)
        self.directions = PrincipalDirections(features)
        self.width = self.directions.width

    def fit(self, statistics: Float[Tensor, "n V S"], treatments: Float[Tensor, "n R 4"]) -> None:
        self.normalise.fit(statistics)
        self.normalise_treatments.fit(treatments)
        self.directions.fit(self._scaled(statistics, treatments).numpy())
        if self.findings is not None:
            self.findings.fit(statistics)

    def forward(
        self, statistics: Float[Tensor, "B V S"], treatments: Float[Tensor, "B R 4"]
    ) -> Float[Tensor, "B W"]:
        parts = [self.directions(self._scaled(statistics, treatments))]
        if self.findings is not None:
            parts.append(self.findings(statistics, treatments))
        if self.values:
            parts += [statistics.flatten(1), treatments.flatten(1)]
        return torch.cat(parts, dim=1)

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


class BagOfWords(nn.Module):
    """The words and phrases that occur in the notes, and findings.

    Without a known word the result is 0, as without notes: silence is no evidence. Notes of any
    number and length are read whole. `words` tokens of the vocabulary are used: those
    of enough, but not of nearly all, training patients (`select_words`). Their presence is
    projected on the directions in which notes differ most (latent semantic analysis, Deerwester et
    al. 1990).
    """

    # Scale relative to the other modalities, chosen on held-out hospitals (docs/experiments.md).
    SCALE = 2.0

    def __init__(self, vocabulary: int, words: int, findings: nn.Module | None = None) -> None:
        super().__init__()
        # Without words, one feature that is always 0.
        self.words = max(words, 1)
        self.findings = findings
        self.register_buffer("column", torch.zeros(vocabulary, dtype=torch.int64))
        self.column: Tensor
        self.directions = PrincipalDirections(self.words, centred=False)
        self.width = self.directions.width

    def fit(self, words: Int[Tensor, " words"], notes: Iterable[Int[Tensor, "b L"]]) -> None:
        """`words`: the tokens to use. `notes`: the training notes, in batches of patients."""
        self.column.zero_()
        self.column[words] = torch.arange(1, len(words) + 1)
        presence = [
            sparse.csr_matrix(self._presence(self.column[tokens]).numpy()) for tokens in notes
        ]
        if presence and len(words):
            self.directions.fit(sparse.vstack(presence), self.SCALE)

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B W"]:
        projected: Tensor = self.directions(self._presence(self.column[tokens]))
        if self.findings is None:
            return projected
        return torch.cat([projected, self.findings(tokens)], dim=1)

    def _presence(self, column: Int[Tensor, "B L"]) -> Float[Tensor, "B words"]:
        """1 for a word that occurs. Column 0 collects padding and all tokens that are not used."""
        presence = torch.zeros(column.shape[0], self.words + 1, device=column.device)
        return presence.scatter(1, column, 1.0)[:, 1:]


def select_words(share: Float[Tensor, " vocabulary"], patients: int) -> Int[Tensor, " words"]:
    """The tokens that `BagOfWords` uses; never padding.

    `share`: the share of the `patients` whose notes have the token.
    """
    selected = (share * patients >= MIN_PATIENTS - 0.5) & (share <= MAX_PATIENT_SHARE)
    selected[0] = False
    return selected.nonzero().squeeze(1)


class Pixels(nn.Module):
    """The image itself; each member learns its own features."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.width = side * side

    def forward(self, pixels: UInt8[Tensor, "B 1 side side"]) -> UInt8[Tensor, "B 1 side side"]:
        return pixels


def build_representations(
    *,
    tabular: int,
    statistics: tuple[int, int],
    treatments: tuple[int, int],
    vocabulary: int,
    words: int,
    image_side: int,
    findings: Mapping[Modality, nn.Module] | None = None,
    values: Collection[Modality] = (),
) -> dict[Modality, Any]:
    """One representation for each modality, not yet fitted.

    `statistics`, `treatments`: [variables or treatments, features of each]. `values`: modalities
    whose values follow their findings, for trees.
    """
    findings = findings or {}
    return {
        "tabular": TabularFeatures(tabular, findings.get("tabular"), values="tabular" in values),
        "series": SeriesFeatures(
            statistics, treatments, findings.get("series"), values="series" in values
        ),
        "notes": BagOfWords(vocabulary, words, findings.get("notes")),
        "image": Pixels(image_side),
    }
