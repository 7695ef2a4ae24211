"""M3H: one encoder for each modality, fusion, cross-task attention, a head for each task.

Read top to bottom. Shapes: B patients, T tasks, M = 4 modalities, E members of the ensemble, D
`width`, K `task_width`, V views (sets of modalities that a task sees). Everything that turns an
input into a served number is in here or in `represent` (normalisation, calibration, probabilities,
coherence), so that it is in the ONNX graphs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, cast

import torch
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from model.representations.represent import Ordinary, Pixels
from schemas.response import MODALITIES, Modality
from schemas.tasks import DIED, DISPOSITION, MORTALITY, Task

Share = Annotated[float, Field(ge=0, lt=1)]
Channels = Annotated[int, Field(ge=8, le=4_096, multiple_of=8)]  # eight groups are normalised
_INPUT_DROPOUT: dict[Modality, float] = {"tabular": 0.1, "series": 0.3, "notes": 0.2, "image": 0.3}


class NetConfig(BaseModel):
    """What the network is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # "words", or the local Hugging Face folder of a BERT (Bio_ClinicalBERT, BioBERT); "pixels", or
    # the file of a DenseNet's weights (CheXNet, torchxrayvision, torchvision); see
    # `model.representations.pretrained`.
    notes_encoder: str = "words"
    image_encoder: str = "pixels"
    # "none": a trunk that the tasks share, and nothing more; for comparison.
    attention: Literal["balanced", "published", "none"] = "balanced"
    # Tasks, by name, that learn together and apart from the others: each group has a trunk of its
    # own, and its tasks read each other alone. Every task is in one of them; none: all together.
    groups: tuple[tuple[str, ...], ...] = ()
    width: int = Field(256, ge=1, le=65_536)
    task_width: int = Field(32, ge=1, le=4_096)
    image_channels: tuple[Channels, ...] = Field((8, 16, 32, 64), min_length=1)
    # Phenotypes: of 3 to 8, the number that bootstraps of hospitals agree on most (eICU, k-means).
    clusters: int = Field(5, ge=1, le=1_000)
    dropout: Share = 0.3
    # Of the representations' numbers, before anything is learned from them. Modalities that are not
    # named keep these.
    input_dropout: dict[Modality, Share] = _INPUT_DROPOUT

    @field_validator("input_dropout")
    @classmethod
    def _all_modalities(cls, shares: dict[Modality, float]) -> dict[Modality, float]:
        return {**_INPUT_DROPOUT, **shares}

    @property
    def trunks(self) -> int:
        return max(1, len(self.groups))

    def group_of(self, task: str) -> int:
        return next((i for i, group in enumerate(self.groups) if task in group), 0)


class Adapter(nn.Sequential):
    """What a member learns of a representation: one linear layer."""

    def __init__(self, modality: Modality, features: int, config: NetConfig) -> None:
        dropout = nn.Dropout(config.input_dropout[modality])
        super().__init__(dropout, nn.Linear(features, config.trunks * config.width))


class ImageAdapter(nn.Module):
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
        self.project = nn.Sequential(
            nn.Dropout(config.input_dropout["image"]),
            nn.Linear(before, config.trunks * config.width),
        )

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
    `none`: W is the identity: every task keeps to itself.
    There is no residual path around W, so that W tells the whole truth.

    `within` [T, T]: who is in the group of whom; and `taking` [T]: the tasks that take part. Nobody
    reads the others, and T and M are those of one's group that take part.
    """

    def __init__(
        self, tasks: int, config: NetConfig, within: Bool[Tensor, "T T"] | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("within", within, persistent=False)
        self.within: Tensor | None
        width = config.task_width
        self.form = config.attention
        self.query = nn.Parameter(torch.randn(tasks, width) / math.sqrt(width))
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.value.weight)
        self.gamma = nn.Parameter(torch.zeros(tasks))
        self.alpha = nn.Parameter(torch.ones(()))

    def forward(
        self,
        x: Float[Tensor, "B V T K"],
        view: Int[Tensor, " T"],
        taking: Bool[Tensor, " T"] | None = None,
    ) -> tuple[Float[Tensor, "B T K"], Float[Tensor, "B T T"]]:
        """`x` as it looks in each view; a task reads the others as they look in its own."""
        rows = torch.arange(len(view), device=view.device)
        identity = torch.eye(len(view), device=x.device, dtype=x.dtype)
        if self.form == "none":
            return self.value(x)[:, view, rows], identity.expand(len(x), -1, -1)
        readable = self._readable(taking)
        scores = torch.matmul(self.query, self.key(x).transpose(2, 3))
        if self.form == "published":
            # All may be zero where nothing is known of a patient: M / max M is then taken as zero.
            peak = self._only(scores, readable).amax(dim=3)
            peak = self._only(peak.unsqueeze(2), readable).amax(dim=3, keepdim=True)
            scores = scores / torch.where(peak == 0, 1.0, peak) + identity
        else:
            others = torch.full_like(self.gamma, len(view) - 1)
            if readable is not None:
                others = readable.sum(1) - 1
            scores = self.alpha * scores / math.sqrt(x.shape[-1])
            scores = scores + identity * (self.gamma + others.clamp_min(1).log())
        weights = torch.softmax(self._only(scores, readable), dim=-1)
        read = torch.matmul(weights, self.value(x))
        return read[:, view, rows], weights[:, view, rows]

    def _readable(self, taking: Tensor | None) -> Tensor | None:
        """[T, T] whom each task may read, None for all; itself at least, so that W is defined."""
        if taking is None:
            return self.within
        within = taking if self.within is None else self.within & taking
        return within | torch.eye(len(taking), dtype=torch.bool, device=taking.device)

    @staticmethod
    def _only(scores: Tensor, readable: Tensor | None) -> Tensor:
        return scores if readable is None else scores.masked_fill(~readable, -math.inf)


class Fusion(nn.Module):
    """Embeddings to raw outputs: trunk, per-task projection, cross-task attention, heads.

    An absent modality, and one that is hidden from a task, is replaced by a learned stand-in.
    A task that sees fewer modalities gets a fused vector without the others, and reads the other
    tasks as they look without them: what is hidden cannot arrive by way of attention.
    """

    def __init__(self, tasks: Sequence[Task], seen: Bool[Tensor, "T M"], config: NetConfig) -> None:
        super().__init__()
        views, view = torch.unique(seen, dim=0, return_inverse=True)
        self.register_buffer("views", views)
        self.register_buffer("view", view)
        self.views: Tensor
        self.view: Tensor
        group = torch.tensor([config.group_of(task.name) for task in tasks])
        self.register_buffer("group", group, persistent=False)
        self.group: Tensor
        self.trunks = config.trunks
        self.stand_in = nn.Parameter(torch.zeros(len(MODALITIES), config.trunks * config.width))
        # The same units in all views, so that what is drawn does not depend on how many there are.
        self.dropout = nn.Dropout1d(config.dropout)
        # Bounds that keep the size of the signal: with smaller ones the rare tasks never start.
        bound = math.sqrt(3 / config.width)
        self.project = nn.Parameter(
            torch.empty(len(tasks), config.width, config.task_width).uniform_(-bound, bound)
        )
        within = group[:, None] == group if self.trunks > 1 else None
        self.attention = CrossTaskAttention(len(tasks), config, within)
        self.heads = Heads(tasks, config)

    @torch.no_grad()
    def begin_as(self, whole: "Fusion", rows: Sequence[int]) -> None:
        """Takes the weights that another has for these of its tasks."""
        mine, theirs = self.attention, whole.attention
        for own, other in (
            (self.project, whole.project),
            (mine.query, theirs.query),
            (mine.gamma, theirs.gamma),
        ):
            own.copy_(other[list(rows)])
        self.stand_in.copy_(whole.stand_in)
        mine.alpha.copy_(theirs.alpha)
        mine.key.load_state_dict(theirs.key.state_dict())
        mine.value.load_state_dict(theirs.value.state_dict())
        self.heads.begin_as(whole.heads, rows)

    def forward(
        self,
        embeddings: Float[Tensor, "B M D"],
        present: Bool[Tensor, "B M"],
        taking: Bool[Tensor, " T"] | None = None,
    ) -> tuple[dict[str, Tensor], Float[Tensor, "B T T"]]:
        return self.answered(self.projected(self.fused(embeddings, present)), taking)

    def fused(
        self, embeddings: Float[Tensor, "B M D"], present: Bool[Tensor, "B M"]
    ) -> Float[Tensor, "B V D"]:
        """The patient, as seen with the modalities of each view."""
        visible = (present[:, None, :] & self.views[None]).unsqueeze(-1)
        x = torch.where(visible, embeddings[:, None], self.stand_in[None, None])
        return self.dropout(nn.functional.gelu(x.sum(dim=2)).transpose(1, 2)).transpose(1, 2)

    def projected(self, fused: Float[Tensor, "B V D"]) -> Float[Tensor, "B V T K"]:
        """What each task takes of it."""
        # As products of matrices: an Einsum takes ONNX Runtime three times as long.
        if self.trunks == 1:
            all_tasks = self.project.transpose(0, 1).flatten(1)
            return torch.matmul(fused, all_tasks).unflatten(2, self.project.shape[::2])
        own = fused.unflatten(2, (self.trunks, -1))[:, :, self.group]
        return torch.matmul(own.unsqueeze(3), self.project).squeeze(3)

    def answered(
        self, per_task: Float[Tensor, "B V T K"], taking: Bool[Tensor, " T"] | None = None
    ) -> tuple[dict[str, Tensor], Float[Tensor, "B T T"]]:
        """Tasks read each other, then answer."""
        read, weights = self.attention(per_task, self.view, taking)
        return self.heads(read), weights


class Heads(nn.Module):
    """One linear head for each task: logits, log-days, class logits, cluster logits.

    A regression has three: the value, and the ends of its 90 % interval.
    """

    def __init__(self, tasks: Sequence[Task], config: NetConfig) -> None:
        super().__init__()
        self.row = {task.name: i for i, task in enumerate(tasks)}
        self.rows_binary = [self.row[t.name] for t in tasks if t.kind == "binary"]
        shape = (len(self.rows_binary), config.task_width)
        self.binary = nn.Parameter(torch.randn(shape) / math.sqrt(config.task_width) / 10)
        self.bias = nn.Parameter(torch.zeros(len(self.rows_binary)))
        sizes = {
            t.name: {"regression": 3, "clustering": config.clusters}.get(t.kind, len(t.classes))
            for t in tasks
            if t.kind != "binary"
        }
        self.other = nn.ModuleDict(
            {name: nn.Linear(config.task_width, size) for name, size in sizes.items()}
        )

    @torch.no_grad()
    def begin_as(self, whole: "Heads", rows: Sequence[int]) -> None:
        binary = [whole.rows_binary.index(row) for row in rows if row in whole.rows_binary]
        self.binary.copy_(whole.binary[binary])
        self.bias.copy_(whole.bias[binary])
        for name, head in self.other.items():
            head.load_state_dict(whole.other[name].state_dict())

    def forward(self, read: Float[Tensor, "B T K"]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        if self.rows_binary:
            logits = (read[:, self.rows_binary] * self.binary).sum(-1) + self.bias
            out["binary"] = logits
        for name, head in self.other.items():
            out[name] = head(read[:, self.row[name]])
        return out


class Ensemble(nn.Module):
    """The mean of its members' raw outputs, and of their attentions."""

    def __init__(self, members: Sequence[Fusion]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(
        self, embeddings: Float[Tensor, "B M ED"], present: Bool[Tensor, "B M"]
    ) -> tuple[dict[str, Tensor], Float[Tensor, "B T T"]]:
        parts = embeddings.chunk(len(self.members), dim=2)
        found = [member(part, present) for member, part in zip(self.members, parts, strict=True)]
        raw = {
            name: torch.stack([outputs[name] for outputs, _ in found]).mean(0)
            for name in found[0][0]
        }
        return raw, torch.stack([weights for _, weights in found]).mean(0)


class Calibrate(nn.Module):
    """Raw outputs to what is served: calibrated, coherent probabilities, and days.

    What moves a task's log-odds away from those that the network gives when nothing is known
    (`nothing`) is stretched or shrunk, as fitted on patients that the model did not learn from, and
    added to those of the prevalence (`prior`): what is known by nothing is the prevalence. No
    probability is nearer to 0 or 1 than half a patient among those (`bound`, log-odds). Then a task
    that is a subset of another never exceeds it, and P(died) of the disposition is mortality's.
    Days: the value and its interval, whose ends are moved by `margin` (log-days) until it covers.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        binary = [t for t in tasks if t.kind == "binary"]
        self.names = [t.name for t in binary]
        self.kinds = {t.name: t.kind for t in tasks}
        self.register_buffer("scale", torch.ones(len(binary)))
        self.register_buffer("prior", torch.zeros(len(binary)))
        self.register_buffer("nothing", torch.zeros(len(binary)))
        self.register_buffer("bound", torch.full((len(binary),), 20.0))
        self.register_buffer("margin", torch.zeros(2))
        self.scale: Tensor
        self.prior: Tensor
        self.nothing: Tensor
        self.bound: Tensor
        self.margin: Tensor
        parents = [t.subset_of if t.subset_of in self.names else t.name for t in binary]
        self.parent = [self.names.index(p) for p in parents]
        classes = {t.name: t.classes for t in tasks}
        coherent = MORTALITY in self.names and DIED in classes.get(DISPOSITION, ())
        self.died = classes[DISPOSITION].index(DIED) if coherent else None

    def forward(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for name, value in raw.items():
            if name == "binary":
                logits = self.prior + self.scale * (value - self.nothing)
                p = torch.sigmoid(torch.minimum(torch.maximum(logits, -self.bound), self.bound))
                out[name] = torch.minimum(p, p[:, self.parent])
            elif self.kinds[name] == "regression":
                out[name] = torch.exp(self._days(value).clamp(-5.0, 7.0))
            else:
                out[name] = torch.softmax(value, dim=-1)
        if self.died is not None:
            mortality = out["binary"][:, self.names.index(MORTALITY)].unsqueeze(1)
            out[DISPOSITION] = self._with_mortality(out[DISPOSITION], mortality)
        return out

    def _days(self, log_days: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3"]:
        """The value, and the interval around it."""
        value = log_days[:, 0]
        low = torch.minimum(log_days[:, 1] - self.margin[0], value)
        high = torch.maximum(log_days[:, 2] + self.margin[1], value)
        return torch.stack([value, low, high], dim=1)

    def _with_mortality(
        self, disposition: Float[Tensor, "B C"], mortality: Float[Tensor, "B 1"]
    ) -> Float[Tensor, "B C"]:
        died = torch.zeros(disposition.shape[-1], device=disposition.device)
        died[self.died] = 1.0
        alive = disposition * (1 - died)
        return alive / alive.sum(1, keepdim=True) * (1 - mortality) + died * mortality


class Encoder(nn.Module):
    """One modality: its representation, once; and what each member makes of it.

    Gives the members' embeddings side by side, and how unusual the input is.
    """

    def __init__(self, modality: Modality, represent: Any, config: NetConfig, members: int) -> None:
        super().__init__()
        self.represent = represent
        pixels = isinstance(represent, Pixels)
        self.ordinary = Ordinary(Ordinary.IMAGE_SIDE**2 if pixels else represent.width)
        self.adapters = nn.ModuleList(
            ImageAdapter(config) if pixels else Adapter(modality, represent.width, config)
            for _ in range(members)
        )

    def forward(self, *inputs: Tensor) -> tuple[Float[Tensor, "B ED"], Float[Tensor, " B"]]:
        """The modality's inputs, in the order of `represent`'s."""
        represented = self.represent(*inputs)
        embedding = torch.cat([adapter(represented) for adapter in self.adapters], dim=1)
        return embedding, self.ordinary(represented)


class Member(nn.Module):
    """One of the networks whose answers are averaged. It learns from representations.

    Its parts are the whole network's own, so that what it learns is there.
    """

    def __init__(self, adapters: Mapping[Modality, nn.Module], fusion: Fusion) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict({str(m): adapter for m, adapter in adapters.items()})
        self.fusion = fusion
        self.width = fusion.stand_in.shape[1]

    def forward(
        self,
        represented: Mapping[Modality, Tensor],
        present: Bool[Tensor, "B M"],
        taking: Bool[Tensor, " T"] | None = None,
    ) -> tuple[dict[str, Tensor], Float[Tensor, "B T T"]]:
        """Raw outputs and attention. `represented[m]` has a row for each patient that has `m`."""
        embeddings = []
        for i, modality in enumerate(MODALITIES):
            embedding = torch.zeros(len(present), self.width, device=present.device)
            if modality in represented:
                rows = present[:, i].nonzero().squeeze(1)
                found = self.adapters[modality](represented[modality])
                embedding = embedding.index_put((rows,), found.to(embedding.dtype))
            embeddings.append(embedding)
        return self.fusion(torch.stack(embeddings, dim=1), present, taking)


class M3H(nn.Module):
    """The whole network. `seen` [T, M]: whether a task had labels beside a modality."""

    def __init__(
        self,
        tasks: Sequence[Task],
        seen: Bool[Tensor, "T M"],
        representations: Mapping[Modality, Any],
        config: NetConfig,
        members: int = 1,
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.encoders = nn.ModuleDict(
            {m: Encoder(m, representations[m], config, members) for m in MODALITIES}
        )
        self.fusion = Ensemble([Fusion(tasks, seen, config) for _ in range(members)])
        self.calibrate = Calibrate(tasks)
        self.width = config.trunks * config.width * members

    def member(self, number: int) -> Member:
        """One member, its parts shared with this network."""
        encoders: Any = self.encoders
        adapters = {m: encoders[m].adapters[number] for m in MODALITIES}
        fusion: Any = self.fusion.members[number]
        return Member(adapters, fusion)

    def begin_as(self, whole: "M3H", rows: Sequence[int]) -> None:
        """Takes the weights that another has, for these of its tasks."""
        self.encoders.load_state_dict(whole.encoders.state_dict())
        for mine, theirs in zip(self.fusion.members, whole.fusion.members, strict=True):
            cast("Fusion", mine).begin_as(cast("Fusion", theirs), rows)

    @torch.no_grad()
    def start_at(self, prevalence: Mapping[str, float]) -> None:
        """Begins at each binary task's prevalence: what is known before anything is learned."""
        shares = torch.tensor([prevalence[name] for name in self.calibrate.names])
        self.calibrate.prior.copy_(torch.logit(shares, eps=0.005))
        for member in self.fusion.members:
            fusion: Any = member
            fusion.heads.bias.copy_(self.calibrate.prior)

    def raw_of_nothing(self) -> dict[str, Tensor]:
        """Raw outputs [1, …] for a patient of whom nothing is known."""
        nobody = torch.zeros(1, len(MODALITIES), self.width)
        raw: dict[str, Tensor] = self.fusion(nobody, torch.zeros(1, len(MODALITIES)).bool())[0]
        return raw
