"""Preparation of a training on one or more cohorts: splits, facts, representations.

All networks that are trained on the cohorts share it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from sklearn.model_selection import GroupKFold
from torch import Tensor

from model.cohorts.samples import Samples
from model.cohorts.store import Cohort
from model.errors import RunError
from model.knowledge.findings import load_findings
from model.network.checkpoint import Facts, build_net
from model.representations.informative_words import informative_ids
from model.representations.modalities import select_words
from model.representations.pretrained import Pretrained, read_encoders
from model.training.config import TrainConfig
from model.training.data import RepresentedSamples, Rows, SampleTensors
from model.training.per_task.fits import PerTaskFits
from model.training.phenotypes import fit_prototypes, standardise
from model.training.processes.device import CPU, Device
from model.training.processes.distributed import SINGLE_PROCESS, ProcessGroup
from schemas.manifest import Cohort as CohortFacts
from schemas.response import MODALITIES, Modality

# With at least so many sites, whole hospitals are held out; with fewer, patients are.
MIN_SITES = 10
# Samples on which the scaling of a pretrained encoder's features is fitted.
SCALING_SAMPLES = 2000

Floats = npt.NDArray[np.float64]


def check_compatible(cohorts: Sequence[Cohort]) -> None:
    """Raises RunError unless all cohorts have the same spec and tasks."""
    for other in cohorts[1:]:
        if other.spec != cohorts[0].spec or other.tasks != cohorts[0].tasks:
            raise RunError(
                f"the cohorts {cohorts[0].name} and {other.name} were made with different "
                "variables, tokenizers or tasks; make them again with one version"
            )


def check_groups(tasks: Sequence[str], groups: Sequence[Sequence[str]]) -> None:
    """Raises RunError unless each task is in exactly one group, or there are no groups."""
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
        raise RunError(f"groups: every task needs a group; without one: {', '.join(missing)}")


def learnable_cohorts(cohorts: Sequence[Cohort]) -> tuple[list[Cohort], list[str]]:
    """The cohorts with the tasks that one of them has labels of; the names of the other tasks.

    Raises RunError if no task is left beside a clustering, or if the tasks do not match.
    """
    check_compatible(cohorts)
    learnable = {name for cohort in cohorts for name in cohort.labelled_tasks()}
    tasks = cohorts[0].tasks
    if not any(task.name in learnable and task.kind != "clustering" for task in tasks):
        raise RunError(
            f"no task can be learned from {', '.join(c.name for c in cohorts)}: no outcome has "
            "labels of patients with and without it"
        )
    without = [task.name for task in tasks if task.name not in learnable]
    return [c.of_tasks(sorted(learnable)) for c in cohorts] if without else list(cohorts), without


def log_odds_offsets(cohorts: Sequence[Cohort]) -> list[dict[str, float]]:
    """By how much each cohort's sampling raises a task's log-odds above the first cohort's.

    The first cohort is the first that has labels of the task. The offsets keep a selected cohort
    (images chosen for pneumonia) from raising the predicted prevalence. Counts are smoothed by half
    a patient.
    """

    def log_odds(cohort: Cohort, column: int) -> float | None:
        known = cohort.samples.outcomes[:, column]
        known = known[~np.isnan(known)]
        if not len(known):
            return None
        return math.log((known.sum() + 0.5) / (len(known) - known.sum() + 0.5))

    offsets: list[dict[str, float]] = [{} for _ in cohorts]
    for i, task in enumerate(cohorts[0].tasks):
        if task.kind != "binary":
            continue
        by_cohort = [log_odds(cohort, i) for cohort in cohorts]
        first = next((value for value in by_cohort if value is not None), None)
        for mine, here in zip(offsets, by_cohort, strict=True):
            if here is not None and first is not None:
                mine[task.name] = here - first
    return offsets


def _prevalence(cohorts: Sequence[Cohort], column: int) -> float:
    """The share of positives in the first cohort with labels; NaN if there is none."""
    outcomes = (cohort.samples.outcomes[:, column] for cohort in cohorts)
    known = (outcome[~np.isnan(outcome)] for outcome in outcomes)
    return next((float(values.mean()) for values in known if len(values)), math.nan)


def member_splits(samples: Samples, members: int, seed: int) -> list[tuple[Rows, Rows]]:
    """For each member, the rows to learn from and the held-out rows; a site is on one side.

    At least five folds are made, so that each row is held out by at most one member.
    """
    many = len(np.unique(samples.site)) >= MIN_SITES
    groups = samples.site if many else samples.patient
    folds = GroupKFold(max(members, 5), shuffle=True, random_state=seed)
    splits = []
    for learn, stop in folds.split(groups, groups=groups):
        # A patient of several hospitals must not be on both sides.
        disjoint = ~np.isin(samples.patient[learn], samples.patient[stop])
        splits.append((learn[disjoint], stop))
    return splits[:members]


def initial_facts(
    cohorts: Sequence[Cohort],
    config: TrainConfig,
    command: str,
    words: int,
    modalities: Sequence[Modality],
    pretrained: Mapping[Modality, Pretrained],
) -> Facts:
    """The facts that are known before training: labels, prevalences, cohorts."""
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
        # An encoder's name instead of its path: the path is specific to this machine.
        net=config.net.model_copy(
            update={f"{m}_encoder": encoder.name for m, encoder in pretrained.items()}
        ),
        pretrained=dict(pretrained),
        findings=load_findings(cohorts[0].spec) if config.net.clinical_effects else {},
        members=config.members,
        words=words,
        labels=labels,
        positives={
            t.name: sum(_patients(c.samples, c.samples.outcomes[:, i] == 1) for c in cohorts)
            for i, t in binary
        },
        prevalence={t.name: _prevalence(cohorts, i) for i, t in binary},
        cohorts=tuple(
            _cohort_facts(c, used, offset if c is not cohorts[0] else {})
            for c, offset in zip(cohorts, log_odds_offsets(cohorts), strict=True)
        ),
        trained_hours=(float(np.nanmin(hours)), float(np.nanmax(hours))),
        command=command,
        training=config.model_dump(mode="json", exclude={"net"}),
    )


def _cohort_facts(
    cohort: Cohort, used: npt.NDArray[np.bool_], log_odds_offset: dict[str, float]
) -> CohortFacts:
    """`used` [4]: the modalities in use."""
    samples = cohort.samples
    landmarks = samples.landmark[~np.isnan(samples.landmark)]
    both = np.asarray((samples.present & used)[:, 2:].all(axis=1), np.bool_)
    return CohortFacts(
        name=cohort.name,
        patients=len(np.unique(samples.patient)),
        samples=len(samples),
        landmarks_hours=tuple(np.unique(landmarks)),
        log_odds_offset=log_odds_offset,
        with_notes_and_image=_patients(samples, both),
        source=cohort.source,
        digest=cohort.digest,
    )


def _patients(samples: Samples, rows: npt.NDArray[np.bool_]) -> int:
    return len(np.unique(samples.patient[rows]))


class PreparedTraining:
    """Everything that is fixed before a label is used; all networks of the cohorts share it.

    The first process fits the representations, so that they are the same in all processes.
    Raises RunError if the cohorts do not match, if `config` does not fit their tasks, or if there
    are more processes than members, since one process trains a whole member. Raises EncoderError if
    a pretrained encoder cannot be used.

    `data`, `represented`: the samples and their representations. `offset` [N, T]: see
    `log_odds_offsets`. `splits`: see `member_splits`. `encoders`: the network's encoders, with
    fitted representations. `per_task`: evidence and trees; a preparation of the same samples and
    members can take them over. `statistics` [N, V], `prototypes` [clusters, V]: of the phenotypes.
    """

    def __init__(
        self,
        cohorts: Sequence[Cohort],
        config: TrainConfig,
        *,
        command: str = "",
        modalities: Sequence[Modality] = MODALITIES,
        device: Device = CPU,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        check_compatible(cohorts)
        check_groups([task.name for task in cohorts[0].tasks], config.net.groups)
        if processes.size > config.members:
            raise RunError(
                f"{processes.size} processes cannot train {config.members} members, each of which "
                f"needs one process: start {config.members} processes at most "
                f"(torchrun --nproc-per-node), or train more members (members = {processes.size} "
                "in the configuration)"
            )
        self.config, self.device, self.processes = config, device, processes
        self.data = SampleTensors(cohorts, modalities)
        everyone = np.arange(len(self.data))
        share, patients = self.data.token_shares(everyone, cohorts[0].spec.vocabulary)
        words = select_words(share, patients)
        words = words[informative_ids(cohorts[0].spec)[words]]
        net = config.net
        pretrained = read_encoders(net.notes_encoder, net.image_encoder, cohorts[0].spec)
        encoder_facts = {modality: encoder.facts for modality, encoder in pretrained.items()}
        if "notes" in pretrained:
            words = words[:0]
        self.facts = initial_facts(cohorts, config, command, len(words), modalities, encoder_facts)
        self.offset = self._offsets(cohorts)
        self.splits = self._splits(cohorts)
        encoders: Any = build_net(self.facts).encoders
        for modality, encoder in pretrained.items():
            encoders[modality].represent = encoder
        self.encoders = encoders
        if processes.is_first:
            self._fit_representations(words)
        self._share(self.label_free())
        self.represented = RepresentedSamples.compute(self.data, encoders, device, processes)
        self.per_task = PerTaskFits(
            self.facts,
            encoders,
            self.represented,
            self.data,
            self.offset,
            [learn for learn, _ in self.splits],
        )
        self.statistics = standardise(self.data, encoders["series"].represent.normalise)
        self.prototypes = torch.zeros(net.clusters, self.statistics.shape[1])
        if processes.is_first:
            for modality, vectors in self.represented.vectors.items():
                learned = vectors if vectors.ndim > 2 else vectors[:, : encoders[modality].width]
                encoders[modality].ordinary.fit(learned.cpu())
            self.prototypes = fit_prototypes(self.statistics, net.clusters, config.seed)
        self._share({**self.label_free(".ordinary."), "prototypes": self.prototypes})

    def label_free(self, part: str = "") -> dict[str, Tensor]:
        """The encoders' weights that are fitted without labels, with `part` in their names."""
        state: dict[str, Tensor] = self.encoders.state_dict()
        return {n: value for n, value in state.items() if ".adapters." not in n and part in n}

    def _share(self, fitted: dict[str, Tensor]) -> None:
        """Copies fitted tensors from the first process to all others."""
        self.processes.barrier()
        self.processes.broadcast(fitted.values())

    def _fit_representations(self, words: Tensor) -> None:
        data, encoders = self.data, cast("Any", self.encoders)
        modalities: tuple[Modality, ...] = ("tabular", "series")
        for modality in modalities:
            rows = data.rows_with(modality)
            if len(rows):
                encoders[modality].represent.fit(**data.inputs(modality, rows))
        for modality in self.facts.pretrained:
            represent = encoders[modality].represent.to(self.device.torch_device)
            chunks = data.chunks(modality, represent.batch_size)
            step = max(1, len(chunks) * represent.batch_size // SCALING_SAMPLES)
            represent.fit(
                x for rows in chunks[::step] for x in data.inputs(modality, rows).values()
            )
            represent.cpu()
        if "notes" not in self.facts.pretrained:
            notes = (data.inputs("notes", chunk)["tokens"] for chunk in data.chunks("notes"))
            encoders["notes"].represent.fit(words, notes)

    def _offsets(self, cohorts: Sequence[Cohort]) -> Tensor:
        """[N, T] the log-odds offset of each sample's cohort."""
        names = [task.name for task in cohorts[0].tasks]
        by_cohort = [[o.get(n, 0.0) for n in names] for o in log_odds_offsets(cohorts)]
        return torch.tensor(by_cohort, dtype=torch.float32)[torch.from_numpy(self.data.cohort)]

    def _splits(self, cohorts: Sequence[Cohort]) -> list[tuple[Rows, Rows]]:
        """`member_splits` of all cohorts together."""
        starts = np.cumsum([0, *(len(c.samples) for c in cohorts)])
        config = self.config
        by_cohort = [member_splits(c.samples, config.members, config.seed) for c in cohorts]
        return [
            (
                np.concatenate([i + learn for i, (learn, _) in zip(starts, parts, strict=False)]),
                np.concatenate([i + stop for i, (_, stop) in zip(starts, parts, strict=False)]),
            )
            for parts in zip(*by_cohort, strict=True)
        ]
