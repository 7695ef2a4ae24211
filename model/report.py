"""The report: from kept predictions to docs/results.md, docs/results.json and plots."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.cohort import Cohort
from model.evaluate import FEWEST_POSITIVES, HEADLINE_HOURS
from model.measure import (
    FEWEST_FOR_CALIBRATION,
    Compared,
    Tested,
    calibration,
    coverage,
    interval,
    operations,
)
from model.plots import calibration_curve
from model.study import EXTERNAL, FOLDS, SINGLE_TASK, Job

FEWEST_EXTERNAL = 8
NAMES = {
    "m3h": "M3H (ensemble of 5)",
    "m3h_one": "M3H (one network)",
    SINGLE_TASK: "same network, single-task",
    "shared_trunk": "shared trunk, no attention (ensemble of 5)",
    "published": "M3H, attention as published (ensemble of 5)",
    "lightgbm": "LightGBM per task",
    "logistic_regression": "logistic regression per task",
}


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
    calibration_curve(tested, folder / "calibration.png")
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
