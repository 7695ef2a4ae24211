"""The end of the network: task heads, and the calibration of their outputs."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.network.config import NetConfig
from schemas.tasks import DIED, DISPOSITION, MORTALITY, Task

EVIDENCE = "evidence"  # the raw output of the findings' evidence
TREES = "trees"  # the raw output of the boosted trees


class Heads(nn.Module):
    """One linear head for each task: logits, log-days, class logits or cluster logits.

    A regression has three outputs: the value and the two ends of its 90 % interval.
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
    def copy_from(self, source: "Heads", rows: Sequence[int]) -> None:
        """Copies the weights of the source's tasks `rows`."""
        binary = [source.rows_binary.index(row) for row in rows if row in source.rows_binary]
        self.binary.copy_(source.binary[binary])
        self.bias.copy_(source.bias[binary])
        for name, head in self.other.items():
            head.load_state_dict(source.other[name].state_dict())

    def forward(self, features: Float[Tensor, "B T K"]) -> dict[str, Tensor]:
        """Raw outputs: `binary` [B, binary tasks], and each other task's by its name."""
        raw: dict[str, Tensor] = {}
        if self.rows_binary:
            raw["binary"] = (features[:, self.rows_binary] * self.binary).sum(-1) + self.bias
        for name, head in self.other.items():
            raw[name] = head(features[:, self.row[name]])
        return raw


class OutputCalibration(nn.Module):
    """Raw outputs to served outputs: calibrated, coherent probabilities, and days.

    Binary tasks: the difference between a patient's log-odds and those of a patient without data
    (`nothing`) is added to the log-odds of the prevalence (`prior`). So a patient without data gets
    the prevalence. Before, the evidence of findings is multiplied by `evidence_scale`, what the
    network adds to it by `scale`, and the log-odds of the trees by `tree_scale`. They are fitted on
    held-out patients. Log-odds are limited to ± `bound`: a probability is at least half a held-out
    patient away from 0 and 1.
    A task that is a subset of another never exceeds it. P(died) of the disposition is the
    mortality task's.
    Days: the value and its interval. `margin` (log-days) moves the interval's ends outwards until
    the interval has its coverage.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        binary = [t for t in tasks if t.kind == "binary"]
        self.names = [t.name for t in binary]
        self.kinds = {t.name: t.kind for t in tasks}
        self.register_buffer("scale", torch.ones(len(binary)))
        self.register_buffer("evidence_scale", torch.ones(len(binary)))
        self.register_buffer("tree_scale", torch.zeros(len(binary)))
        self.register_buffer("prior", torch.zeros(len(binary)))
        self.register_buffer("nothing", torch.zeros(len(binary)))
        self.register_buffer("bound", torch.full((len(binary),), 20.0))
        self.register_buffer("margin", torch.zeros(2))
        self.scale: Tensor
        self.evidence_scale: Tensor
        self.tree_scale: Tensor
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
        served: dict[str, Tensor] = {}
        for name, value in raw.items():
            if name in (EVIDENCE, TREES):
                continue
            if name == "binary":
                p = torch.sigmoid(self.log_odds(raw))
                served[name] = torch.minimum(p, p[:, self.parent])
            elif self.kinds[name] == "regression":
                served[name] = torch.exp(self._log_days(value).clamp(-5.0, 7.0))
            else:
                served[name] = torch.softmax(value, dim=-1)
        if self.died is not None:
            mortality = served["binary"][:, self.names.index(MORTALITY)].unsqueeze(1)
            served[DISPOSITION] = self._with_mortality(served[DISPOSITION], mortality)
        return served

    def log_odds(self, raw: Mapping[str, Tensor]) -> Float[Tensor, "B L"]:
        """The calibrated log-odds of the binary tasks, before coherence."""
        evidence, learned, trees = self.parts(raw)
        logits = self.prior + self.evidence_scale * evidence
        logits = logits + self.scale * learned + self.tree_scale * trees
        return torch.minimum(torch.maximum(logits, -self.bound), self.bound)

    def parts(self, raw: Mapping[str, Tensor]) -> Float[Tensor, "3 B L"]:
        """The log-odds that evidence, network and trees add.

        What the network learned lowers the log-odds by at most 1 (ELU, Clevert et al. 2015). So it
        cannot hide the findings of a disease that is rare among otherwise similar patients.
        """
        nothing = torch.zeros_like(raw["binary"])
        evidence, trees = raw.get(EVIDENCE, nothing), raw.get(TREES, nothing)
        learned = nn.functional.elu(raw["binary"] - evidence - self.nothing)
        return torch.stack([evidence, learned, trees])

    def _log_days(self, raw: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3"]:
        """The value, and its interval with the margins added."""
        value = raw[:, 0]
        low = torch.minimum(raw[:, 1] - self.margin[0], value)
        high = torch.maximum(raw[:, 2] + self.margin[1], value)
        return torch.stack([value, low, high], dim=1)

    def _with_mortality(
        self, disposition: Float[Tensor, "B C"], mortality: Float[Tensor, "B 1"]
    ) -> Float[Tensor, "B C"]:
        """The disposition, its probability of death replaced by the mortality task's."""
        died = torch.zeros(disposition.shape[-1], device=disposition.device)
        died[self.died] = 1.0
        alive = disposition * (1 - died)
        return alive / alive.sum(1, keepdim=True) * (1 - mortality) + died * mortality
