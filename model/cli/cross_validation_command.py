"""The command `m3h-model cross-validate`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from model.cli.progress import console, progress_of_jobs
from model.cohorts.store import Cohort
from model.evaluation.study import cross_validation
from model.training.config import read_config
from model.training.processes.jobs import claim_folder, run_jobs

_COLUMNS = ("auroc", "ahead_by", "slope", "intercept", "observed_to_expected", "brier")


def cross_validate(
    cohort: Path, work: Path, hours: float, config: Path | None, out: Path | None
) -> None:
    """Trains and tests a network and its baselines on folds by patient; prints the figures.

    `out`: a JSON file that gets the figures, too.
    """
    settings, loaded = read_config(config), Cohort.load(cohort)
    cross_validation.CrossValidation(loaded, settings, hours)  # refuses an unsuitable cohort
    claim_folder(
        work,
        {
            "cross_validation": cross_validation.VERSION,
            "cohort": loaded.digest,
            "hours": hours,
            "config": settings.model_dump(mode="json"),
        },
    )
    with progress_of_jobs() as progress:
        bar = progress.add_task("cross-validation", total=len(cross_validation.JOBS))
        opened = cross_validation.OpenCrossValidation(cohort, settings, hours)
        for job, ran in run_jobs(cross_validation.JOBS, work, opened):
            progress.advance(bar)
            if ran:
                progress.console.print(job.file.removesuffix(".npz"))
    figures = cross_validation.summarise(work, loaded)
    for task, by_model in figures.items():
        _print_figures(task, by_model)
    if out is not None:
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _print_figures(task: str, by_model: Mapping[str, Mapping[str, Any]]) -> None:
    """One task's figures, a line for each model."""
    first = next(iter(by_model.values()))
    title = f"{task}: {first['positives']} of {first['patients']} patients"
    table = Table("model", *(name.replace("_", " ") for name in _COLUMNS), title=title)
    for model, figures in by_model.items():
        table.add_row(model, *(_text(figures.get(name)) for name in _COLUMNS))
    # Wide enough for all columns, so that no line is folded in a file.
    Console(width=max(console.width, 160)).print(table)


def _text(figure: float | Sequence[float] | None) -> str:
    if figure is None:
        return ""
    if isinstance(figure, float):
        return f"{figure:.4f}"
    value, low, high = figure
    return f"{value:.4f} ({low:.4f} to {high:.4f})"
