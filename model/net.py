"""M3H: one encoder for each modality, fusion, cross-task attention, a head for each task.

Read top to bottom. Shapes: B patients, T tasks, M = 4 modalities, D `width`, K `task_width`,
G groups of tasks that see the same modalities. Everything that turns an input into a served number
is in here (normalisation, calibration, probabilities, coherence), so that it is in the ONNX graphs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from schemas.response import MODALITIES, Modality
from schemas.tasks import Task

MORTALITY, DISPOSITION, DIED = "in_hospital_mortality", "discharge_disposition", "died"


class NetConfig(BaseModel):
    """What the network is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attention: Literal["balanced", "published"] = "balanced"
    width: int = 256
    task_width: int = 32
    token_width: int = 64
    image_channels: tuple[int, ...] = (16, 32, 64, 128)
    clusters: int = 8
    dropout: float = 0.3


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


class TabularEncoder(nn.Module):
    def __init__(self, features: int, config: NetConfig) -> None:
        super().__init__()
        self.normalise = Normalise((features,))
        self.layers = nn.Linear(2 * features, config.width)

    def forward(self, values: Float[Tensor, "B F"]) -> Float[Tensor, "B D"]:
        known = (~torch.isnan(values)).to(values.dtype)
        return self.layers(torch.cat([self.normalise(values), known], dim=1))


class SeriesEncoder(nn.Module):
    """Statistics of each variable, whether it was measured at all, and treatments."""

    def __init__(
        self, statistics: tuple[int, int], treatments: tuple[int, int], config: NetConfig
    ) -> None:
        super().__init__()
        self.normalise = Normalise(statistics)
        self.normalise_treatments = Normalise(treatments)
        inputs = math.prod(statistics) + statistics[0] + math.prod(treatments)
        self.layers = nn.Sequential(nn.Dropout(config.dropout / 2), nn.Linear(inputs, config.width))

    def forward(
        self, statistics: Float[Tensor, "B V S"], treatments: Float[Tensor, "B R 4"]
    ) -> Float[Tensor, "B D"]:
        measured = (~torch.isnan(statistics[:, :, 0])).to(statistics.dtype)
        inputs = [
            self.normalise(statistics).flatten(1),
            measured,
            self.normalise_treatments(treatments).flatten(1),
        ]
        return self.layers(torch.cat(inputs, dim=1))


class NotesEncoder(nn.Module):
    """Any number of tokens: what stands out (maximum) and what is said on the whole (attention)."""

    def __init__(self, vocabulary: int, config: NetConfig) -> None:
        super().__init__()
        width = config.token_width
        self.embed = nn.Embedding(vocabulary, width, padding_idx=0)
        self.score = nn.Linear(width, 1)
        self.layers = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(2 * width, config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, config.width),
        )

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        there = (tokens != 0).unsqueeze(-1)
        embedded = self.embed(tokens)
        # A finite floor, and the weights masked again: a note without a token gives zeros, not NaN.
        score = self.score(embedded).masked_fill(~there, -1e4)
        weight = torch.softmax(score, dim=1) * there
        highest = embedded.masked_fill(~there, -1e4).amax(dim=1)
        highest = torch.where(there.any(dim=1), highest, torch.zeros_like(highest))
        return self.layers(torch.cat([(weight * embedded).sum(dim=1), highest], dim=1))


class ImageEncoder(nn.Module):
    """A small residual network. Group norm, because a batch may hold one image."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        before = 1
        for channels in config.image_channels:
            stages += [
                nn.Conv2d(before, channels, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(8, channels),
                nn.GELU(),
                Residual(channels),
            ]
            before = channels
        self.stages = nn.Sequential(*stages)
        self.project = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(before, config.width))

    def forward(self, pixels: UInt8[Tensor, "B 1 side side"]) -> Float[Tensor, "B D"]:
        grey = pixels.to(torch.float32) / 255.0
        mean = grey.mean(dim=(2, 3), keepdim=True)
        spread = torch.sqrt(((grey - mean) ** 2).mean(dim=(2, 3), keepdim=True) + 1e-4)
        return self.project(self.stages((grey - mean) / spread).mean(dim=(2, 3)))


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return F.gelu(x + self.norm(self.conv(x)))


class CrossTaskAttention(nn.Module):
    """Tasks read each other (arXiv 2404.18975, our reading; see the design's two forms).

    `published`: W = softmax(I + M / max M), the identity being self-exploitation.
    `balanced`: M / sqrt(K), and on the diagonal gamma + ln(T - 1), gamma learned per task from 0,
    so that self and cross start at one half each whatever T is. A task alone has W = 1.
    There is no residual path around W, so that W tells the whole truth.
    """

    def __init__(self, tasks: int, config: NetConfig) -> None:
        super().__init__()
        width = config.task_width
        self.form = config.attention
        self.query = nn.Parameter(torch.randn(tasks, width) / math.sqrt(width))
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.value.weight)
        self.gamma = nn.Parameter(torch.zeros(tasks))
        self.alpha = nn.Parameter(torch.ones(()))
        self.diagonal = math.log(tasks - 1) if tasks > 1 else 0.0

    def forward(
        self, x: Float[Tensor, "B G T K"], group: Int[Tensor, " T"]
    ) -> tuple[Float[Tensor, "B T K"], Float[Tensor, "B T T"]]:
        """`x` as each group of tasks sees it; a task reads the others as its own group does."""
        scores = torch.matmul(self.query, self.key(x).transpose(2, 3))
        identity = torch.eye(len(group), device=x.device, dtype=x.dtype)
        if self.form == "published":
            scores = scores / scores.amax(dim=(2, 3), keepdim=True) + identity
        else:
            scores = self.alpha * scores / math.sqrt(x.shape[-1])
            scores = scores + identity * (self.gamma + self.diagonal)
        weights = torch.softmax(scores, dim=-1)
        read = torch.matmul(weights, self.value(x))
        rows = torch.arange(len(group), device=group.device)
        return read[:, group, rows], weights[:, group, rows]


class Fusion(nn.Module):
    """Embeddings to raw outputs: trunk, per-task projection, cross-task attention, heads.

    An absent modality, and one that is hidden from a task, is replaced by a learned stand-in.
    A task that sees fewer modalities gets a fused vector without the others, and reads the other
    tasks as they look without them: what is hidden cannot arrive by way of attention.
    """

    def __init__(self, tasks: Sequence[Task], seen: Bool[Tensor, "T M"], config: NetConfig) -> None:
        super().__init__()
        groups, group = torch.unique(seen, dim=0, return_inverse=True)
        self.register_buffer("groups", groups)
        self.register_buffer("group", group)
        self.groups: Tensor
        self.group: Tensor
        self.stand_in = nn.Parameter(torch.zeros(len(MODALITIES), config.width))
        self.trunk = nn.Sequential(nn.GELU(), nn.Dropout(config.dropout))
        # Bounds that keep the size of the signal: with smaller ones the rare tasks never start.
        bound = math.sqrt(3 / config.width)
        self.project = nn.Parameter(
            torch.empty(len(tasks), config.width, config.task_width).uniform_(-bound, bound)
        )
        self.attention = CrossTaskAttention(len(tasks), config)
        self.heads = Heads(tasks, config)

    def forward(
        self, embeddings: Float[Tensor, "B M D"], present: Bool[Tensor, "B M"]
    ) -> tuple[dict[str, Tensor], Float[Tensor, "B T T"]]:
        visible = (present[:, None, :] & self.groups[None]).unsqueeze(-1)
        x = torch.where(visible, embeddings[:, None], self.stand_in[None, None])
        fused = self.trunk(x.sum(dim=2))
        per_task = torch.einsum("bgd,tdk->bgtk", fused, self.project)
        read, weights = self.attention(per_task, self.group)
        return self.heads(read), weights


class Heads(nn.Module):
    """One linear head for each task: logits, log-days, class logits, cluster logits."""

    def __init__(self, tasks: Sequence[Task], config: NetConfig) -> None:
        super().__init__()
        self.row = {task.name: i for i, task in enumerate(tasks)}
        self.rows_binary = [self.row[t.name] for t in tasks if t.kind == "binary"]
        shape = (len(self.rows_binary), config.task_width)
        self.binary = nn.Parameter(torch.randn(shape) / math.sqrt(config.task_width) / 10)
        self.bias = nn.Parameter(torch.zeros(len(self.rows_binary)))
        sizes = {
            t.name: {"regression": 1, "clustering": config.clusters}.get(t.kind, len(t.classes))
            for t in tasks
            if t.kind != "binary"
        }
        self.other = nn.ModuleDict(
            {name: nn.Linear(config.task_width, size) for name, size in sizes.items()}
        )

    def forward(self, read: Float[Tensor, "B T K"]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        if self.rows_binary:
            logits = (read[:, self.rows_binary] * self.binary).sum(-1) + self.bias
            out["binary"] = logits
        for name, head in self.other.items():
            out[name] = head(read[:, self.row[name]])
        return out


class Calibrate(nn.Module):
    """Raw outputs to what is served: calibrated, coherent probabilities, and days.

    Each task's log-odds are stretched or shrunk around those of its prevalence, as fitted on
    validation patients: what is known by nothing stays the prevalence. Then a task that is a subset
    of another never exceeds it, and P(died) of the disposition is mortality's.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        binary = [t for t in tasks if t.kind == "binary"]
        self.names = [t.name for t in binary]
        self.kinds = {t.name: t.kind for t in tasks}
        self.register_buffer("scale", torch.ones(len(binary)))
        self.register_buffer("prior", torch.zeros(len(binary)))
        self.scale: Tensor
        self.prior: Tensor
        parents = [t.subset_of if t.subset_of in self.names else t.name for t in binary]
        self.parent = [self.names.index(p) for p in parents]
        classes = {t.name: t.classes for t in tasks}
        coherent = MORTALITY in self.names and DIED in classes.get(DISPOSITION, ())
        self.died = classes[DISPOSITION].index(DIED) if coherent else None

    def forward(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for name, value in raw.items():
            if name == "binary":
                p = torch.sigmoid(self.prior + self.scale * (value - self.prior))
                out[name] = torch.minimum(p, p[:, self.parent])
            elif self.kinds[name] == "regression":
                out[name] = torch.exp(value.clamp(-5.0, 7.0))
            else:
                out[name] = torch.softmax(value, dim=-1)
        if self.died is not None:
            mortality = out["binary"][:, self.names.index(MORTALITY)].unsqueeze(1)
            out[DISPOSITION] = self._with_mortality(out[DISPOSITION], mortality)
        return out

    def _with_mortality(
        self, disposition: Float[Tensor, "B C"], mortality: Float[Tensor, "B 1"]
    ) -> Float[Tensor, "B C"]:
        died = torch.zeros(disposition.shape[-1], device=disposition.device)
        died[self.died] = 1.0
        alive = disposition * (1 - died)
        return alive / alive.sum(1, keepdim=True) * (1 - mortality) + died * mortality


class M3H(nn.Module):
    """The whole network. `seen` [T, M]: whether a task had labels beside a modality."""

    def __init__(
        self,
        tasks: Sequence[Task],
        seen: Bool[Tensor, "T M"],
        *,
        tabular: int,
        statistics: tuple[int, int],
        treatments: tuple[int, int],
        vocabulary: int,
        config: NetConfig,
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.width = config.width
        self.encoders = nn.ModuleDict(
            {
                "tabular": TabularEncoder(tabular, config),
                "series": SeriesEncoder(statistics, treatments, config),
                "notes": NotesEncoder(vocabulary, config),
                "image": ImageEncoder(config),
            }
        )
        self.fusion = Fusion(tasks, seen, config)
        self.calibrate = Calibrate(tasks)

    @torch.no_grad()
    def start_at(self, prevalence: Mapping[str, float]) -> None:
        """Begins at each binary task's prevalence: what is known before anything is learned."""
        shares = torch.tensor([prevalence[name] for name in self.calibrate.names])
        self.calibrate.prior.copy_(torch.logit(shares, eps=0.005))
        self.fusion.heads.bias.copy_(self.calibrate.prior)

    def forward(
        self, inputs: Mapping[Modality, Mapping[str, Tensor]], present: Bool[Tensor, "B M"]
    ) -> tuple[dict[str, Tensor], Float[Tensor, "B T T"]]:
        """Raw outputs and attention. `inputs[m]` has a row for each patient that has `m`."""
        embeddings = []
        for i, modality in enumerate(MODALITIES):
            embedding = torch.zeros(len(present), self.width, device=present.device)
            if modality in inputs:
                rows = present[:, i].nonzero().squeeze(1)
                found = self.encoders[modality](**inputs[modality])
                embedding = embedding.index_put((rows,), found)
            embeddings.append(embedding)
        return self.fusion(torch.stack(embeddings, dim=1), present)
