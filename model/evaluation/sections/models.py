"""Models side by side, on hospitals never seen and at another database."""

from collections.abc import Callable

import numpy as np

from model.evaluation.evaluate import FEWEST_POSITIVES
from model.evaluation.measure import Compared, Found, interval, operations, precision_and_brier
from model.evaluation.sections import FEWEST_FEW, NAMES, ONE, Section
from model.evaluation.sections.markdown import (
    figure,
    folded,
    listed,
    percents,
    prose,
    table,
    with_interval,
)
from model.evaluation.study import SINGLE_TASK
from model.evaluation.study_results import Kept, NotYet


def _side_by_side(inputs: str, *, external: bool = False) -> Callable[[Kept], Found]:
    fewest = FEWEST_FEW if external else FEWEST_POSITIVES

    def measure(kept: Kept) -> Found:
        if external and kept.other is None:
            raise NotYet("the study has no other database")
        models = [m for m in NAMES if kept.has(m, inputs, external=external)]
        if "m3h" not in models:
            kept.tested("m3h", inputs, external=external)  # says what is missing
        compared = kept.compared(models, inputs, fewest, external=external)
        first = compared.tested["m3h"]
        found: Found = {
            "stays": len(first.rows),
            "tasks": len(compared.tasks),
            "fewest_positives": fewest,
            "display": {t.name: t.display for t in first.tasks if t.name in compared.tasks},
            "positives": {
                t: int(np.nansum(first.outcome[:, first.column(t)]))
                for t in first.binary_with(fewest)
            },
            "models": {m: _model(compared, m, fewest) for m in models},
            "not_yet": [NAMES[m] for m in NAMES if m not in models],
        }
        if {ONE, SINGLE_TASK} <= set(models):
            found["gain_of_one_network"] = compared.ahead(ONE, SINGLE_TASK)
            found["relative_gain"] = compared.relative_gain(ONE, SINGLE_TASK)
        if external:
            _add_drops(kept, inputs, compared, found)
        return found

    return measure


def _model(compared: Compared, model: str, fewest: int) -> Found:
    tested = compared.tested[model]
    here: Found = {
        "auroc": interval(compared.mean[model]),
        "by_task": {t: a[0] for t, a in compared.by_task[model].items()},
    }
    if model != "m3h":
        here["m3h_ahead_by"] = compared.ahead("m3h", model)
    return here | precision_and_brier(tested, fewest) | operations(tested)


def _add_drops(kept: Kept, inputs: str, outside: Compared, found: Found) -> None:
    """Beside each model, what it reaches in eICU on the same tasks, and by how much it changes."""
    for model, here in found["models"].items():
        if kept.has(model, inputs):
            inside = kept.compared([model], inputs, FEWEST_FEW)
            tasks = [t for t in outside.tasks if t in inside.by_task[model]]
            at_home = inside.mean_of(model, tasks)
            here["same_tasks_in_eicu"] = interval(at_home)
            # Two sets of patients: their replicates are not paired.
            here["change"] = interval(outside.mean_of(model, tasks) - at_home)


def _tell(found: Found) -> list[str]:
    models = found["models"]
    outside = any("change" in here for here in models.values())
    rows, operating = [], []
    for model, here in models.items():
        ahead = with_interval(here["m3h_ahead_by"], "+") if "m3h_ahead_by" in here else ""
        row = [NAMES[model], with_interval(here["auroc"]), ahead]
        row += [figure(here["auprc"]), figure(here["brier"])]
        rows.append([*row, with_interval(here["change"], "+")] if "change" in here else row)
        tasks = here["by_task"]
        days = f"{here['mae_days']:.2f} d" if "mae_days" in here else ""
        operating.append(
            [
                NAMES[model],
                figure(tasks.get("in_hospital_mortality")),
                figure(tasks.get("discharge_disposition")),
                days,
                figure(here.get("r2_log_days"), digits=2),
            ]
        )
    head = ["model", "AUROC", "M3H is ahead by", "AUPRC", "Brier"]
    if outside:
        head.append("against eICU, same tasks")
    blocks = [
        prose(
            f"""{found["stays"]} stays; means over the {found["tasks"]} tasks with at least
            {found["fewest_positives"]} positives."""
        ),
        table(head, rows),
        "The operations of the hospital:",
        table(
            [
                *("model", "mortality: AUROC", "disposition: macro-AUROC"),
                *("remaining stay: mean absolute error", "R² of its logarithm"),
            ],
            operating,
        ),
    ]
    medians = [h["mae_of_the_median"] for h in models.values() if "mae_of_the_median" in h]
    if medians:
        blocks.append(
            prose(
                f"""To say the median stay of every patient errs by {medians[0]:.2f} d. Beside
                logistic regression stands ridge regression of log-days."""
            )
        )
    if "relative_gain" in found:
        blocks.append(
            prose(
                f"""One network that learns all tasks, against the same network for each task alone:
                {percents(found["relative_gain"])} (mean over tasks of the relative gain),
                {with_interval(found["gain_of_one_network"], "+")} in mean AUROC."""
            )
        )
    if found["not_yet"]:
        blocks.append(f"Not yet run: {listed(found['not_yet'])}.")
    return [*blocks, folded("By task", _by_task(found))]


def _by_task(found: Found) -> str:
    models = found["models"]
    rows = [
        [
            display,
            found["positives"].get(task, ""),
            *(figure(here["by_task"].get(task)) for here in models.values()),
        ]
        for task, display in found["display"].items()
    ]
    return table(["task", "positives", *(NAMES[m] for m in models)], rows)


_MEASURED = "Vital signs, laboratory values, demographics"
_ALL = "All inputs: also treatments and notes"
_OUTSIDE = "trained on eICU, tested on MIMIC-IV"

MEASURED = Section("measured", _MEASURED, _side_by_side("measured"), _tell)
ALL = Section("all", _ALL, _side_by_side("all"), _tell)
MEASURED_EXTERNAL = Section(
    "measured_external", f"{_MEASURED}: {_OUTSIDE}", _side_by_side("measured", external=True), _tell
)
ALL_EXTERNAL = Section(
    "all_external", f"{_ALL}: {_OUTSIDE}", _side_by_side("all", external=True), _tell
)
