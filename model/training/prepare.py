"""What is known before a label is learned from: how to train, facts, splits, representations.

Many cohorts together, each with its sampling; shared by all that learns from them.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from sklearn.model_selection import GroupKFold
from torch import Tensor

from model.cohorts.samples import Samples
from model.cohorts.store import Cohort
from model.errors import UserError
from model.network.checkpoint import Facts, make_net
from model.network.net import NetConfig
from model.representations.phenotypes import prototypes, standardised
from model.representations.pretrained import Pretrained, read_encoders
from model.representations.represent import kept_words
from model.training.data import Data, Represented, Rows
from model.training.device import CPU, Device
from model.training.distributed import ALONE, Processes
from schemas.manifest import Cohort as CohortFacts
from schemas.response import MODALITIES, Modality

# Sites from which on whole hospitals are held out; with fewer it is patients.
MANY_SITES = 10
# Samples that tell by how much what a pretrained encoder says of patients differs.
ENOUGH = 2000

Floats = npt.NDArray[np.float64]


_LOSS_WEIGHTS = {
    "binary": 1.0,
    "multiclass": 0.1,
    "regression": 0.1,
    "clustering": 0.1,
}


class TrainConfig(BaseModel):
    """How to train. A TOML file with these names changes any of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    net: NetConfig = NetConfig()
    seed: int = Field(0, ge=0)
    # Networks whose answers are averaged. Each learns from other hospitals than it is stopped by;
    # the hospitals that the members hold out are dealt like the folds of a cross-validation.
    members: int = Field(8, ge=1)
    epochs: int = Field(60, ge=1)
    patience: int = Field(8, ge=1)
    batch: int = Field(256, ge=1)
    learning_rate: float = Field(1e-3, gt=0, le=1)
    weight_decay: float = Field(0.1, ge=0, le=1)
    # What is validated and served is a running mean of the weights, kept at this rate.
    averaging: float = Field(0.97, ge=0, lt=1)
    # A patient keeps all modalities with this probability; else each is hidden at random, all of
    # them in one case of sixteen, so that any subset works and none at all gives the prevalence.
    keep_all_modalities: float = Field(0.3, ge=0, le=1)
    # Kinds that are not named keep these.
    loss_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = _LOSS_WEIGHTS

    @field_validator("loss_weights")
    @classmethod
    def _all_kinds(cls, weights: dict[str, float]) -> dict[str, float]:
        if not weights.keys() <= _LOSS_WEIGHTS.keys():
            raise ValueError(f"the kinds of tasks are {', '.join(_LOSS_WEIGHTS)}")
        return {**_LOSS_WEIGHTS, **weights}


class RunError(UserError):
    """A run that cannot be: cohorts that do not fit together, a folder that holds another run."""


def check_alike(cohorts: Sequence[Cohort]) -> None:
    """Raises RunError unless the cohorts were made with the same spec and tasks."""
    for other in cohorts[1:]:
        if other.spec != cohorts[0].spec or other.tasks != cohorts[0].tasks:
            raise RunError(
                f"the cohorts {cohorts[0].name} and {other.name} were made with different "
                "variables, tokenizers or tasks; make them anew with one version"
            )


def check_groups(tasks: Sequence[str], groups: Sequence[Sequence[str]]) -> None:
    """Raises RunError unless each task is in one of the groups, or there are none."""
    named = [name for group in groups for name in group]
    unknown = sorted(set(named) - set(tasks))
    if unknown:
        raise RunError(
            f"groups: no such task: {', '.join(unknown)}; the tasks are {', '.join(tasks)}"
        )
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise RunError(f"groups: in more than one group: {', '.join(twice)}")
    missing = [name for name in tasks if name not in named]
    if groups and missing:
        raise RunError(f"groups: every task belongs to one; in none: {', '.join(missing)}")


def log_odds_offsets(cohorts: Sequence[Cohort]) -> list[dict[str, float]]:
    """By how much each cohort's sampling raises a task's log-odds above the first cohort's.

    A set of images chosen for pneumonia says nothing of how common pneumonia is. Smoothed by half
    a patient on either side.
    """

    def log_odds(cohort: Cohort, column: int) -> float | None:
        known = cohort.samples.outcomes[:, column]
        known = known[~np.isnan(known)]
        if not len(known):
            return None
        return math.log((known.sum() + 0.5) / (len(known) - known.sum() + 0.5))

    offsets: list[dict[str, float]] = []
    for cohort in cohorts:
        mine: dict[str, float] = {}
        for i, task in enumerate(cohort.tasks):
            if task.kind != "binary":
                continue
            here, first = log_odds(cohort, i), log_odds(cohorts[0], i)
            if here is not None and first is not None:
                mine[task.name] = here - first
        offsets.append(mine)
    return offsets


def held_out(samples: Samples, members: int, seed: int) -> list[tuple[Rows, Rows]]:
    """For each member the rows to learn from and those to stop by; all of a site on one side.

    With at least five members every row is held out by one of them at most.
    """
    many = len(np.unique(samples.site)) >= MANY_SITES
    groups = samples.site if many else samples.patient
    folds = GroupKFold(max(members, 5), shuffle=True, random_state=seed)
    found = []
    for learn, stop in folds.split(groups, groups=groups):
        # A patient who was in several hospitals is on one side too.
        alone = ~np.isin(samples.patient[learn], samples.patient[stop])
        found.append((learn[alone], stop))
    return found[:members]


def facts_of(
    cohorts: Sequence[Cohort],
    config: TrainConfig,
    command: str,
    words: int,
    modalities: Sequence[Modality],
    pretrained: Mapping[Modality, Pretrained],
) -> Facts:
    """What is known of a model before it is trained: labels, prevalences, cohorts."""
    tasks = cohorts[0].tasks
    used = np.array([m in modalities for m in MODALITIES])
    known = [~np.isnan(c.samples.outcomes) for c in cohorts]
    labels: dict[str, dict[Modality, int]] = {
        task.name: {
            m: sum(
                _patients(c.samples, k[:, i] & (c.samples.present & used)[:, j])
                for c, k in zip(cohorts, known, strict=True)
            )
            for j, m in enumerate(MODALITIES)
        }
        for i, task in enumerate(tasks)
    }
    binary = [(i, t) for i, t in enumerate(tasks) if t.kind == "binary"]
    hours = np.concatenate([c.samples.landmark for c in cohorts])
    return Facts(
        tasks=tasks,
        spec=cohorts[0].spec,
        # An encoder is told by its name: a path would say something of this machine alone.
        net=config.net.model_copy(
            update={f"{m}_encoder": found.name for m, found in pretrained.items()}
        ),
        pretrained=dict(pretrained),
        members=config.members,
        words=words,
        labels=labels,
        positives={
            t.name: sum(_patients(c.samples, c.samples.outcomes[:, i] == 1) for c in cohorts)
            for i, t in binary
        },
        prevalence={
            t.name: float(np.nanmean(cohorts[0].samples.outcomes[:, i])) for i, t in binary
        },
        cohorts=tuple(
            CohortFacts(
                name=c.name,
                patients=len(np.unique(c.samples.patient)),
                samples=len(c.samples),
                landmarks_hours=tuple(np.unique(c.samples.landmark[~np.isnan(c.samples.landmark)])),
                log_odds_offset=offset if c is not cohorts[0] else {},
                with_notes_and_image=_patients(c.samples, (c.samples.present & used)[:, 2:].all(1)),
                source=c.source,
                digest=c.digest,
            )
            for c, offset in zip(cohorts, log_odds_offsets(cohorts), strict=True)
        ),
        trained_hours=(float(np.nanmin(hours)), float(np.nanmax(hours))),
        command=command,
        training=config.model_dump(mode="json", exclude={"net"}),
    )


def _patients(samples: Samples, rows: npt.NDArray[np.bool_]) -> int:
    return len(np.unique(samples.patient[rows]))


class Prepared:
    """What is known before a label is looked at, shared by all that learns from these cohorts.

    The first of the processes fits the representations, so that they are the same everywhere.
    Raises RunError if there are more processes than members: a member is one process's work.
    """

    def __init__(
        self,
        cohorts: Sequence[Cohort],
        config: TrainConfig,
        *,
        command: str = "",
        modalities: Sequence[Modality] = MODALITIES,
        device: Device = CPU,
        processes: Processes = ALONE,
    ) -> None:
        check_alike(cohorts)
        check_groups([task.name for task in cohorts[0].tasks], config.net.groups)
        if processes.size > config.members:
            raise RunError(
                f"{processes.size} processes, but {config.members} members to train, each by one "
                f"process: start {config.members} processes at most (torchrun --nproc-per-node), "
                f"or train more members (members = {processes.size} in the configuration)"
            )
        self.config, self.device, self.processes = config, device, processes
        self.data = Data(cohorts, modalities)
        everyone = np.arange(len(self.data))
        share, patients = self.data.token_shares(everyone, cohorts[0].spec.vocabulary)
        words = kept_words(share, patients)
        pretrained = read_encoders(config.net, cohorts[0].spec)
        found = {modality: encoder.facts for modality, encoder in pretrained.items()}
        if "notes" in found:
            words = words[:0]
        self.facts = facts_of(cohorts, config, command, len(words), modalities, found)
        self.offset = self._offsets(cohorts)
        self.splits = self._splits(cohorts)
        encoders: Any = make_net(self.facts).encoders
        for modality, encoder in pretrained.items():
            encoders[modality].represent = encoder
        self.encoders = encoders
        if processes.first:
            self._fit(words)
        self._take(self.label_free())
        self.represented = Represented.of(self.data, self.encoders, device, processes)
        self.statistics = standardised(self.data, encoders["series"].represent.normalise)
        self.prototypes = torch.zeros(config.net.clusters, self.statistics.shape[1])
        if processes.first:
            for modality, vectors in self.represented.vectors.items():
                encoders[modality].ordinary.fit(vectors.cpu())
            self.prototypes = prototypes(self.statistics, config.net.clusters, config.seed)
        self._take({**self.label_free(".ordinary."), "prototypes": self.prototypes})

    def label_free(self, part: str = "") -> dict[str, Tensor]:
        """What of the encoders, or of a part of each, is fitted without labels."""
        state: dict[str, Tensor] = self.encoders.state_dict()
        return {n: value for n, value in state.items() if ".adapters." not in n and part in n}

    def _take(self, fitted: dict[str, Tensor]) -> None:
        """Makes what was fitted that of the first process."""
        self.processes.meet()
        self.processes.send(fitted.values())

    def _fit(self, words: Tensor) -> None:
        data, encoders = self.data, cast("Any", self.encoders)
        modalities: tuple[Modality, ...] = ("tabular", "series")
        for modality in modalities:
            rows = data.rows_with(modality)
            if len(rows):
                encoders[modality].represent.fit(**data.inputs(modality, rows))
        for modality in self.facts.pretrained:
            represent = encoders[modality].represent.to(self.device.where)
            chunks = data.chunks(modality, represent.at_once)
            some = chunks[:: max(1, len(chunks) * represent.at_once // ENOUGH)]
            represent.fit(x for rows in some for x in data.inputs(modality, rows).values())
            represent.cpu()
        if "notes" not in self.facts.pretrained:
            notes = (data.inputs("notes", chunk)["tokens"] for chunk in data.chunks("notes"))
            encoders["notes"].represent.fit(words, notes)

    def _offsets(self, cohorts: Sequence[Cohort]) -> Tensor:
        """[N, T] log-odds by which each sample's cohort is above the first."""
        names = [task.name for task in cohorts[0].tasks]
        by_cohort = [[o.get(n, 0.0) for n in names] for o in log_odds_offsets(cohorts)]
        return torch.tensor(by_cohort, dtype=torch.float32)[torch.from_numpy(self.data.cohort)]

    def _splits(self, cohorts: Sequence[Cohort]) -> list[tuple[Rows, Rows]]:
        """For each member, over all cohorts together."""
        first = np.cumsum([0, *(len(c.samples) for c in cohorts)])
        each = [held_out(c.samples, self.config.members, self.config.seed) for c in cohorts]
        return [
            (
                np.concatenate([at + learn for at, (learn, _) in zip(first, parts, strict=False)]),
                np.concatenate([at + stop for at, (_, stop) in zip(first, parts, strict=False)]),
            )
            for parts in zip(*each, strict=True)
        ]

    @cached_property
    def weight(self) -> Floats:
        """[N] one for each patient, shared by the patient's samples."""
        patients = self.data.samples.patient
        _, code, count = np.unique(patients, return_inverse=True, return_counts=True)
        return 1 / count[code]
