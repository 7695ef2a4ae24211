"""A study of whether attention reflects known relations between tasks, on synthetic patients.

The synthetic cohort (`model/cohorts/synthetic/`) is drawn from a known graph, in which tasks that
share a latent factor are related. The study compares four measures with the graph: the mean
attention of one task to another after training; the same before training, as a control; the
correlation of the training outcomes; and the correlation of the predictions.

Each seed draws other patients and another network. Its results are stored in a file, and a seed
whose file exists is not run again. A seed takes about two minutes on one core.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from model.cohorts import labels, synthetic
from model.cohorts.store import Cohort, write
from model.network.config import NetConfig
from model.training.config import TrainConfig
from model.training.data import RepresentedSamples, SampleTensors, ensemble_outputs
from model.training.preparation import PreparedTraining
from model.training.trainer import Trainer
from schemas.features import FeatureSpec
from schemas.response import Modality
from schemas.tasks import Task, load_tasks

Floats = npt.NDArray[np.float64]
Figures = dict[str, Any]

SEEDS = (44, 45, 46)
PATIENTS = 1600  # for training, and as many others for testing
FORMS = ("balanced", "published")
# Without X-rays: they inform five tasks only and double the time.
MODALITIES: tuple[Modality, ...] = ("tabular", "series", "notes")
# Each seed trains every third single-task network, so that each task is trained once.
SINGLE_TASK_STEP = len(SEEDS)
# The signs of the synthetic diseases are drawn, and contradict the expected effects.
CONFIG = TrainConfig(members=1, net=NetConfig(clinical_effects=False))


# ---- the known graph -----------------------------------------------------------------------------


def relations(tasks: Sequence[Task]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """[T, T] the absolute correlation of two tasks' liabilities, and whether they are related."""
    loadings = np.array(
        [[f.loadings.get(task.name, 0.0) for task in tasks] for f in synthetic.FACTORS.values()]
    )
    related = np.array(
        [[bool(synthetic.shared_factors(a.name, b.name)) for b in tasks] for a in tasks]
    )
    return np.abs(loadings.T @ loadings), related


def agreement(weights: Floats, tasks: Sequence[Task]) -> Figures:
    """How well the weights between tasks [T, T], off the diagonal, reflect the relations.

    `auroc`: the probability that a related pair has a larger weight than an unrelated one; .5 for
    random weights. `rank_correlation`: Spearman, with the strength of the relation.
    """
    strength, related = relations(tasks)
    off = ~np.eye(len(tasks), dtype=np.bool_)
    return {
        "auroc": float(roc_auc_score(related[off], weights[off])),
        "rank_correlation": float(spearmanr(strength[off], weights[off]).statistic),
    }


# ---- one seed ------------------------------------------------------------------------------------


def measure(seed: int, patients: int = PATIENTS, config: TrainConfig = CONFIG) -> Figures:
    """The figures of one seed: agreement with the graph, and gains from joint training."""
    config = config.model_copy(update={"seed": seed})
    learn, test = _cohorts(seed, patients)
    binary = [i for i, task in enumerate(learn.tasks) if task.kind == "binary"]
    outcomes = test.samples.outcomes[:, binary].astype(np.float64)
    training_outcomes = learn.samples.outcomes[:, binary].astype(np.float64)
    binary_tasks = [learn.tasks[i] for i in binary]
    figures: Figures = {"outcomes": agreement(_correlation(training_outcomes), binary_tasks)}
    for form in FORMS:
        net = config.net.model_copy(update={"attention": form})
        prepared = PreparedTraining(
            [learn], config.model_copy(update={"net": net}), modalities=MODALITIES
        )
        testing = _Testing(prepared, test)
        trainer = Trainer(prepared)
        _, before = testing.outputs(trainer)
        epochs = sum(1 for _ in trainer.run())
        raw, after = testing.outputs(trainer)
        figures[form] = {
            "epochs": epochs,
            "before": _attention(before, learn.tasks),
            "after": _attention(after, learn.tasks),
            "predictions": agreement(_correlation(raw["binary"]), binary_tasks),
            "task_auroc": float(np.mean(_aurocs(outcomes, raw["binary"]))),
        }
        if form == FORMS[0]:
            joint = _aurocs(outcomes, raw["binary"])
            figures["gain"] = {}
            for k in range(seed % SINGLE_TASK_STEP, len(binary), SINGLE_TASK_STEP):
                name = binary_tasks[k].name
                single = Trainer(prepared, tasks=[name])
                for _ in single.run():
                    pass
                area = _aurocs(outcomes[:, [k]], testing.outputs(single)[0]["binary"])[0]
                figures["gain"][name] = joint[k] - area
    return figures


def _cohorts(seed: int, patients: int) -> tuple[Cohort, Cohort]:
    """Patients for training, and others for testing."""
    with TemporaryDirectory() as folder:
        records = synthetic.patients(2 * patients, seed)
        parts: dict[str, Any] = {"name": "synthetic", "source": synthetic.SOURCE}
        made_by = (synthetic, labels)
        spec = FeatureSpec.default()
        for _ in write(records, Path(folder), **parts, made_by=made_by, spec=spec):
            pass
        cohort = Cohort.load(Path(folder))
    rows = np.arange(2 * patients)
    learn, test = (cohort.samples.take(half) for half in np.split(rows, 2))
    return replace(cohort, samples=learn), replace(cohort, samples=test)


class _Testing:
    """The test patients and their representations."""

    def __init__(self, prepared: PreparedTraining, cohort: Cohort) -> None:
        self.data = SampleTensors([cohort], MODALITIES)
        self.represented = RepresentedSamples.compute(self.data, prepared.encoders)

    @torch.no_grad()
    def outputs(self, trainer: Trainer) -> tuple[dict[str, Floats], Floats]:
        """Raw outputs by name, and the mean attention [T, T]."""
        rows = np.arange(len(self.data))
        raw, attention = ensemble_outputs(trainer.net, self.represented, self.data, rows)
        return {k: v.double().numpy() for k, v in raw.items()}, attention.double().mean(0).numpy()


def _attention(mean: Floats, tasks: Sequence[Task]) -> Figures:
    """Agreement of the mean attention with the graph; the phenotype is not part of the graph."""
    rows = [i for i, task in enumerate(tasks) if task.kind != "clustering"]
    part = mean[np.ix_(rows, rows)]
    own = float(np.diag(part).mean())
    return agreement(part, [tasks[i] for i in rows]) | {"own_weight": own}


def _correlation(columns: Floats) -> Floats:
    correlation: Floats = np.abs(np.corrcoef(columns.T))
    return correlation


def _aurocs(outcomes: Floats, scores: Floats) -> list[float]:
    return [float(roc_auc_score(y, s)) for y, s in zip(outcomes.T, scores.T, strict=True)]


# ---- all seeds -----------------------------------------------------------------------------------


def run(folder: Path, patients: int = PATIENTS, config: TrainConfig = CONFIG) -> Iterator[int]:
    """Runs the seeds that have no file in `folder`; yields each seed when its file exists."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        path = _file(folder, seed)
        if not path.is_file():
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(measure(seed, patients, config), indent=1))
            partial.replace(path)
        yield seed


def summarise(folder: Path) -> Figures:
    """Each figure's mean over the seeds and its 95 % interval (Student's t).

    Raises FileNotFoundError, which names the file, if a seed was not run.
    """
    seeds = [json.loads(_file(folder, seed).read_text("utf-8")) for seed in SEEDS]
    gains = {task: gain for seed in seeds for task, gain in seed.pop("gain").items()}
    summary: Figures = _over_seeds(seeds)
    every = [task for task in load_tasks() if task.kind != "clustering"]
    strength, related = relations(every)
    np.fill_diagonal(strength, 0.0)
    shared = dict(zip([task.name for task in every], strength.sum(axis=1).tolist(), strict=True))
    pairs = np.array([[gain, shared[task]] for task, gain in gains.items()])
    summary["gain"] = {
        "tasks": len(gains),
        "mean": _over_tasks(pairs, lambda sample: sample[:, 0].mean()),
        "with_relations": _over_tasks(pairs, lambda sample: spearmanr(*sample.T).statistic),
    }
    pairs_of_tasks = len(every) * (len(every) - 1)
    return {
        "seeds": len(seeds),
        "pairs": pairs_of_tasks,
        "related": int(related.sum() - np.trace(related)),
        **summary,
    }


def _file(folder: Path, seed: int) -> Path:
    return folder / f"synthetic-{seed}.json"


def _over_seeds(seeds: Sequence[Any]) -> Any:
    if isinstance(seeds[0], Mapping):
        return {name: _over_seeds([seed[name] for seed in seeds]) for name in seeds[0]}
    mean, spread = np.mean(seeds), np.std(seeds, ddof=1)
    half = student.ppf(0.975, len(seeds) - 1) * spread / np.sqrt(len(seeds))
    return [round(float(v), 4) for v in (mean, mean - half, mean + half)]


def _over_tasks(pairs: Floats, figure: Any) -> list[float]:
    """A figure over tasks, with the 95 % interval of 1,000 bootstraps over tasks."""
    draw = np.random.default_rng(0)
    replicates = [figure(pairs[draw.integers(len(pairs), size=len(pairs))]) for _ in range(1000)]
    low, high = np.quantile(replicates, [0.025, 0.975])
    return [round(float(v), 4) for v in (figure(pairs), low, high)]


def report_lines(figures: Figures) -> list[str]:
    """The section of the report, in Markdown."""
    rows = [("correlation of the training outcomes", figures["outcomes"])]
    for form in FORMS:
        rows += [
            (f"correlation of the predictions, {form}", figures[form]["predictions"]),
            (f"attention, {form}: after training", figures[form]["after"]),
            (f"attention, {form}: before training (control)", figures[form]["before"]),
        ]
    table = [
        f"| {name} | {_interval(row['auroc'])} | {_interval(row['rank_correlation'], '+')} |"
        for name, row in rows
    ]
    areas = [f"{form} {_interval(figures[form]['task_auroc'])}" for form in FORMS]
    own = [
        f"{form} {figures[form]['before']['own_weight'][0]:.2f} before training and "
        f"{figures[form]['after']['own_weight'][0]:.2f} after"
        for form in FORMS
    ]
    gain = figures["gain"]
    return [
        _METHOD.format(seeds=figures["seeds"], pairs=figures["pairs"], related=figures["related"]),
        "| measure | AUROC: related or not | rank correlation with the strength |",
        "|---|---|---|",
        *table,
        "",
        _conclusion(figures),
        "",
        f"Mean AUROC of the tasks: {', '.join(areas)}. Weight of a task itself: {'; '.join(own)}.",
        _GAIN.format(
            tasks=gain["tasks"],
            mean=_interval(gain["mean"], "+"),
            with_relations=_interval(gain["with_relations"], "+", 2),
        ),
    ]


def _conclusion(figures: Figures) -> str:
    """The conclusion that the intervals support."""
    sentences = []
    for form in FORMS:
        value, low, high = figures[form]["after"]["auroc"]
        verdict = "distinguishes related from unrelated pairs better than chance"
        if low <= 0.5:
            verdict = "does not distinguish related from unrelated pairs with certainty"
        sentences.append(f"The {form} attention {verdict} ({_interval([value, low, high])}).")
    if all(figures[form]["predictions"]["auroc"][1] > 0.5 for form in FORMS):
        sentences.append(_PREDICTIONS)
    return " ".join(sentences)


def _interval(figure: Sequence[float], sign: str = "", digits: int = 3) -> str:
    value, low, high = (f"{v:{sign}.{digits}f}" for v in figure)
    return f"{value} [{low}, {high}]"


_METHOD = """\
Synthetic patients are drawn from a known graph, in which {related} of {pairs} ordered pairs of
tasks share a latent cause. One network for each form of attention is trained on them (tabular data,
series, notes), and its mean attention on other patients is compared with the graph. {seeds} seeds,
each with its own patients and network; 95 % intervals over the seeds in brackets.
"""
_PREDICTIONS = """\
The predictions reflect the relations. So an attention weight shows what the network reads; it is no
evidence that two tasks are related in patients."""
_GAIN = """\
Mean gain of one network for all {tasks} tasks over single-task networks: {mean}. Rank correlation
of a task's gain with the strength of its relations: {with_relations}."""
