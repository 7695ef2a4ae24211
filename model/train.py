"""Training: many tasks, many cohorts, any subset of the modalities."""

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar
from sklearn.cluster import KMeans
from sklearn.model_selection import GroupShuffleSplit
from torch import Tensor

from model.checkpoint import Checkpoint, Facts, make_net, write_tensors
from model.cohort import Cohort, Samples
from model.losses import Losses
from model.net import M3H, NetConfig
from schemas.features import STATISTICS
from schemas.manifest import Cohort as CohortFacts
from schemas.manifest import Phenotype
from schemas.response import MODALITIES, Modality

STATE = "state.safetensors"
# Sites from which on validation takes whole hospitals; with fewer it takes patients.
MANY_SITES = 10
SPLITS_TRIED = 50
# Share of samples that must have a variable for it to shape the phenotypes.
OFTEN = 0.3


class TrainConfig(BaseModel):
    """How to train. A TOML file with these names changes any of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    net: NetConfig = NetConfig()
    seed: int = 0
    epochs: int = 60
    patience: int = 8
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    # What is validated and served is a running mean of the weights, kept at this rate.
    averaging: float = 0.97
    validation_share: float = 0.15
    # A patient keeps all modalities with this probability; else each is hidden at random, all of
    # them in one case of sixteen, so that any subset works and none at all gives the prevalence.
    keep_all_modalities: float = 0.5
    loss_weights: dict[str, float] = {
        "binary": 1.0,
        "multiclass": 0.1,
        "regression": 0.1,
        "clustering": 0.1,
    }


class RunError(ValueError):
    """A run that cannot be: cohorts that do not fit together, a folder that holds another run."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch achieved: mean losses by kind, in training and on validation patients."""

    number: int
    training: dict[str, float]
    validation: dict[str, float]
    best: bool


class Data:
    """Samples of all cohorts as tensors, ready to be dealt in batches."""

    def __init__(self, cohorts: Sequence[Cohort], modalities: Sequence[Modality]) -> None:
        samples = Samples.concatenate([c.samples for c in cohorts])
        self.samples = samples
        self.cohort = np.repeat(np.arange(len(cohorts)), [len(c.samples) for c in cohorts])
        used = np.array([m in modalities for m in MODALITIES])
        self.present = torch.from_numpy(samples.present & used)
        self.outcomes = torch.from_numpy(samples.outcomes)
        self.tabular = torch.from_numpy(samples.tabular)
        self.statistics = torch.from_numpy(samples.statistics)
        self.treatments = torch.from_numpy(samples.treatments)
        self.pixels = torch.from_numpy(samples.pixels)
        has_image = samples.present[:, MODALITIES.index("image")]
        self.image_of = torch.from_numpy(np.cumsum(has_image) - 1)
        ends = np.cumsum(samples.lengths)
        self.tokens = [
            torch.from_numpy(samples.tokens[end - length : end])
            for end, length in zip(ends, samples.lengths, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.cohort)

    def inputs(self, rows: Tensor, present: Tensor) -> dict[Modality, dict[str, Tensor]]:
        """For each modality, the inputs of those `rows` that have it."""
        of = {m: rows[present[:, i]] for i, m in enumerate(MODALITIES)}
        found: dict[Modality, dict[str, Tensor]] = {}
        if len(of["tabular"]):
            found["tabular"] = {"values": self.tabular[of["tabular"]]}
        if len(of["series"]):
            found["series"] = {
                "statistics": self.statistics[of["series"]],
                "treatments": self.treatments[of["series"]],
            }
        if len(of["notes"]):
            lists = [self.tokens[i] for i in of["notes"].tolist()]
            padded = torch.nn.utils.rnn.pad_sequence(lists, batch_first=True)
            found["notes"] = {"tokens": padded.long()}
        if len(of["image"]):
            found["image"] = {"pixels": self.pixels[self.image_of[of["image"]]]}
        return found


def check_alike(cohorts: Sequence[Cohort]) -> None:
    """Raises RunError unless the cohorts were made with the same spec and tasks."""
    for other in cohorts[1:]:
        if other.spec != cohorts[0].spec or other.tasks != cohorts[0].tasks:
            raise RunError(
                f"the cohorts {cohorts[0].name} and {other.name} were made with different "
                "variables, tokenizers or tasks; make them anew with one version"
            )


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


def validation_rows(
    samples: Samples, share: float, seed: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows to learn from and rows to stop by: whole hospitals if there are many, else patients.

    Hospitals differ much in what they code. Of several random splits it is the one whose labels
    are most alike on both sides, so that stopping and calibration fit the rest as well.
    """
    many = len(np.unique(samples.site)) >= MANY_SITES
    groups = samples.site if many else samples.patient
    splits = GroupShuffleSplit(SPLITS_TRIED, test_size=share, random_state=seed)

    def unlike(split: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]) -> float:
        one, other = (_label_means(samples.outcomes[rows]) for rows in split)
        return float(np.nanmean((one - other) ** 2 / np.maximum(one + other, 0.01)))

    return min(splits.split(groups, groups=groups), key=unlike)


def _label_means(outcomes: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """[T]; NaN for a task without a label here."""
    known = ~np.isnan(outcomes)
    total = np.where(known, outcomes, 0.0).sum(axis=0, dtype=np.float64)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def facts_of(
    cohorts: Sequence[Cohort],
    config: TrainConfig,
    command: str,
    modalities: Sequence[Modality] = MODALITIES,
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
        net=config.net,
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


class Trainer:
    """One training run. Every epoch is seeded on its own, so that a resumed run is the same run.

    `learning` is the network that the gradient moves, `net` the running mean of its weights.
    """

    def __init__(
        self,
        cohorts: Sequence[Cohort],
        config: TrainConfig,
        *,
        command: str = "",
        modalities: Sequence[Modality] = MODALITIES,
    ) -> None:
        check_alike(cohorts)
        torch.manual_seed(config.seed)
        self.config = config
        self.data = Data(cohorts, modalities)
        self.facts = facts_of(cohorts, config, command, modalities)
        self.training, self.validation = self._split(cohorts)
        self.offset = self._offsets(cohorts)
        self.net = make_net(self.facts)
        self._fit_normalisation()
        self.learning = copy.deepcopy(self.net)
        tasks, prevalence = list(self.facts.tasks), self.facts.prevalence
        self.losses = Losses(tasks, prevalence, self._prototypes())
        self.optimiser = torch.optim.AdamW(
            self._parameter_groups(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.epoch, self.best_loss, self.best_epoch = 0, math.inf, 0
        self.best = self._weights()

    def _split(
        self, cohorts: Sequence[Cohort]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        first, training, validation = 0, [], []
        for cohort in cohorts:
            learn, stop = validation_rows(
                cohort.samples, self.config.validation_share, self.config.seed
            )
            training.append(first + learn)
            validation.append(first + stop)
            first += len(cohort.samples)
        return np.concatenate(training), np.concatenate(validation)

    def _offsets(self, cohorts: Sequence[Cohort]) -> Tensor:
        """[cohorts, T] log-odds."""
        names = [task.name for task in self.facts.tasks]
        by_cohort = [[o.get(n, 0.0) for n in names] for o in log_odds_offsets(cohorts)]
        return torch.tensor(by_cohort, dtype=torch.float32)

    def _fit_normalisation(self) -> None:
        """From the training rows that have the modality; tabular from all of them."""
        rows = torch.from_numpy(self.training)
        present = self.data.present[rows]
        series = rows[present[:, MODALITIES.index("series")]]
        tabular = rows[present[:, MODALITIES.index("tabular")]]
        encoders: Any = self.net.encoders
        if len(tabular):
            encoders["tabular"].normalise.fit(self.data.tabular[tabular])
        if len(series):
            encoders["series"].normalise.fit(self.data.statistics[series])
            encoders["series"].normalise_treatments.fit(self.data.treatments[series])

    def _standardised(self) -> Tensor:
        """[n, V] each variable's mean, in training patients' spreads; NaN if not measured.

        Of variables that most patients have no value of it is NaN for all: a phenotype of who had a
        rare test ordered would say nothing of the others.
        """
        encoders: Any = self.net.encoders
        column = STATISTICS.index("mean")
        with torch.no_grad():
            scaled = encoders["series"].normalise(self.data.statistics)[:, :, column]
        missing = torch.isnan(self.data.statistics[:, :, column])
        missing |= ~self.data.present[:, [MODALITIES.index("series")]]
        often = (~missing[torch.from_numpy(self.training)]).float().mean(dim=0) > OFTEN
        return scaled.masked_fill(missing | ~often, torch.nan)

    def _prototypes(self) -> Tensor:
        """k-means over the training patients, missing values at the median. Label-free."""
        self.statistics = self._standardised()
        rows = self.statistics[torch.from_numpy(self.training)]
        rows = torch.nan_to_num(rows[~torch.isnan(rows).all(dim=1)])
        clusters = self.config.net.clusters
        if len(rows) < clusters:
            return torch.zeros(clusters, self.statistics.shape[1])
        found = KMeans(clusters, n_init=4, random_state=self.config.seed).fit(rows.numpy())
        return torch.tensor(found.cluster_centers_, dtype=torch.float32)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Biases, norms and the attention's scalars are not pulled to zero."""
        parameters = list(self.learning.parameters())
        return [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def run(self, folder: Path | None = None) -> Iterator[Epoch]:
        """Trains until `patience` epochs bring nothing; yields after each.

        With a folder, the state is kept there after each epoch, and a run that was killed goes on
        from it. At the end the best weights are calibrated.
        """
        if folder is not None:
            self._resume(folder)
        last, patience = self.config.epochs, self.config.patience
        while self.epoch < last and self.epoch - self.best_epoch < patience:
            self.epoch += 1
            training = self._one_epoch()
            validation = self._validate()
            loss = self._total(validation)
            best = loss < self.best_loss
            if best:
                self.best_loss, self.best_epoch, self.best = loss, self.epoch, self._weights()
            if folder is not None:
                self._keep(folder)
            yield Epoch(self.epoch, training, validation, best)
        self.net.load_state_dict(self.best)
        self._calibrate()

    def checkpoint(self) -> Checkpoint:
        facts = self.facts.model_copy(update={"phenotypes": self._phenotypes()})
        return Checkpoint(facts, self._weights())

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.net.state_dict().items()}

    def _total(self, losses: dict[str, float]) -> float:
        return sum(self.config.loss_weights[kind] * value for kind, value in losses.items())

    def _one_epoch(self) -> dict[str, float]:
        self.learning.train()
        generator = torch.Generator().manual_seed(self.config.seed * 100_003 + self.epoch)
        torch.manual_seed(self.config.seed * 100_003 + self.epoch)
        order = torch.from_numpy(self.training)[
            torch.randperm(len(self.training), generator=generator)
        ]
        totals: dict[str, float] = {}
        batches = order.split(self.config.batch)
        for rows in batches:
            present = self._hide(self.data.present[rows], generator)
            losses = self._losses(self.learning, rows, present)
            total = torch.stack([self.config.loss_weights[k] * v for k, v in losses.items()]).sum()
            self.optimiser.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(self.learning.parameters(), 1.0)
            self.optimiser.step()
            self._average()
            for kind, value in losses.items():
                totals[kind] = totals.get(kind, 0.0) + value.item() / len(batches)
        return totals

    @torch.no_grad()
    def _average(self) -> None:
        pairs = zip(self.net.parameters(), self.learning.parameters(), strict=True)
        for mean, latest in pairs:
            mean.lerp_(latest, 1 - self.config.averaging)

    def _losses(self, net: M3H, rows: Tensor, present: Tensor) -> dict[str, Tensor]:
        raw, _ = net(self.data.inputs(rows, present), present)
        offset = self.offset[torch.from_numpy(self.data.cohort)[rows]]
        found: dict[str, Tensor] = self.losses(
            raw, self.data.outcomes[rows], offset, self.statistics[rows]
        )
        return found

    def _hide(self, present: Tensor, generator: torch.Generator) -> Tensor:
        all_of_them = torch.rand(len(present), 1, generator=generator)
        keep = torch.rand(present.shape, generator=generator) < 0.5
        return present & (keep | (all_of_them < self.config.keep_all_modalities))

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """With everything that is there, the way that the model is served."""
        self.net.eval()
        totals: dict[str, float] = {}
        for rows in torch.from_numpy(self.validation).split(1024):
            for kind, value in self._losses(self.net, rows, self.data.present[rows]).items():
                share = len(rows) / len(self.validation)
                totals[kind] = totals.get(kind, 0.0) + value.item() * share
        return totals

    @torch.no_grad()
    def raw(self, rows: npt.NDArray[np.intp]) -> dict[str, Tensor]:
        """Raw outputs of the samples at `rows`."""
        return raw_outputs(self.net, self.data, rows)

    def _calibrate(self) -> None:
        """Stretches each task's log-odds around its prevalence to fit the validation patients."""
        raw = self.raw(self.validation)
        if "binary" not in raw:
            return
        rows = torch.from_numpy(self.validation)
        offset = self.offset[torch.from_numpy(self.data.cohort)[rows]]
        calibrate = self.net.calibrate
        for i, column in enumerate(self.losses.columns):
            target = self.data.outcomes[rows, column]
            known = ~torch.isnan(target)
            base = calibrate.prior[i] + offset[known, column]
            evidence = raw["binary"][known, i] - calibrate.prior[i]
            calibrate.scale[i] = stretch(evidence, base, target[known])

    @torch.no_grad()
    def _phenotypes(self) -> tuple[Phenotype, ...]:
        name = next((t.name for t in self.facts.tasks if t.kind == "clustering"), None)
        if name is None:
            return ()
        series = self.data.present[:, MODALITIES.index("series")].numpy()
        rows = self.training[series[self.training]]
        if not len(rows):
            return ()
        cluster = self.raw(rows)[name].argmax(dim=1)
        statistics = self.statistics[torch.from_numpy(rows)]
        found = []
        for k in range(self.config.net.clusters):
            mean = torch.nan_to_num(torch.nanmean(statistics[cluster == k], dim=0))
            top = mean.abs().argsort(descending=True)[:5].tolist()
            by_name = {self.facts.spec.variables[v].name: round(float(mean[v]), 2) for v in top}
            found.append(
                Phenotype(
                    cluster=k,
                    share=float((cluster == k).float().mean()),
                    distinguished_by=by_name,
                )
            )
        return tuple(found)

    def _keep(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"net/{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"learning/{k}": v for k, v in self.learning.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{i}/{k}": v for k, v in state.items()}
        progress = {
            "epoch": self.epoch,
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "of": self._identity(),
        }
        write_tensors(tensors, folder / STATE, {"progress": json.dumps(progress)})

    def _identity(self) -> dict[str, Any]:
        """What a run must have in common with the one that it resumes."""
        return {
            "training": self.facts.training,
            "net": self.facts.net.model_dump(mode="json"),
            "cohorts": [c.digest for c in self.facts.cohorts],
        }

    def _resume(self, folder: Path) -> None:
        if not (folder / STATE).is_file():
            return
        with safe_open(folder / STATE, framework="pt") as state_file:
            progress = json.loads(state_file.metadata()["progress"])
        if progress["of"] != self._identity():
            raise RunError(
                f"{folder} holds another run (other cohorts or another configuration); "
                "take another folder, or remove it to start anew"
            )
        tensors = load_file(folder / STATE)
        self.net.load_state_dict(_below("net/", tensors))
        self.learning.load_state_dict(_below("learning/", tensors))
        self.best = _below("best/", tensors)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimiser/", tensors).items():
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.epoch = progress["epoch"]
        self.best_loss, self.best_epoch = progress["best_loss"], progress["best_epoch"]


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@torch.no_grad()
def raw_outputs(net: M3H, data: Data, rows: npt.NDArray[np.intp]) -> dict[str, Tensor]:
    """Raw outputs of the samples at `rows`, with every modality that is there."""
    net.eval()
    parts: list[dict[str, Tensor]] = []
    for some in torch.from_numpy(rows).split(1024):
        present = data.present[some]
        parts.append(net(data.inputs(some, present), present)[0])
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def stretch(evidence: Tensor, base: Tensor, target: Tensor, pull: float = 5.0) -> float:
    """The factor on the evidence that makes `base + factor * evidence` the likeliest log-odds.

    A quadratic pull towards 1 leaves a task with few patients nearly as it is. The factor stays
    above 0: calibration never turns a ranking around. (Temperature scaling, Guo et al. 2017,
    around the prevalence.)
    """
    e, b, y = (one.double().numpy() for one in (evidence, base, target))

    def objective(factor: float) -> float:
        z = b + factor * e
        return float((np.logaddexp(0.0, z) - y * z).sum() + pull / 2 * (factor - 1) ** 2)

    return float(minimize_scalar(objective, bounds=(0.05, 5.0), method="bounded").x)
