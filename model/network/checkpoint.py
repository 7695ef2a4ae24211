"""A trained model on disk: weights as safetensors, facts as JSON. No pickle is ever loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from model.errors import UserError, naming, reason_of
from model.network.net import M3H, NetConfig
from model.representations.pretrained import Pretrained, make
from model.representations.represent import make_representations
from schemas.features import STATISTICS, TREATMENT_FEATURES, FeatureSpec
from schemas.manifest import TOKENIZER, Cohort, Phenotype, Sets, Steps
from schemas.response import MODALITIES, Modality
from schemas.tasks import Task
from schemas.tim import TIM, Tim

FACTS, WEIGHTS = "checkpoint.json", "weights.safetensors"

ByModality = dict[Modality, float]


class Signatures(BaseModel):
    """What shows how a training went, measured on the samples that each member held out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Mean entropy of the weights that a task gives all tasks: 0 one alone, 1 all the same.
    attention_entropy: float
    # Mean weight that a task gives itself.
    self_weight: float
    # How far a task's log-odds move when a patient is given another's input of the modality, as a
    # share of what all modalities move (permutation importance, Breiman 2001). Hiding it would move
    # them even if it said nothing: what stands in for it is another constant.
    influence: ByModality
    # The share by which the binary tasks' loss is lower with the patient's own input.
    worth: ByModality
    # Tasks whose loss is not below that of the prevalence (classes' shares, the median of days).
    learned_nothing: tuple[str, ...]
    # Of each member.
    best_epoch: tuple[int, ...]
    epochs: tuple[int, ...]


class Facts(BaseModel):
    """All that is known of a trained model beside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[Task, ...]
    spec: FeatureSpec
    net: NetConfig
    members: int
    # Tokens and phrases of the notes that the model looks at, if it reads them as words.
    words: int
    # The encoders that were not made here. Their weights are the checkpoint's, as all others.
    pretrained: dict[Modality, Pretrained] = {}
    labels: dict[str, dict[Modality, int]]
    positives: dict[str, int]
    prevalence: dict[str, float]
    cohorts: tuple[Cohort, ...]
    phenotypes: tuple[Phenotype, ...] = ()
    intervals: dict[str, Steps] = {}
    sets: dict[str, Sets] = {}
    signatures: Signatures | None = None
    trained_hours: tuple[float, float]
    command: str
    training: dict[str, Any]

    def seen(self, task: Task) -> tuple[Modality, ...]:
        """The modalities that a task had labels beside.

        A clustering has no labels: it learns from the series, whatever else was there.
        """
        if task.kind == "clustering":
            return tuple(m for m in MODALITIES if m != "image")
        return tuple(m for m in MODALITIES if self.labels[task.name].get(m, 0) > 0)


class CheckpointError(UserError):
    """A folder that holds no trained model, or a damaged one."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained model; and, where it was found out, which of its tasks teaches which."""

    facts: Facts
    weights: dict[str, Tensor]
    tim: Tim | None = None

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Of the model that was there before, if any.
        (folder / TIM).unlink(missing_ok=True)
        if self.tim is not None:
            (folder / TIM).write_text(self.tim.model_dump_json() + "\n", encoding="utf-8")
        write_tensors(self.weights, folder / WEIGHTS)
        (folder / TOKENIZER).write_text(self.facts.spec.tokenizer_json, encoding="utf-8")
        (folder / FACTS).write_text(self.facts.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises CheckpointError, whose text is one line, if the folder holds no checkpoint."""
        for name in (FACTS, WEIGHTS, TOKENIZER):
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder} is no checkpoint: it has no {name}")
        with naming(folder / TOKENIZER, CheckpointError, Exception):
            tokenizer = (folder / TOKENIZER).read_text(encoding="utf-8")
            Tokenizer.from_str(tokenizer)
        with naming(folder / FACTS, CheckpointError, (OSError, ValueError, TypeError, KeyError)):
            raw = from_json((folder / FACTS).read_bytes())
            raw["spec"]["tokenizer_json"] = tokenizer
            facts = Facts.model_validate(raw)
        with naming(folder / WEIGHTS, CheckpointError, Exception):
            weights = load_file(folder / WEIGHTS)
            _check(facts, weights)
        tim = None
        if (folder / TIM).exists():
            with naming(folder / TIM, CheckpointError, (OSError, ValueError)):
                tim = Tim.model_validate_json((folder / TIM).read_bytes())
        return cls(facts, weights, tim)

    def net(self) -> M3H:
        """The network with its weights, ready to predict. Raises CheckpointError."""
        try:
            net = make_net(self.facts)
            net.load_state_dict(self.weights)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{FACTS} and {WEIGHTS} do not belong together: {reason_of(error)}"
            ) from None
        return net.eval()


def _check(facts: Facts, weights: dict[str, Tensor]) -> None:
    """Raises ValueError for weights that no training gives this model."""
    members = {name.split(".")[2] for name in weights if name.startswith("fusion.members.")}
    if len(members) != facts.members:
        raise ValueError(f"holds {len(members)} members, and {FACTS} tells of {facts.members}")
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")


def make_net(facts: Facts) -> M3H:
    """A new network of the shape that the facts ask for, with random weights."""
    spec = facts.spec
    seen = torch.tensor([[m in facts.seen(task) for m in MODALITIES] for task in facts.tasks])
    representations = make_representations(
        tabular=len(spec.tabular_names),
        statistics=(len(spec.variables), len(STATISTICS)),
        treatments=(len(spec.treatments), len(TREATMENT_FEATURES)),
        vocabulary=spec.vocabulary,
        words=facts.words,
        image_side=spec.image_side,
    )
    representations |= {modality: make(found) for modality, found in facts.pretrained.items()}
    net = M3H(facts.tasks, seen, representations, facts.net, facts.members)
    net.start_at(facts.prevalence)
    return net


def write_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Replaces the file at once, so that being killed never leaves half of one."""
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata)
    partial.replace(path)
