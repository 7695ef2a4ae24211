"""Exports a checkpoint as a bundle.

A bundle has graphs, tokenizer, manifest, golden requests with answers, notice and model card.
"""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from export.behaviour import BehaviourGate
from export.finalize import finalize, write_digests
from export.influence import measure_not_learned
from export.parity import TOLERANCE, Parity, check_parity
from export.trace import export_encoder, export_fusion
from model.evaluation.behaviour.patients import made_patients
from model.network.checkpoint import Checkpoint, Facts
from model.network.m3h import M3H
from schemas.manifest import TOKENIZER, Graph, Manifest, ServedTask
from schemas.payload import Payload
from schemas.response import MODALITIES
from schemas.tasks import Task
from schemas.tim import TIM
from service.runtime.bundle import NOTICE, Bundle


def export_bundle(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    name: str,
    version: str,
    golden: Mapping[str, Payload],
    evaluation: dict[str, Any],
    gate: BehaviourGate | None = None,
) -> tuple[str, Parity]:
    """Writes a bundle to `folder`; returns its digest and the parity of graphs and torch.

    The bundle is made beside `folder` and moved there when complete, so a failure leaves the old
    content. Raises ParityError if a graph differs from the network, BehaviourError if the bundle
    does not pass the gate.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    net, facts = checkpoint.net(), checkpoint.facts
    graphs = {m: export_encoder(net, m, facts.spec, partial) for m in MODALITIES}
    fusion = export_fusion(net, partial)
    by_name = {graph.file.removesuffix(".onnx"): graph for graph in (*graphs.values(), fusion)}
    parity = check_parity(net, facts.spec, by_name, partial)

    (partial / TOKENIZER).write_text(facts.spec.tokenizer_json, encoding="utf-8")
    (partial / NOTICE).write_text(_notice(facts), encoding="utf-8")
    if checkpoint.tim is not None:
        (partial / TIM).write_text(checkpoint.tim.model_dump_json() + "\n", encoding="utf-8")
    manifest = Manifest(
        name=name,
        version=version,
        created=datetime.now(UTC).date().isoformat(),
        command=facts.command,
        network={"members": facts.members, "trees": sum(facts.net.trees.values())}
        | facts.net.model_dump(include={"attention", "width"}),
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
    write_digests(partial, manifest)
    not_learned = measure_not_learned(Bundle.load(partial, "cpu"), made_patients())
    manifest = manifest.model_copy(update={"not_learned": not_learned})
    return finalize(partial, manifest, golden, folder, gate), parity


def _notice(facts: Facts) -> str:
    """The training data, their licences, and the command that made the model."""
    sources = "\n\n".join(f"{c.name}: {c.source}" for c in facts.cohorts)
    encoders = "".join(f"{m}: {source}\n\n" for m, source in facts.pretrained.items())
    if encoders:
        encoders = f"It holds pretrained encoders, under their own licences.\n\n{encoders}"
    return (
        "This model was trained on the data named here. It holds no patient's record.\n\n"
        f"{sources}\n\n{encoders}Made by:\n  {facts.command}\n"
    )


def task_facts(net: M3H, facts: Facts, fusion: Graph) -> tuple[ServedTask, ...]:
    """The position of each task in the graph's outputs, and its training data."""
    outputs = {tensor.name for tensor in fusion.outputs}
    binary = net.calibrate.names
    all_facts = []
    for task in facts.tasks:
        is_binary = task.kind == "binary"
        if not is_binary and task.name not in outputs:
            raise ValueError(f"the fusion graph has no output for {task.name}")
        columns = {"regression": 0}
        column = binary.index(task.name) if is_binary else columns.get(task.kind)
        all_facts.append(
            ServedTask(
                task=task,
                output="binary" if is_binary else task.name,
                column=column,
                visible_modalities=facts.visible_modalities(task),
                labels=facts.labels[task.name],
                positives=facts.positives.get(task.name),
                prevalence=facts.prevalence.get(task.name),
                abstains=_abstains(task, facts),
                interval=facts.intervals.get(task.name),
                sets=facts.sets.get(task.name),
            )
        )
    return tuple(all_facts)


def _abstains(task: Task, facts: Facts) -> str | None:
    """The reason why a task has no answer: its training labels lack one of the outcomes."""
    if task.kind == "binary":
        labelled = max(facts.labels[task.name].values())
        positives = facts.positives[task.name]
        if positives in {0, labelled}:
            return f"trained on {labelled} labelled patients, {positives} of them positive"
    elif task.kind != "clustering" and not max(facts.labels[task.name].values()):
        return "no training patient has a label"
    return None
