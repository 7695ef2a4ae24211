"""A trained model on disk: weights as safetensors, facts as JSON; never a pickle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json
from tokenizers import Tokenizer
from torch import Tensor

from model.errors import UserError, error_reason, wrap_file_errors
from model.knowledge.findings import Finding, NoteFindings, SeriesFindings, TabularFindings
from model.network.config import NetConfig
from model.network.m3h import M3H
from model.network.tensor_files import read_tensors, write_tensors
from model.representations.modalities import build_representations
from model.representations.pretrained import Pretrained, build_encoder
from schemas.features import STATISTICS, TREATMENT_FEATURES, FeatureSpec
from schemas.manifest import TOKENIZER, Cohort, ConformalSets, Phenotype, VennAbersCurve
from schemas.response import MODALITIES, Modality
from schemas.tasks import Task
from schemas.tim import TIM, Tim

FACTS, WEIGHTS = "checkpoint.json", "weights.safetensors"

ByModality = dict[Modality, float]


class FailureSignatures(BaseModel):
    """Measures of how well a training went, on the samples that each member held out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Mean normalised entropy of a task's attention weights: 0 for a single task, 1 for uniform.
    attention_entropy: float
    # Mean attention weight of a task on itself.
    self_weight: float
    # Mean change of the log-odds if a patient gets another patient's input of the modality, as a
    # share of the changes of all modalities (permutation importance, Breiman 2001). Hiding the
    # modality is no alternative: the stand-in is another constant, which moves the log-odds even if
    # the modality has no information.
    influence: ByModality
    # The share by which the patient's own input lowers the loss of the binary tasks.
    worth: ByModality
    # Tasks whose loss is not below that of the prevalence (shares of classes, median of days).
    learned_nothing: tuple[str, ...]
    # The best epoch of each member, and the number of its epochs.
    best_epoch: tuple[int, ...]
    epochs: tuple[int, ...]


class Facts(BaseModel):
    """A trained model's metadata: everything but its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[Task, ...]
    spec: FeatureSpec
    net: NetConfig
    members: int
    # Tokens and phrases of the notes that the model uses; 0 with a pretrained notes encoder.
    words: int
    # The findings, with their limits, by name.
    findings: dict[str, Finding] = {}
    # The pretrained encoders. The checkpoint holds their weights, as it does all others.
    pretrained: dict[Modality, Pretrained] = {}
    labels: dict[str, dict[Modality, int]]
    positives: dict[str, int]
    prevalence: dict[str, float]
    cohorts: tuple[Cohort, ...]
    phenotypes: tuple[Phenotype, ...] = ()
    intervals: dict[str, VennAbersCurve] = {}
    sets: dict[str, ConformalSets] = {}
    signatures: FailureSignatures | None = None
    trained_hours: tuple[float, float]
    command: str
    training: dict[str, Any]

    def visible_modalities(self, task: Task) -> tuple[Modality, ...]:
        """The modalities beside which the task had labels.

        A clustering has no labels. It learns from the series and sees all but the image.
        """
        if task.kind == "clustering":
            return tuple(m for m in MODALITIES if m != "image")
        return tuple(m for m in MODALITIES if self.labels[task.name].get(m, 0) > 0)


class CheckpointError(UserError):
    """The folder holds no trained model, or a damaged one."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained model, with its task interaction matrix (TIM) if there is one."""

    facts: Facts
    weights: dict[str, Tensor]
    tim: Tim | None = None

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # A matrix in the folder may be an earlier model's.
        (folder / TIM).unlink(missing_ok=True)
        if self.tim is not None:
            (folder / TIM).write_text(self.tim.model_dump_json() + "\n", encoding="utf-8")
        write_tensors(self.weights, folder / WEIGHTS)
        (folder / TOKENIZER).write_text(self.facts.spec.tokenizer_json, encoding="utf-8")
        (folder / FACTS).write_text(self.facts.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises CheckpointError if the folder holds no checkpoint or a damaged one."""
        for name in (FACTS, WEIGHTS, TOKENIZER):
            if not (folder / name).is_file():
                raise CheckpointError(f"{folder} is not a checkpoint: it has no {name}")
        with wrap_file_errors(folder / TOKENIZER, CheckpointError, Exception):
            tokenizer = (folder / TOKENIZER).read_text(encoding="utf-8")
            Tokenizer.from_str(tokenizer)
        with wrap_file_errors(
            folder / FACTS, CheckpointError, (OSError, ValueError, TypeError, KeyError)
        ):
            raw = from_json((folder / FACTS).read_bytes())
            raw["spec"]["tokenizer_json"] = tokenizer
            facts = Facts.model_validate(raw)
        with wrap_file_errors(folder / WEIGHTS, CheckpointError, Exception):
            weights, _ = read_tensors(folder / WEIGHTS)
            _check_weights(facts, weights)
        tim = None
        if (folder / TIM).exists():
            with wrap_file_errors(folder / TIM, CheckpointError, (OSError, ValueError)):
                tim = Tim.model_validate_json((folder / TIM).read_bytes())
        return cls(facts, weights, tim)

    def net(self) -> M3H:
        """The network with its weights, in evaluation mode.

        Raises CheckpointError if facts and weights do not match.
        """
        try:
            net = build_net(self.facts)
            net.load_state_dict(self.weights)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{FACTS} and {WEIGHTS} do not belong together: {error_reason(error)}"
            ) from None
        return net.eval()


def _check_weights(facts: Facts, weights: dict[str, Tensor]) -> None:
    """Raises ValueError if the weights cannot be those of a training with these facts."""
    members = {name.split(".")[2] for name in weights if name.startswith("fusion.members.")}
    if len(members) != facts.members:
        raise ValueError(f"holds {len(members)} members, but {FACTS} lists {facts.members}")
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")


def build_net(facts: Facts) -> M3H:
    """A new network for the facts, with random weights."""
    spec = facts.spec
    visible = torch.tensor(
        [[m in facts.visible_modalities(task) for m in MODALITIES] for task in facts.tasks]
    )
    representations = build_representations(
        tabular=len(spec.tabular_names),
        statistics=(len(spec.variables), len(STATISTICS)),
        treatments=(len(spec.treatments), len(TREATMENT_FEATURES)),
        vocabulary=spec.vocabulary,
        words=facts.words,
        image_side=spec.image_side,
        findings={
            "tabular": TabularFindings(facts.findings, spec),
            "series": SeriesFindings(facts.findings, spec),
            "notes": NoteFindings(spec),
        }
        if facts.findings
        else None,
        values=[modality for modality in MODALITIES if facts.net.tree_count(modality)],
    )
    representations |= {m: build_encoder(encoder) for m, encoder in facts.pretrained.items()}
    net = M3H(facts.tasks, visible, representations, facts.net, facts.members)
    net.start_at(facts.prevalence)
    return net
