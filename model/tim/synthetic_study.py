"""Does attention find relations between tasks that are known? Asked of made patients.

The synthetic cohort (`model/cohorts/synthetic/`) is drawn from a graph: tasks that share a
latent factor are related. M3H learns from such patients, and the mean attention that a task pays to
another is compared with the graph, after training and, as a control, before it. So are two things
that need no attention: the correlation of the outcomes that were learned from, and that of the
predictions.

Each seed draws other patients and another network. What a seed gave is kept as a file; a seed whose
file is there is not run again. About two minutes each on one core.
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
from model.training.data import Data, Represented, raw_outputs
from model.training.prepare import Prepared, TrainConfig
from model.training.train import Trainer
from schemas.features import FeatureSpec
from schemas.response import Modality
from schemas.tasks import Task, load_tasks

Floats = npt.NDArray[np.float64]
Found = dict[str, Any]

SEEDS = (44, 45, 46)
PATIENTS = 1600  # to learn from, and as many others to test on
FORMS = ("balanced", "published")
# Drawn X-rays speak of five tasks, and take as long as all else.
MODALITIES: tuple[Modality, ...] = ("tabular", "series", "notes")
# Networks of one task alone are many: of each seed every third, so that each is tried once.
ALONE_EVERY = len(SEEDS)
CONFIG = TrainConfig(members=1)


# ---- the graph that is known ---------------------------------------------------------------------


def relations(tasks: Sequence[Task]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """[T, T] how strongly the liabilities of two tasks are correlated, and whether at all."""
    loadings = np.array(
        [[f.loadings.get(task.name, 0.0) for task in tasks] for f in synthetic.FACTORS.values()]
    )
    related = np.array(
        [[bool(synthetic.shared_factors(a.name, b.name)) for b in tasks] for a in tasks]
    )
    return np.abs(loadings.T @ loadings), related


def agreement(weights: Floats, tasks: Sequence[Task]) -> Found:
    """How well the weights between tasks [T, T] tell which are related; the diagonal is left out.

    `auroc`: that a related pair has a larger weight than an unrelated one; `rank_correlation`
    (Spearman) with the strength of the relation. Of nothing known .5 and 0.
    """
    strength, related = relations(tasks)
    off = ~np.eye(len(tasks), dtype=np.bool_)
    return {
        "auroc": float(roc_auc_score(related[off], weights[off])),
        "rank_correlation": float(spearmanr(strength[off], weights[off]).statistic),
    }


# ---- one seed ------------------------------------------------------------------------------------


def measure(seed: int, patients: int = PATIENTS, config: TrainConfig = CONFIG) -> Found:
    """What one seed gives: agreement with the graph, and what tasks gain by learning together."""
    config = config.model_copy(update={"seed": seed})
    learn, test = _cohorts(seed, patients)
    binary = [i for i, task in enumerate(learn.tasks) if task.kind == "binary"]
    outcomes = test.samples.outcomes[:, binary].astype(np.float64)
    told = learn.samples.outcomes[:, binary].astype(np.float64)
    of_binary = [learn.tasks[i] for i in binary]
    found: Found = {"outcomes": agreement(_correlation(told), of_binary)}
    for form in FORMS:
        net = config.net.model_copy(update={"attention": form})
        prepared = Prepared([learn], config.model_copy(update={"net": net}), modalities=MODALITIES)
        asked = _Asked(prepared, test)
        trainer = Trainer(prepared)
        _, before = asked.answers(trainer)
        epochs = sum(1 for _ in trainer.run())
        raw, after = asked.answers(trainer)
        found[form] = {
            "epochs": epochs,
            "before": _attention(before, learn.tasks),
            "after": _attention(after, learn.tasks),
            "predictions": agreement(_correlation(raw["binary"]), of_binary),
            "task_auroc": float(np.mean(_areas(outcomes, raw["binary"]))),
        }
        if form == FORMS[0]:
            together = _areas(outcomes, raw["binary"])
            found["gain"] = {}
            for k in range(seed % ALONE_EVERY, len(binary), ALONE_EVERY):
                alone = Trainer(prepared, tasks=[of_binary[k].name])
                for _ in alone.run():
                    pass
                area = _areas(outcomes[:, [k]], asked.answers(alone)[0]["binary"])[0]
                found["gain"][of_binary[k].name] = together[k] - area
    return found


def _cohorts(seed: int, patients: int) -> tuple[Cohort, Cohort]:
    """Patients to learn from, and others to test on."""
    with TemporaryDirectory() as folder:
        records = synthetic.patients(2 * patients, seed)
        parts: dict[str, Any] = {"name": "synthetic", "source": synthetic.SOURCE}
        made_by = (synthetic, labels)
        spec = FeatureSpec.default()
        for _ in write(records, Path(folder), **parts, made_by=made_by, spec=spec):
            pass
        made = Cohort.load(Path(folder))
    rows = np.arange(2 * patients)
    learn, test = (made.samples.take(some) for some in np.split(rows, 2))
    return replace(made, samples=learn), replace(made, samples=test)


class _Asked:
    """The patients to test on, as a network's representations see them."""

    def __init__(self, prepared: Prepared, cohort: Cohort) -> None:
        self.data = Data([cohort], MODALITIES)
        self.represented = Represented.of(self.data, prepared.encoders)

    @torch.no_grad()
    def answers(self, trainer: Trainer) -> tuple[dict[str, Floats], Floats]:
        """Raw outputs by name, and the mean attention [T, T]."""
        rows = np.arange(len(self.data))
        raw, attention = raw_outputs(trainer.net, self.represented, self.data, rows)
        return {k: v.double().numpy() for k, v in raw.items()}, attention.double().mean(0).numpy()


def _attention(mean: Floats, tasks: Sequence[Task]) -> Found:
    """Of the tasks that have labels; the phenotype is in no relation that is known."""
    rows = [i for i, task in enumerate(tasks) if task.kind != "clustering"]
    part = mean[np.ix_(rows, rows)]
    own = float(np.diag(part).mean())
    return agreement(part, [tasks[i] for i in rows]) | {"own_weight": own}


def _correlation(columns: Floats) -> Floats:
    found: Floats = np.abs(np.corrcoef(columns.T))
    return found


def _areas(outcomes: Floats, scores: Floats) -> list[float]:
    return [float(roc_auc_score(y, s)) for y, s in zip(outcomes.T, scores.T, strict=True)]


# ---- all seeds -----------------------------------------------------------------------------------


def run(folder: Path, patients: int = PATIENTS, config: TrainConfig = CONFIG) -> Iterator[int]:
    """Runs the seeds whose files are not in `folder` yet; yields each when it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        path = _file(folder, seed)
        if not path.is_file():
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(measure(seed, patients, config), indent=1))
            partial.replace(path)
        yield seed


def figures(folder: Path) -> Found:
    """All seeds together: of each figure the mean and its 95 % interval (Student's t, over seeds).

    Raises FileNotFoundError, naming the seed, if one was not run yet.
    """
    seeds = [json.loads(_file(folder, seed).read_text("utf-8")) for seed in SEEDS]
    gains = {task: gain for one in seeds for task, gain in one.pop("gain").items()}
    found: Found = _over_seeds(seeds)
    every = [task for task in load_tasks() if task.kind != "clustering"]
    strength, related = relations(every)
    np.fill_diagonal(strength, 0.0)
    shared = dict(zip([task.name for task in every], strength.sum(axis=1).tolist(), strict=True))
    pairs = np.array([[gain, shared[task]] for task, gain in gains.items()])
    found["gain"] = {
        "tasks": len(gains),
        "mean": _over_tasks(pairs, lambda some: some[:, 0].mean()),
        "with_relations": _over_tasks(pairs, lambda some: spearmanr(*some.T).statistic),
    }
    pairs_of_tasks = len(every) * (len(every) - 1)
    return {
        "seeds": len(seeds),
        "pairs": pairs_of_tasks,
        "related": int(related.sum() - np.trace(related)),
        **found,
    }


def _file(folder: Path, seed: int) -> Path:
    return folder / f"synthetic-{seed}.json"


def _over_seeds(seeds: Sequence[Any]) -> Any:
    if isinstance(seeds[0], Mapping):
        return {name: _over_seeds([one[name] for one in seeds]) for name in seeds[0]}
    mean, spread = np.mean(seeds), np.std(seeds, ddof=1)
    half = student.ppf(0.975, len(seeds) - 1) * spread / np.sqrt(len(seeds))
    return [round(float(v), 4) for v in (mean, mean - half, mean + half)]


def _over_tasks(pairs: Floats, figure: Any) -> list[float]:
    """A figure over tasks, with the 95 % interval of 1,000 bootstraps of them."""
    draw = np.random.default_rng(0)
    drawn = [figure(pairs[draw.integers(len(pairs), size=len(pairs))]) for _ in range(1000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return [round(float(v), 4) for v in (figure(pairs), low, high)]


def lines(found: Found) -> list[str]:
    """The section of the report, in Markdown."""
    rows = [("correlation of the outcomes that were learned from", found["outcomes"])]
    for form in FORMS:
        rows += [
            (f"correlation of the predictions, {form}", found[form]["predictions"]),
            (f"attention, {form}: after training", found[form]["after"]),
            (f"attention, {form}: before, at random (control)", found[form]["before"]),
        ]
    table = [
        f"| {name} | {_told(here['auroc'])} | {_told(here['rank_correlation'], '+')} |"
        for name, here in rows
    ]
    areas = [f"{form} {_told(found[form]['task_auroc'])}" for form in FORMS]
    own = [
        f"{form} {found[form]['before']['own_weight'][0]:.2f} before training and "
        f"{found[form]['after']['own_weight'][0]:.2f} after"
        for form in FORMS
    ]
    gain = found["gain"]
    return [
        _WHAT.format(seeds=found["seeds"], pairs=found["pairs"], related=found["related"]),
        "| told by | AUROC: which pairs are related | rank correlation with the strength |",
        "|---|---|---|",
        *table,
        "",
        _answer(found),
        "",
        f"Mean AUROC of the tasks: {', '.join(areas)}. Weight of a task itself: {'; '.join(own)}.",
        _GAIN.format(
            tasks=gain["tasks"],
            mean=_told(gain["mean"], "+"),
            with_relations=_told(gain["with_relations"], "+", 2),
        ),
    ]


def _answer(found: Found) -> str:
    """What the intervals allow to say."""
    words = []
    for form in FORMS:
        value, low, high = found[form]["after"]["auroc"]
        finds = "tells related pairs better than chance"
        if low <= 0.5:
            finds = "does not certainly tell related pairs from unrelated ones"
        words.append(f"The {form} attention {finds} ({_told([value, low, high])}).")
    if all(found[form]["predictions"]["auroc"][1] > 0.5 for form in FORMS):
        words.append(_THOUGH)
    return " ".join(words)


def _told(figure: Sequence[float], sign: str = "", digits: int = 3) -> str:
    value, low, high = (f"{v:{sign}.{digits}f}" for v in figure)
    return f"{value} [{low}, {high}]"


_WHAT = """\
Made patients, drawn from a graph that is known: of {pairs} ordered pairs of tasks {related} share a
latent cause. One network for each form of attention learns from them (tabular data, series, notes);
its mean attention over other patients is compared with the graph. {seeds} seeds, each with patients
and a network of its own; in brackets the 95 % interval over them.
"""
_THOUGH = """\
The predictions do hold the relations: a weight of attention says what was read, not what is
related, and is no evidence of a relation in patients."""
_GAIN = """\
Over the {tasks} tasks, one network gains {mean} over the same network for each alone; rank
correlation of a task's gain with how strongly it is related to the others: {with_relations}."""
