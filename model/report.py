"""The report: from kept predictions to docs/results.md, docs/results.json and plots."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from model.cohort import Cohort
from model.data import Rows
from model.evaluate import FEWEST_POSITIVES, HEADLINE_HOURS
from model.study import EXTERNAL, FOLDS, SINGLE_TASK, Job
from schemas.tasks import Task

mpl.use("Agg")
from matplotlib import pyplot as plt

Floats = npt.NDArray[np.float64]

REPLICATES = 1000
FEWEST_EXTERNAL = 8
FEWEST_FOR_CALIBRATION = 50
NAMES = {
    "m3h": "M3H (ensemble of 5)",
    "m3h_one": "M3H (one network)",
    SINGLE_TASK: "same network, single-task",
    "shared_trunk": "shared trunk, no attention (ensemble of 5)",
    "published": "M3H, attention as published (ensemble of 5)",
    "lightgbm": "LightGBM per task",
    "logistic_regression": "logistic regression per task",
}


@dataclass(frozen=True)
class Tested:
    """A model's predictions of all test patients, at one landmark.

    scores[task]: [n] of a binary task, [n, classes], or [n, 3] days; outcome [n, T]; fold [n];
    site [n] of the hospital (or, outside, the patient).
    """

    tasks: tuple[Task, ...]
    scores: dict[str, Floats]
    outcome: Floats
    fold: Rows
    site: npt.NDArray[np.str_]
    rows: Rows
    facts: tuple[dict[str, Any], ...]


class Kept:
    """The predictions of a study, read back."""

    def __init__(self, folder: Path, cohort: Cohort, other: Cohort | None) -> None:
        self.folder, self.cohort, self.other = folder, cohort, other

    def has(self, model: str, inputs: str, *, external: bool = False, share: float = 1.0) -> bool:
        return all(self._file(model, inputs, f, share).is_file() for f in _places(external))

    def _file(self, model: str, inputs: str, fold: str, share: float) -> Path:
        return self.folder / Job(model.removesuffix("_one"), inputs, fold, share).file

    def tested(
        self,
        model: str,
        inputs: str,
        *,
        external: bool = False,
        share: float = 1.0,
        hours: float = HEADLINE_HOURS,
    ) -> Tested:
        """`model` may be "m3h_one": the first member of the ensemble alone."""
        cohort = self.other if external and self.other is not None else self.cohort
        samples, tasks = cohort.samples, cohort.tasks
        kind = "one/" if model.endswith("_one") else "output/"
        parts, rows, fold, facts = [], [], [], []
        for number, place in enumerate(_places(external)):
            with np.load(self._file(model, inputs, place, share)) as kept:
                at = samples.landmark[kept["rows"]] == hours
                outputs = {
                    name.removeprefix(kind): kept[name][at].astype(np.float64)
                    for name in kept.files
                    if name.startswith(kind)
                }
                rows.append(kept["rows"][at])
                if "facts" in kept.files:
                    facts.append(json.loads(str(kept["facts"])))
            parts.append(outputs)
            fold.append(np.full(int(at.sum()), number))
        joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        binary = [t.name for t in tasks if t.kind == "binary"]
        scores = dict(zip(binary, joined.pop("binary").T, strict=True)) | joined
        row = np.concatenate(rows)
        return Tested(
            tasks=tasks,
            scores=scores,
            outcome=samples.outcomes[row].astype(np.float64),
            fold=np.concatenate(fold),
            site=(samples.patient if external else samples.site)[row],
            rows=row,
            facts=tuple(facts),
        )


def _places(external: bool) -> Sequence[str]:
    return (EXTERNAL,) if external else FOLDS


# ---- AUROC, and how sure it is -----------------------------------------------------------------


def weighted_auroc(outcome: Floats, score: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """The AUROC under each row of `weight` [replicates, n], and its weight of positives."""
    order = np.argsort(score, kind="stable")
    y, w = outcome[order], weight[:, order]
    first = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    positive = np.add.reduceat(w * y, first, axis=1)
    negative = np.add.reduceat(w * (1 - y), first, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    positives, negatives = positive.sum(axis=1), negative.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (positive * below).sum(axis=1) / (positives * negatives)
    return area, np.where((positives > 0) & (negatives > 0), positives, 0.0)


def replicate_weights(site: npt.NDArray[np.str_], fold: Rows, seed: int = 0) -> Floats:
    """[1 + REPLICATES, n] how often each patient is drawn; hospitals are drawn, within folds.

    The first row is the data as they are.
    """
    draw = np.random.default_rng(seed)
    weight = np.ones((1 + REPLICATES, len(site)))
    for f in np.unique(fold):
        here = fold == f
        _, code = np.unique(site[here], return_inverse=True)
        count = code.max() + 1
        times = draw.multinomial(count, np.full(count, 1 / count), REPLICATES)
        weight[1:, here] = times[:, code]
    return weight


def task_aurocs(tested: Tested, weight: Floats, fewest: int) -> dict[str, Floats]:
    """[1 + REPLICATES] of each task with enough positives: positives-weighted over folds."""
    found = {}
    for i, task in enumerate(tested.tasks):
        outcome = tested.outcome[:, i]
        if task.kind == "binary" and np.nansum(outcome) >= fewest:
            found[task.name] = _over_folds(tested, outcome, tested.scores[task.name], weight)
        elif task.kind == "multiclass" and task.name in tested.scores:
            p = tested.scores[task.name]
            known = ~np.isnan(outcome)
            by_class = [
                _over_folds(tested, np.where(known, outcome == k, np.nan), p[:, k], weight)
                for k in range(p.shape[1])
                if (outcome == k).sum() >= fewest
            ]
            found[task.name] = np.mean(by_class, axis=0)
    return found


def _over_folds(tested: Tested, outcome: Floats, score: Floats, weight: Floats) -> Floats:
    areas, weights = [], []
    for f in np.unique(tested.fold):
        here = (tested.fold == f) & ~np.isnan(outcome)
        area, positives = weighted_auroc(outcome[here], score[here], weight[:, here])
        areas.append(np.nan_to_num(area))
        weights.append(positives)
    total = np.sum(weights, axis=0)
    mean: Floats = (np.array(areas) * np.array(weights)).sum(axis=0) / np.where(
        total, total, np.nan
    )
    return mean


def interval(replicates: Floats) -> tuple[float, float, float]:
    """The figure of the data as they are, and the 95 % interval of the replicates."""
    low, high = np.nanquantile(replicates[1:], [0.025, 0.975])
    return float(replicates[0]), float(low), float(high)


class Compared:
    """Models side by side on the same patients, under the same replicates."""

    def __init__(self, tested: Mapping[str, Tested], fewest: int) -> None:
        self.tested = tested
        first = next(iter(tested.values()))
        weight = replicate_weights(first.site, first.fold)
        self.by_task = {m: task_aurocs(t, weight, fewest) for m, t in tested.items()}
        self.tasks = list(next(iter(self.by_task.values())))
        self.mean = {
            model: np.mean([areas[task] for task in self.tasks], axis=0)
            for model, areas in self.by_task.items()
        }

    def ahead(self, model: str, other: str) -> tuple[float, float, float]:
        """By how much a model's mean AUROC is above another's, paired."""
        return interval(self.mean[model] - self.mean[other])

    def relative_gain(self, model: str, other: str) -> tuple[float, float, float]:
        """The mean over tasks of (a - b) / b."""
        gains = [
            (self.by_task[model][t] - self.by_task[other][t]) / self.by_task[other][t]
            for t in self.tasks
        ]
        return interval(np.mean(gains, axis=0))


# ---- numbers that can be acted on ----------------------------------------------------------------


def pooled(tested: Tested, fewest: int) -> tuple[Floats, Floats, Floats]:
    """Probability, outcome and task number of all binary tasks with enough positives, in a row."""
    p, y, fold = [], [], []
    for i, task in enumerate(tested.tasks):
        outcome = tested.outcome[:, i]
        if task.kind == "binary" and np.nansum(outcome) >= fewest:
            known = ~np.isnan(outcome)
            p.append(tested.scores[task.name][known])
            y.append(outcome[known])
            fold.append(np.full(int(known.sum()), i))
    return np.concatenate(p), np.concatenate(y), np.concatenate(fold)


def calibration(tested: Tested, fewest: int = FEWEST_FOR_CALIBRATION) -> dict[str, float]:
    """Slope and intercept of a logistic recalibration, Brier skill, and calibration error.

    The noise floor is the calibration error that a perfectly calibrated model of the same
    probabilities would show by chance.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    p, y, task = pooled(tested, fewest)
    log_odds = np.log(p / (1 - p))
    fitted = LogisticRegression(C=1e6, max_iter=1000).fit(log_odds[:, None], y)
    usual = np.array([y[task == t].mean() for t in np.unique(task)])
    reference = np.mean((y - usual[np.searchsorted(np.unique(task), task)]) ** 2)
    draw = np.random.default_rng(0)
    floor = [calibration_error(p, (draw.random(len(p)) < p).astype(float)) for _ in range(100)]
    return {
        "slope": float(fitted.coef_[0, 0]),
        "intercept": _intercept(log_odds, y),
        "brier_skill": float(1 - np.mean((p - y) ** 2) / reference),
        "calibration_error": calibration_error(p, y),
        "noise_floor": float(np.mean(floor)),
    }


def _intercept(log_odds: Floats, y: Floats) -> float:
    """Calibration in the large: what must be added to the log-odds so that the mean is right."""
    from scipy.optimize import brentq  # noqa: PLC0415

    def excess(shift: float) -> float:
        return float((1 / (1 + np.exp(-log_odds - shift))).mean() - y.mean())

    return float(brentq(excess, -5, 5))


def calibration_error(p: Floats, y: Floats, bins: int = 10) -> float:
    """Mean distance of predicted and observed rate, in bins of equal mass."""
    parts = np.array_split(np.argsort(p), bins)
    return float(
        np.average([abs(p[i].mean() - y[i].mean()) for i in parts], weights=list(map(len, parts)))
    )


def coverage(tested: Tested, fewest: int = FEWEST_FOR_CALIBRATION) -> dict[str, float]:
    """How often sets and intervals hold what came, pooled."""
    held: dict[str, list[bool]] = {"positives": [], "negatives": [], "length_of_stay": []}
    sizes = []
    for i, task in enumerate(tested.tasks):
        outcome = tested.outcome[:, i]
        known = ~np.isnan(outcome)
        if task.kind == "binary" and np.nansum(outcome) >= fewest:
            for f in np.unique(tested.fold):
                limits = tested.facts[f]["sets"][task.name]["thresholds"]
                here = known & (tested.fold == f)
                p, y = tested.scores[task.name][here], outcome[here] == 1
                if limits:
                    yes, no = p >= limits["yes"], 1 - p >= limits["no"]
                    held["positives"] += yes[y].tolist()
                    held["negatives"] += no[~y].tolist()
                    sizes += (yes.astype(int) + no).tolist()
        elif task.kind == "regression":
            _, low, high = tested.scores[task.name][known].T
            days = np.maximum(outcome[known], 1 / 24)
            held["length_of_stay"] += ((low <= days) & (days <= high)).tolist()
    found = {name: float(np.mean(values)) for name, values in held.items()}
    return found | {"undecided": float(np.mean(np.array(sizes) == 2))}


def operations(tested: Tested) -> dict[str, float]:
    """Length of stay and disposition."""
    found = {}
    for i, task in enumerate(tested.tasks):
        known = ~np.isnan(tested.outcome[:, i])
        if task.kind == "regression" and task.name in tested.scores:
            days = tested.outcome[known, i]
            guess = tested.scores[task.name][known, 0]
            log = np.log(np.maximum(days, 1 / 24))
            found["mae_days"] = float(np.abs(days - guess).mean())
            found["r2_log_days"] = float(
                1 - np.mean((log - np.log(guess)) ** 2) / np.mean((log - log.mean()) ** 2)
            )
    return found


# ---- the report ----------------------------------------------------------------------------------


def write(work: Path, cohort: Cohort, other: Cohort | None, folder: Path) -> None:
    """Writes results.md, results.json and the plots to `folder`, of whatever the study holds."""
    kept = Kept(work, cohort, other)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    lines = [_HEAD]
    for inputs, title in _TABLES.items():
        models = [m for m in NAMES if kept.has(m, inputs)]
        if "m3h" in models:
            compared = Compared({m: kept.tested(m, inputs) for m in models}, FEWEST_POSITIVES)
            results[inputs] = _compare(compared)
            lines += [f"## {title}", "", *_table(results[inputs]), ""]
            if SINGLE_TASK in models:
                lines += [_gain(results[inputs]), ""]
            lines += _task_table(compared)
        models = [m for m in NAMES if other is not None and kept.has(m, inputs, external=True)]
        if "m3h" in models:
            tested = {m: kept.tested(m, inputs, external=True) for m in models}
            results[f"{inputs}_external"] = found = _compare(Compared(tested, FEWEST_EXTERNAL))
            lines += [f"## {title}: {_EXTERNAL}", "", *_table(found), ""]
    lines += _acting(kept, results, folder)
    lines += _ablations(kept, results)
    (folder / "results.md").write_text("\n".join(lines), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")


def _compare(compared: Compared) -> dict[str, Any]:
    found: dict[str, Any] = {"tasks": len(compared.tasks), "models": {}}
    for model, mean in compared.mean.items():
        here: dict[str, Any] = {
            "auroc": interval(mean),
            "by_task": {t: round(float(a[0]), 4) for t, a in compared.by_task[model].items()},
        }
        if model != "m3h":
            here["m3h_ahead_by"] = compared.ahead("m3h", model)
        if operations(compared.tested[model]):
            here |= operations(compared.tested[model])
        found["models"][model] = here
    if {"m3h_one", SINGLE_TASK} <= compared.mean.keys():
        found["gain_of_one_network"] = compared.ahead("m3h_one", SINGLE_TASK)
        found["relative_gain"] = compared.relative_gain("m3h_one", SINGLE_TASK)
    return found


def _table(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"Mean over {found['tasks']} tasks.",
        "",
        "| model | AUROC | M3H is ahead by | mortality | disposition | length of stay: MAE, R² |",
        "|---|---|---|---|---|---|",
    ]
    for model, here in found["models"].items():
        ahead = _with_interval(here["m3h_ahead_by"], "+") if "m3h_ahead_by" in here else ""
        tasks = here["by_task"]
        mortality, place = (
            f"{tasks[t]:.3f}" if t in tasks else ""
            for t in ("in_hospital_mortality", "discharge_disposition")
        )
        days = f"{here['mae_days']:.2f} d, {here['r2_log_days']:.2f}" if "mae_days" in here else ""
        area = _with_interval(here["auroc"])
        lines.append(f"| {NAMES[model]} | {area} | {ahead} | {mortality} | {place} | {days} |")
    return lines


def _with_interval(figures: Sequence[float], sign: str = "") -> str:
    value, low, high = figures
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _gain(found: Mapping[str, Any]) -> str:
    value, low, high = (100 * v for v in found["relative_gain"])
    return (
        f"One network that learns all tasks, against the same network for each task alone: "
        f"{value:+.1f} % [{low:+.1f}, {high:+.1f}] (mean over tasks of the relative gain), "
        f"{_with_interval(found['gain_of_one_network'], '+')} in mean AUROC."
    )


def _task_table(compared: Compared) -> list[str]:
    models = [m for m in NAMES if m in compared.mean]
    lines = [
        "<details><summary>By task</summary>",
        "",
        "| task | positives | " + " | ".join(NAMES[m] for m in models) + " |",
        "|---|---|" + "---|" * len(models),
    ]
    tested = next(iter(compared.tested.values()))
    for i, task in enumerate(tested.tasks):
        if task.name in compared.tasks:
            positives = int(np.nansum(tested.outcome[:, i])) if task.kind == "binary" else ""
            areas = " | ".join(f"{compared.by_task[m][task.name][0]:.3f}" for m in models)
            lines.append(f"| {task.display} | {positives} | {areas} |")
    return [*lines, "", "</details>", ""]


def _acting(kept: Kept, results: dict[str, Any], folder: Path) -> list[str]:
    """Calibration, intervals and sets of the whole model."""
    if not kept.has("m3h", "all"):
        return []
    tested = kept.tested("m3h", "all")
    found = {"calibration": calibration(tested), "coverage": coverage(tested)}
    results["acting"] = found
    _plot_calibration(tested, folder / "calibration.png")
    c, s, few = found["calibration"], found["coverage"], FEWEST_FOR_CALIBRATION
    return [
        "## Numbers that can be acted on",
        "",
        f"All inputs, hospitals never seen, tasks with at least {few} positives pooled.",
        "",
        "| | measured |",
        "|---|---|",
        f"| calibration slope, intercept | {c['slope']:.2f}, {c['intercept']:+.2f} |",
        f"| Brier skill | {c['brier_skill']:.3f} |",
        f"| calibration error (10 bins) | {c['calibration_error']:.4f} |",
        f"| its noise floor | {c['noise_floor']:.4f} |",
        f"| patients with the disease whose set holds it | {s['positives']:.3f} |",
        f"| patients without whose set says so | {s['negatives']:.3f} |",
        f"| sets that hold both answers | {s['undecided']:.3f} |",
        f"| 90 % interval of the length of stay holds it | {s['length_of_stay']:.3f} |",
        "",
        "![Calibration](calibration.png)",
        "",
    ]


def _plot_calibration(tested: Tested, path: Path) -> None:
    p, y, _ = pooled(tested, FEWEST_FOR_CALIBRATION)
    parts = np.array_split(np.argsort(p), 20)
    figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.plot([p[i].mean() for i in parts], [y[i].mean() for i in parts], "o-", markersize=4)
    axes.set(xlabel="predicted probability", ylabel="observed rate", xlim=(0, 0.8), ylim=(0, 0.8))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _ablations(kept: Kept, results: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, Callable[[], Tested]]] = []
    for inputs, name in _PARTS.items():
        if kept.has("m3h", inputs):
            rows.append((name, lambda inputs=inputs: kept.tested("m3h", inputs)))  # type: ignore[misc]
    if not rows:
        return []
    found = {}
    for name, read in rows:
        found[name] = interval(Compared({"m3h": read()}, FEWEST_POSITIVES).mean["m3h"])
    results["inputs"] = found
    lines = ["## What each input gives", "", "| M3H with | AUROC |", "|---|---|"]
    lines += [f"| {name} | {_with_interval(figures)} |" for name, figures in found.items()]
    return [*lines, ""]


_HEAD = """\
# Results

Made by `make results`. eICU demo, five folds by hospital (no hospital and no patient on both
sides), 24 h after admission to the unit. AUROC: the mean over tasks with at least 20 positives of
the positives-weighted mean of within-fold AUROCs. In brackets: 95 % intervals of 1,000 bootstraps
over hospitals, paired where models are compared.
"""
_TABLES = {
    "measured": "Vital signs, laboratory values, demographics",
    "all": "All inputs: also treatments and notes",
}
_EXTERNAL = "trained on eICU, tested on MIMIC-IV (tasks with at least 8 positives)"
_PARTS = {
    "all": "all inputs",
    "without_notes": "all but notes",
    "without_series": "all but series and treatments",
    "without_tabular": "all but tabular",
    "only_notes": "notes alone",
    "only_series": "series and treatments alone",
    "only_tabular": "tabular alone",
}
