"""A bundle: graphs, tokenizer, manifest, golden requests with their answers, notice, model card."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from export.finalize import seal
from export.model_card import notice
from export.parity import TOLERANCE, Parity, check_parity
from export.trace import export_encoder, export_fusion
from model.network.checkpoint import Checkpoint, Facts
from model.network.m3h import M3H
from schemas.manifest import TOKENIZER, Graph, Manifest, TaskFacts
from schemas.payload import Payload
from schemas.response import MODALITIES
from schemas.tasks import Task
from schemas.tim import TIM
from service.runtime.bundle import NOTICE


def export_bundle(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    name: str,
    version: str,
    golden: Mapping[str, Payload],
    evaluation: dict[str, Any],
) -> tuple[str, Parity]:
    """Writes a bundle to `folder`; returns its digest and how far graphs and torch differ.

    It is made beside the folder and moved there when all is right, so that a failure leaves what
    was there. Raises ParityError if a graph differs from the network.
    """
    made = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    net, facts = checkpoint.net(), checkpoint.facts
    graphs = {m: export_encoder(net, m, facts.spec, made) for m in MODALITIES}
    fusion = export_fusion(net, made)
    every = {graph.file.removesuffix(".onnx"): graph for graph in (*graphs.values(), fusion)}
    parity = check_parity(net, facts.spec, every, made)

    (made / TOKENIZER).write_text(facts.spec.tokenizer_json, encoding="utf-8")
    (made / NOTICE).write_text(notice(facts), encoding="utf-8")
    if checkpoint.tim is not None:
        (made / TIM).write_text(checkpoint.tim.model_dump_json() + "\n", encoding="utf-8")
    manifest = Manifest(
        name=name,
        version=version,
        created=datetime.now(UTC).date().isoformat(),
        command=facts.command,
        network={"members": facts.members} | facts.net.model_dump(include={"attention", "width"}),
        tasks=task_facts(net, facts, fusion),
        spec=facts.spec,
        encoders=graphs,
        fusion=fusion,
        trained_hours=facts.trained_hours,
        cohorts=facts.cohorts,
        phenotypes=facts.phenotypes,
        evaluation=evaluation,
        golden_tolerance=TOLERANCE,
        files={},
    )
    return seal(made, manifest, golden, folder), parity


def task_facts(net: M3H, facts: Facts, fusion: Graph) -> tuple[TaskFacts, ...]:
    """Where each task's number is in the graph's outputs, and what it was learned from."""
    outputs = {tensor.name for tensor in fusion.outputs}
    binary = net.calibrate.names
    found = []
    for task in facts.tasks:
        is_binary = task.kind == "binary"
        if not is_binary and task.name not in outputs:
            raise ValueError(f"the fusion graph has no output for {task.name}")
        columns = {"regression": 0}
        column = binary.index(task.name) if is_binary else columns.get(task.kind)
        found.append(
            TaskFacts(
                task=task,
                output="binary" if is_binary else task.name,
                column=column,
                seen=facts.visible_modalities(task),
                labels=facts.labels[task.name],
                positives=facts.positives.get(task.name),
                prevalence=facts.prevalence.get(task.name),
                abstains=_abstains(task, facts),
                interval=facts.intervals.get(task.name),
                sets=facts.sets.get(task.name),
            )
        )
    return tuple(found)


def _abstains(task: Task, facts: Facts) -> str | None:
    """Why a task has no answer: it was never taught both sides of the question."""
    if task.kind == "binary":
        labelled = max(facts.labels[task.name].values())
        positives = facts.positives[task.name]
        if positives in {0, labelled}:
            return f"trained on {labelled} labelled patients, {positives} of them with it"
    elif task.kind != "clustering" and not max(facts.labels[task.name].values()):
        return "no patient that the model was trained on has a label for it"
    return None
