"""The commands of `m3h-model` that make a cohort, and train and score one model."""

import importlib
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from model.cli.progress import console, progress_of_records, train_with_progress
from model.cohorts import labels, note_masking, stay_events
from model.cohorts import store as cohort_store
from model.cohorts.store import Cohort
from model.errors import RunError
from model.evaluation.evaluate import Score, mean_auroc
from model.evaluation.evaluate import evaluate as evaluate_model
from model.network.checkpoint import Checkpoint
from model.representations.bert_tokenizer import read_tokenizer
from model.training.config import read_choices, read_config
from model.training.failure_signatures import checkpoint_with_signatures, warnings
from model.training.preparation import PreparedTraining, learnable_cohorts
from model.training.processes.device import Device, DeviceName
from model.training.processes.distributed import join_process_group
from model.training.trainer import STATE, Trainer
from schemas.features import FeatureSpec
from schemas.manifest import BundleError, read_manifest
from schemas.response import MODALITIES


def make_cohort(
    source: str,
    data: Path,
    out: Path,
    masked: bool,
    spec: FeatureSpec,
    options: Sequence[str | int] = (),
) -> None:
    """Reads patients' data with the reader `source`; writes the cohort to `out`.

    `options`: of the reader, beside the data: the code map of MEDS, or the number of synthetic
    patients.
    """
    reader = importlib.import_module(f"model.cohorts.{source}")
    with progress_of_records() as progress:
        bar = progress.add_task(f"{source}: reading")
        written = 0
        records = reader.read(data, *options)
        for written in cohort_store.write(
            note_masking.mask_notes(records) if masked else records,
            out,
            name=f"{source}, masked" if masked else source,
            source=reader.SOURCE,
            made_by=(reader, stay_events, labels, *((note_masking,) if masked else ())),
            spec=spec,
        ):
            progress.update(bar, description=f"{source}: {written} records")
        print(f"{written} records of {source} in {out}")


def train(
    cohorts: Sequence[Path],
    out: Path,
    config: Path | None,
    tuned: Path | None,
    modalities: Sequence[str],
    device: DeviceName,
) -> None:
    """Trains on one or more cohorts, with all modalities or those named; resumes a killed run."""
    settings = read_config(config)
    if tuned is not None:
        from model.evaluation import study  # noqa: PLC0415 - slow to import

        settings = study.tuned(settings, read_choices(tuned))
    with join_process_group() as processes:
        chosen = Device.choose(device, processes)
        loaded, without = learnable_cohorts([Cohort.load(folder) for folder in cohorts])
        if without and processes.is_first:
            names = ", ".join(without)
            console.print(f"without labels, and so not in the model: {names}", soft_wrap=True)
        prepared = PreparedTraining(
            loaded,
            settings,
            command=shlex.join(["m3h-model", *sys.argv[1:]]),
            modalities=tuple(m for m in MODALITIES if not modalities or m in modalities),
            device=chosen,
            processes=processes,
        )
        trainer = Trainer(prepared)
        train_with_progress(trainer, out)
        if processes.is_first:
            checkpoint = checkpoint_with_signatures(trainer)
            checkpoint.save(out)
            for warning in warnings(checkpoint.facts):
                console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
            for k in range(settings.members):
                (out / STATE.format(k)).unlink(missing_ok=True)
            print(f"checkpoint of {settings.members} members in {out}")


def score(checkpoint: Path, cohort: Path, hours: float, out: Path | None) -> None:
    """Prints the scores of a trained model on a cohort at a landmark, task by task."""
    loaded = Cohort.load(cohort)
    landmark = None if np.isnan(loaded.samples.landmark).all() else hours
    table = evaluate_model(Checkpoint.load(checkpoint), loaded, landmark)
    _print_table("M3H", table)
    if out is not None:
        scores = {"M3H": [vars(s) for s in table]}
        out.write_text(json.dumps(scores, indent=1), encoding="utf-8")


def _print_table(name: str, scores: Sequence[Score]) -> None:
    table = Table("task", "labelled", "positives", name)
    for line in scores:
        positives = "" if line.positives is None else str(line.positives)
        metrics = "  ".join(f"{k} {v:.3f}" for k, v in line.metrics.items())
        table.add_row(line.task, str(line.labelled), positives, metrics)
    # Wide enough for all columns, so that no line is folded in a file.
    Console(width=max(console.width, 160)).print(table)
    print(f"{name}: mean AUROC {mean_auroc(scores):.4f}")


def cohort_spec(bert: Path | None, image_side: int | None, like: Path | None) -> FeatureSpec:
    """The spec of a new cohort: that of the bundle `like`, or this project's with changes.

    Raises RunError if `like` is not a bundle.
    """
    if like is not None:
        try:
            return read_manifest(like)[0].spec
        except BundleError as error:
            raise RunError(str(error)) from None
    changes: dict[str, Any] = {}
    if bert is not None:
        changes |= {"tokenizer_json": read_tokenizer(bert), "phrases": 0, "assertions": ()}
    if image_side is not None:
        changes["image_side"] = image_side
    return FeatureSpec.default().model_copy(update=changes)
