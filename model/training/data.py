"""Samples as tensors, and their representations, which are computed once."""

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
from model.network.m3h import M3H, Member
from model.training.processes.device import CPU, Device
from model.training.processes.distributed import SINGLE_PROCESS, ProcessGroup
from schemas.response import MODALITIES, Modality

CHUNK = 1024  # samples in one forward pass
Rows = npt.NDArray[np.intp]


class SampleTensors:
    """Samples of all cohorts as tensors.

    `present` [N, 4] is False for modalities not in use. `weight` [N]: those of one patient sum to
    1.
    """

    def __init__(self, cohorts: Sequence[Cohort], modalities: Sequence[Modality]) -> None:
        samples = Samples.concatenate([c.samples for c in cohorts])
        self.samples = samples
        self.cohort = np.repeat(np.arange(len(cohorts)), [len(c.samples) for c in cohorts])
        used = np.array([m in modalities for m in MODALITIES])
        self.present = torch.from_numpy(samples.present & used)
        self.outcomes = torch.from_numpy(samples.outcomes)
        _, code, count = np.unique(samples.patient, return_inverse=True, return_counts=True)
        self.weight: npt.NDArray[np.float64] = 1 / count[code]
        has_image = samples.present[:, MODALITIES.index("image")]
        self._image_index = np.cumsum(has_image) - 1
        ends = np.cumsum(samples.lengths)
        self._tokens = [
            torch.from_numpy(samples.tokens[end - length : end])
            for end, length in zip(ends, samples.lengths, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.cohort)

    def inputs(self, modality: Modality, rows: Rows) -> dict[str, Tensor]:
        """The modality's inputs by name. All `rows` must have the modality."""
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
        return {"pixels": torch.from_numpy(samples.pixels[self._image_index[rows]])}

    def tokens(self, row: int) -> npt.NDArray[np.int32]:
        tokens: npt.NDArray[np.int32] = self._tokens[row].numpy()
        return tokens

    def rows_with(self, modality: Modality) -> Rows:
        return np.flatnonzero(self.present[:, MODALITIES.index(modality)].numpy())

    def chunks(self, modality: Modality, size: int = CHUNK) -> list[Rows]:
        """The rows that have the modality, in chunks of at most `size`."""
        rows = self.rows_with(modality)
        return np.array_split(rows, -(-len(rows) // size)) if len(rows) else []

    def token_shares(self, rows: Rows, vocabulary: int) -> tuple[Tensor, int]:
        """The share of the patients with notes among `rows` that have each token; their number."""
        rows = np.intersect1d(rows, self.rows_with("notes"))
        if not len(rows):
            return torch.zeros(vocabulary), 0
        patients, code = np.unique(self.samples.patient[rows], return_inverse=True)
        tokens = np.concatenate([self._tokens[i].numpy() for i in rows]).astype(np.int64)
        pairs = np.unique(np.repeat(code, self.samples.lengths[rows]) * vocabulary + tokens)
        counts = np.bincount(pairs % vocabulary, minlength=vocabulary)
        return torch.from_numpy(counts / len(patients)).float(), len(patients)


@dataclass(frozen=True)
class RepresentedSamples:
    """The representations of samples.

    vectors[m]: [n_m, …] of the samples that have the modality, on the device if they fit there.
    index [N, 4]: the sample's row in each modality's vectors.
    """

    vectors: Mapping[Modality, Tensor]
    index: Tensor
    device: Device = CPU

    @classmethod
    @torch.no_grad()
    def compute(
        cls,
        data: SampleTensors,
        encoders: Any,
        device: Device = CPU,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> "RepresentedSamples":
        """Each process computes a part on its device; each gets the whole result."""
        vectors: dict[Modality, Tensor] = {}
        index = (torch.cumsum(data.present, dim=0) - 1).clamp_min(0)
        for modality in MODALITIES:
            # A pretrained encoder needs smaller batches.
            size = getattr(encoders[modality].represent, "batch_size", CHUNK)
            chunks = data.chunks(modality, size)
            if chunks:
                represent = encoders[modality].represent.to(device.torch_device)
                compute = partial(_represent, data, modality, represent, device)
                parts = processes.compute_all(chunks, compute)
                vectors[modality] = device.move_if_fits(torch.cat(parts))
                represent.cpu()
        return cls(vectors, index, device)

    def select(self, rows: Tensor, present: Tensor) -> dict[Modality, Tensor]:
        """For each modality, the representations of the `rows` that have it in `present`.

        `rows` and `present` are on the CPU, the representations on the device.
        """
        return {
            m: self.vectors[m][self.index[rows[present[:, i]], i]].to(self.device.torch_device)
            for i, m in enumerate(MODALITIES)
            if present[:, i].any()
        }

    def of_modality(
        self, modality: Modality, rows: Rows, present: Tensor
    ) -> tuple[npt.NDArray[np.bool_], Tensor]:
        """Which of the `rows` have the modality [n], and the representations of those."""
        i, of_rows = MODALITIES.index(modality), torch.from_numpy(rows)
        has = present[of_rows, i]
        return has.numpy(), self.vectors[modality][self.index[of_rows[has], i]].cpu()


def _represent(
    data: SampleTensors, modality: Modality, represent: Any, device: Device, rows: Rows
) -> Any:
    inputs = {n: v.to(device.torch_device) for n, v in data.inputs(modality, rows).items()}
    return represent(**inputs)


@torch.no_grad()
def member_outputs(
    member: Member,
    represented: RepresentedSamples,
    data: SampleTensors,
    rows: Rows,
    hidden: Sequence[Modality] = (),
) -> tuple[dict[str, Tensor], Tensor]:
    """Raw outputs and attention of the samples `rows`, without the modalities `hidden`; on the CPU.

    The member must be on the device of `represented`.
    """
    shown = torch.tensor([modality not in hidden for modality in MODALITIES])
    member.eval()
    device = represented.device.torch_device
    parts = []
    for chunk in torch.from_numpy(rows).split(CHUNK):
        present = data.present[chunk] & shown
        parts.append(member(represented.select(chunk, present), present.to(device)))
    raw = {name: torch.cat([part[name].cpu() for part, _ in parts]) for name in parts[0][0]}
    return raw, torch.cat([weights.cpu() for _, weights in parts])


def ensemble_outputs(
    net: M3H, represented: RepresentedSamples, data: SampleTensors, rows: Rows
) -> tuple[dict[str, Tensor], Tensor]:
    """The mean of `member_outputs` over the members."""
    outputs = [
        member_outputs(net.member(k), represented, data, rows)
        for k in range(len(net.fusion.members))
    ]
    raw = {name: torch.stack([r[name] for r, _ in outputs]).mean(0) for name in outputs[0][0]}
    return raw, torch.stack([weights for _, weights in outputs]).mean(0)
