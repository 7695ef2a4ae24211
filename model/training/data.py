"""Samples as tensors, represented once, ready to be dealt in batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.cohorts.samples import Samples
from model.cohorts.store import Cohort
from model.network.net import M3H, Member
from model.training.device import CPU, Device
from model.training.distributed import ALONE, Processes
from schemas.response import MODALITIES, Modality

CHUNK = 1024
Rows = npt.NDArray[np.intp]


class Data:
    """Samples of all cohorts as tensors. `present` [N, 4] holds only the modalities in use."""

    def __init__(self, cohorts: Sequence[Cohort], modalities: Sequence[Modality]) -> None:
        samples = Samples.concatenate([c.samples for c in cohorts])
        self.samples = samples
        self.cohort = np.repeat(np.arange(len(cohorts)), [len(c.samples) for c in cohorts])
        used = np.array([m in modalities for m in MODALITIES])
        self.present = torch.from_numpy(samples.present & used)
        self.outcomes = torch.from_numpy(samples.outcomes)
        has_image = samples.present[:, MODALITIES.index("image")]
        self._image_of = np.cumsum(has_image) - 1
        ends = np.cumsum(samples.lengths)
        self._tokens = [
            torch.from_numpy(samples.tokens[end - length : end])
            for end, length in zip(ends, samples.lengths, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.cohort)

    def inputs(self, modality: Modality, rows: Rows) -> dict[str, Tensor]:
        """The modality's inputs of those `rows`, all of which have it."""
        samples = self.samples
        if modality == "tabular":
            return {"values": torch.from_numpy(samples.tabular[rows])}
        if modality == "series":
            return {
                "statistics": torch.from_numpy(samples.statistics[rows]),
                "treatments": torch.from_numpy(samples.treatments[rows]),
            }
        if modality == "notes":
            lists = [self._tokens[i] for i in rows]
            return {"tokens": nn.utils.rnn.pad_sequence(lists, batch_first=True).long()}
        return {"pixels": torch.from_numpy(samples.pixels[self._image_of[rows]])}

    def tokens(self, row: int) -> npt.NDArray[np.int32]:
        found: npt.NDArray[np.int32] = self._tokens[row].numpy()
        return found

    def rows_with(self, modality: Modality) -> Rows:
        return np.flatnonzero(self.present[:, MODALITIES.index(modality)].numpy())

    def chunks(self, modality: Modality, most: int = CHUNK) -> list[Rows]:
        """The rows that have the modality, at most so many at a time."""
        rows = self.rows_with(modality)
        return np.array_split(rows, -(-len(rows) // most)) if len(rows) else []

    def token_shares(self, rows: Rows, vocabulary: int) -> tuple[Tensor, int]:
        """The share of the patients among `rows` that have each token, and how many there are."""
        rows = np.intersect1d(rows, self.rows_with("notes"))
        if not len(rows):
            return torch.zeros(vocabulary), 0
        patients, code = np.unique(self.samples.patient[rows], return_inverse=True)
        tokens = np.concatenate([self._tokens[i].numpy() for i in rows]).astype(np.int64)
        pairs = np.unique(np.repeat(code, self.samples.lengths[rows]) * vocabulary + tokens)
        counts = np.bincount(pairs % vocabulary, minlength=vocabulary)
        return torch.from_numpy(counts / len(patients)).float(), len(patients)


@dataclass(frozen=True)
class Represented:
    """Each modality's representation of the samples that have it, and where each sample's is.

    vectors[m]: [n_m, …], on the device if they fit; place [N, 4]: the sample's row in it.
    """

    vectors: Mapping[Modality, Tensor]
    place: Tensor
    device: Device = CPU

    @classmethod
    @torch.no_grad()
    def of(
        cls, data: Data, encoders: Any, device: Device = CPU, processes: Processes = ALONE
    ) -> "Represented":
        """Computed on the device; each of the processes computes a part, and has all."""
        vectors: dict[Modality, Tensor] = {}
        place = (torch.cumsum(data.present, dim=0) - 1).clamp_min(0)
        for modality in MODALITIES:
            # Memory holds few samples of a pretrained encoder.
            chunks = data.chunks(modality, getattr(encoders[modality].represent, "at_once", CHUNK))
            if chunks:
                represent = encoders[modality].represent.to(device.where)
                of_chunk = partial(_represent, data, modality, represent, device)
                vectors[modality] = device.keep(torch.cat(processes.share(chunks, of_chunk)))
                represent.cpu()
        return cls(vectors, place, device)

    def at(self, rows: Tensor, present: Tensor) -> dict[Modality, Tensor]:
        """For each modality, the representations of those `rows` that have it in `present`.

        `rows` and `present` on the CPU, the representations on the device.
        """
        return {
            m: self.vectors[m][self.place[rows[present[:, i]], i]].to(self.device.where)
            for i, m in enumerate(MODALITIES)
            if present[:, i].any()
        }


def _represent(data: Data, modality: Modality, represent: Any, device: Device, rows: Rows) -> Any:
    inputs = {n: v.to(device.where) for n, v in data.inputs(modality, rows).items()}
    return represent(**inputs)


@torch.no_grad()
def member_outputs(
    member: Member, represented: Represented, data: Data, rows: Rows
) -> tuple[dict[str, Tensor], Tensor]:
    """Raw outputs and attention of the samples at `rows`, with every modality that is there.

    The member is on the device of `represented`; what it says is on the CPU.
    """
    member.eval()
    parts = []
    for some in torch.from_numpy(rows).split(CHUNK):
        present = data.present[some]
        parts.append(member(represented.at(some, present), present.to(represented.device.where)))
    raw = {name: torch.cat([part[name].cpu() for part, _ in parts]) for name in parts[0][0]}
    return raw, torch.cat([weights.cpu() for _, weights in parts])


def raw_outputs(
    net: M3H, represented: Represented, data: Data, rows: Rows
) -> tuple[dict[str, Tensor], Tensor]:
    """The same of the whole ensemble: the mean over its members."""
    found = [
        member_outputs(net.member(k), represented, data, rows)
        for k in range(len(net.fusion.members))
    ]
    raw = {name: torch.stack([r[name] for r, _ in found]).mean(0) for name in found[0][0]}
    return raw, torch.stack([weights for _, weights in found]).mean(0)
