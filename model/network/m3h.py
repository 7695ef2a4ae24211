"""M3H, the network: encoders, fusion with cross-task attention, heads, calibration, ensemble.

Read from the bottom: `M3H` is the whole network; the classes above it are its parts. Shapes:
B patients, T tasks, L binary tasks, M = 4 modalities, E members of the ensemble, D `width`,
K `task_width`, V views (distinct sets of modalities that tasks see). A member's embedding has D
features, L log-odds of evidence and L log-odds of trees. Every step from an input to a served
number is in this package or in `model.representations`, so that all of them are in the ONNX graphs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from model.network.attention import CrossTaskAttention
from model.network.config import NetConfig
from model.network.encoders import ModalityEncoder, of_one_task
from model.network.heads import EVIDENCE, TREES, Heads, OutputCalibration
from schemas.response import MODALITIES, Modality
from schemas.tasks import Task

# Calibration distinguishes the sets of these modalities. Notes are left out, because silent notes
# are the same as no notes.
SUBSET_MODALITIES: tuple[Modality, ...] = ("tabular", "series", "image")


def subset_number(
    present: Bool[Tensor, "B M"], visible: Float[Tensor, "M L"]
) -> Int[Tensor, "B L"]:
    """The number of the set of SUBSET_MODALITIES that each task sees, 0 (none) to 7."""
    columns = [MODALITIES.index(modality) for modality in SUBSET_MODALITIES]
    place = 2.0 ** torch.arange(len(columns), device=present.device)
    seen = visible[columns] * place.unsqueeze(1)
    return (present[:, columns].to(seen.dtype) @ seen).to(torch.int64)


class Fusion(nn.Module):
    """Embeddings to raw outputs: trunk, projection for each task, cross-task attention, heads.

    The evidence of the modalities is added to the outputs of the binary tasks; that of their trees
    is an output of its own.
    A learned constant (`stand_in`; 0 for notes) replaces an absent modality and one that is hidden
    from a task.
    A task that sees fewer modalities gets a fused vector without the others, and attends to the
    other tasks as they are without them: a hidden modality cannot leak through attention.
    """

    def __init__(
        self, tasks: Sequence[Task], visible: Bool[Tensor, "T M"], config: NetConfig
    ) -> None:
        super().__init__()
        views, view = torch.unique(visible, dim=0, return_inverse=True)
        self.register_buffer("views", views)
        self.register_buffer("view", view)
        self.views: Tensor
        self.view: Tensor
        group = torch.tensor([config.group_of(task.name) for task in tasks])
        binary = torch.tensor([task.kind == "binary" for task in tasks])
        self.register_buffer("visible_binary", visible[binary].T.float(), persistent=False)
        self.visible_binary: Tensor
        # Log-odds of calibration, for each set of modalities that a task sees (`subset_number`).
        subsets = torch.zeros(2 ** len(SUBSET_MODALITIES), int(binary.sum()))
        self.register_buffer("subset_shift", subsets)
        self.subset_shift: Tensor
        self.register_buffer("group", group, persistent=False)
        self.group: Tensor
        self.trunks = config.trunks
        self.stand_in = nn.Parameter(torch.zeros(len(MODALITIES), config.trunks * config.width))
        # No notes are the same as notes that say nothing, whose embedding is 0.
        has_stand_in = torch.tensor([[m != "notes"] for m in MODALITIES])
        self.register_buffer("has_stand_in", has_stand_in.float(), persistent=False)
        self.has_stand_in: Tensor
        # Drops the same units in all views, so that the random numbers do not depend on V.
        self.dropout = nn.Dropout1d(config.dropout)
        # Keeps the variance of the signal. With smaller weights the rare tasks do not learn.
        bound = math.sqrt(3 / config.width)
        self.project = nn.Parameter(
            torch.empty(len(tasks), config.width, config.task_width).uniform_(-bound, bound)
        )
        same_group = group[:, None] == group if self.trunks > 1 else None
        self.attention = CrossTaskAttention(len(tasks), config, same_group)
        self.heads = Heads(tasks, config)

    @torch.no_grad()
    def copy_from(self, source: "Fusion", rows: Sequence[int]) -> None:
        """Copies the weights of the source's tasks `rows`."""
        mine, theirs = self.attention, source.attention
        for target, original in (
            (self.project, source.project),
            (mine.query, theirs.query),
            (mine.gamma, theirs.gamma),
        ):
            target.copy_(original[list(rows)])
        self.stand_in.copy_(source.stand_in)
        mine.alpha.copy_(theirs.alpha)
        mine.key.load_state_dict(theirs.key.state_dict())
        mine.value.load_state_dict(theirs.value.state_dict())
        self.heads.copy_from(source.heads, rows)

    def forward(
        self,
        embeddings: Float[Tensor, "B M DLL"],
        present: Bool[Tensor, "B M"],
        active: Bool[Tensor, " T"] | None = None,
    ) -> tuple[dict[str, Tensor], Float[Tensor, "B T T"]]:
        """Raw outputs by name, and attention weights. `active`: see `CrossTaskAttention`."""
        width = self.stand_in.shape[1]
        fused = self.fuse(embeddings[:, :, :width], present)
        raw, weights = self.attend(self.project_tasks(fused), active)
        return self.add_log_odds(raw, embeddings[:, :, width:], present), weights

    def add_log_odds(
        self,
        raw: dict[str, Tensor],
        log_odds: Float[Tensor, "B M LL"],
        present: Bool[Tensor, "B M"],
    ) -> dict[str, Tensor]:
        """The raw outputs with evidence and trees of present modalities that the tasks see.

        `binary` includes the evidence, and `evidence` [B, L] is it alone. The calibration of the
        set of present modalities is part of it. `trees` [B, L] is in no other output.
        """
        if "binary" not in raw:
            return raw
        shown = self.visible_binary * present.unsqueeze(-1).to(log_odds.dtype)
        evidence, trees = ((part * shown).sum(dim=1) for part in log_odds.chunk(2, dim=2))
        number = subset_number(present, self.visible_binary)
        evidence = evidence + self.subset_shift.gather(0, number)
        return {**raw, "binary": raw["binary"] + evidence, EVIDENCE: evidence, TREES: trees}

    def fuse(
        self, embeddings: Float[Tensor, "B M D"], present: Bool[Tensor, "B M"]
    ) -> Float[Tensor, "B V D"]:
        """One fused vector for each view."""
        visible = (present[:, None, :] & self.views[None]).unsqueeze(-1)
        stand_in = self.stand_in * self.has_stand_in
        x = torch.where(visible, embeddings[:, None], stand_in[None, None])
        return self.dropout(nn.functional.gelu(x.sum(dim=2)).transpose(1, 2)).transpose(1, 2)

    def project_tasks(self, fused: Float[Tensor, "B V D"]) -> Float[Tensor, "B V T K"]:
        """Each task's features, by its own projection."""
        # As products of matrices: ONNX Runtime takes three times as long for an Einsum.
        if self.trunks == 1:
            all_tasks = self.project.transpose(0, 1).flatten(1)
            return torch.matmul(fused, all_tasks).unflatten(2, self.project.shape[::2])
        own = fused.unflatten(2, (self.trunks, -1))[:, :, self.group]
        return torch.matmul(own.unsqueeze(3), self.project).squeeze(3)

    def attend(
        self, features: Float[Tensor, "B V T K"], active: Bool[Tensor, " T"] | None = None
    ) -> tuple[dict[str, Tensor], Float[Tensor, "B T T"]]:
        """Cross-task attention and the heads."""
        attended, weights = self.attention(features, self.view, active)
        return self.heads(attended), weights


class Ensemble(nn.Module):
    """The mean of the members' raw outputs and attention weights."""

    def __init__(self, members: Sequence[Fusion]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(
        self, embeddings: Float[Tensor, "B M EDLL"], present: Bool[Tensor, "B M"]
    ) -> tuple[dict[str, Tensor], Float[Tensor, "B T T"]]:
        parts = embeddings.chunk(len(self.members), dim=2)
        outputs = [member(part, present) for member, part in zip(self.members, parts, strict=True)]
        raw = {
            name: torch.stack([member_raw[name] for member_raw, _ in outputs]).mean(0)
            for name in outputs[0][0]
        }
        return raw, torch.stack([weights for _, weights in outputs]).mean(0)


class Member(nn.Module):
    """One network of the ensemble, from representations to raw outputs.

    It shares its parts with the whole network (`M3H.member`): training it trains them.
    """

    def __init__(self, adapters: Mapping[Modality, nn.Module], fusion: Fusion) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict({str(m): adapter for m, adapter in adapters.items()})
        self.fusion = fusion
        self.width = fusion.stand_in.shape[1] + 2 * fusion.visible_binary.shape[1]

    def forward(
        self,
        represented: Mapping[Modality, Tensor],
        present: Bool[Tensor, "B M"],
        active: Bool[Tensor, " T"] | None = None,
    ) -> tuple[dict[str, Tensor], Float[Tensor, "B T T"]]:
        """Raw outputs and attention. `represented[m]` has a row for each patient that has `m`."""
        embeddings = []
        for i, modality in enumerate(MODALITIES):
            embedding = torch.zeros(len(present), self.width, device=present.device)
            if modality in represented:
                rows = present[:, i].nonzero().squeeze(1)
                adapted = self.adapters[modality](represented[modality])
                embedding = embedding.index_put((rows,), adapted.to(embedding.dtype))
            embeddings.append(embedding)
        return self.fusion(torch.stack(embeddings, dim=1), present, active)


class M3H(nn.Module):
    """The whole network. `visible` [T, M]: whether a task had labels beside a modality."""

    def __init__(
        self,
        tasks: Sequence[Task],
        visible: Bool[Tensor, "T M"],
        representations: Mapping[Modality, Any],
        config: NetConfig,
        members: int = 1,
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        binary = sum(task.kind == "binary" for task in tasks)
        self.encoders = nn.ModuleDict(
            {m: ModalityEncoder(m, representations[m], config, members, binary) for m in MODALITIES}
        )
        self.fusion = Ensemble([Fusion(tasks, visible, config) for _ in range(members)])
        self.calibrate = OutputCalibration(tasks)
        self.width = (config.trunks * config.width + 2 * binary) * members

    def member(self, number: int) -> Member:
        """One member. It shares its parts with this network."""
        encoders: Any = self.encoders
        adapters = {m: encoders[m].adapters[number] for m in MODALITIES}
        fusion: Any = self.fusion.members[number]
        return Member(adapters, fusion)

    def copy_from(self, source: "M3H", rows: Sequence[int]) -> None:
        """Copies the weights of the source's tasks `rows`."""
        own = self.encoders.state_dict()
        # Evidence and trees are fitted for each task alone, after the weights are copied.
        weights = {n: w for n, w in source.encoders.state_dict().items() if not of_one_task(n)}
        self.encoders.load_state_dict(own | weights)
        for mine, theirs in zip(self.fusion.members, source.fusion.members, strict=True):
            cast("Fusion", mine).copy_from(cast("Fusion", theirs), rows)

    @torch.no_grad()
    def start_at(self, prevalence: Mapping[str, float]) -> None:
        """Sets each binary task's output to its prevalence, the best answer before training."""
        shares = torch.tensor([prevalence[name] for name in self.calibrate.names])
        self.calibrate.prior.copy_(torch.logit(shares, eps=0.005))
        for member in self.fusion.members:
            fusion: Any = member
            fusion.heads.bias.copy_(self.calibrate.prior)

    def raw_without_data(self) -> dict[str, Tensor]:
        """Raw outputs [1, …] for a patient without any modality."""
        embeddings = torch.zeros(1, len(MODALITIES), self.width)
        present = torch.zeros(1, len(MODALITIES)).bool()
        raw: dict[str, Tensor] = self.fusion(embeddings, present)[0]
        return raw
