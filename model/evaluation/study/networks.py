"""The networks of a job: an ensemble, its first member alone, and single-task networks."""

import copy
import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any, cast

import numpy as np
import torch

from model.evaluation.metrics import Floats, Rows
from model.network.m3h import M3H
from model.training.data import RepresentedSamples, SampleTensors, ensemble_outputs
from model.training.preparation import PreparedTraining
from model.training.processes.jobs import Arrays
from model.training.trainer import Trainer
from schemas.response import MODALITIES


def with_members(prepared: PreparedTraining, count: int) -> PreparedTraining:
    """The preparation of the first `count` members only.

    They learn from the same hospitals as in the whole ensemble, so that networks are compared on
    equal shares of the data, whatever the number of members.
    """
    few = copy.copy(prepared)
    few.config = prepared.config.model_copy(update={"members": count})
    few.facts = prepared.facts.model_copy(update={"members": count})
    few.splits = prepared.splits[:count]
    return few


def first_member(trainer: Trainer, tasks: Sequence[str] | None = None) -> Trainer:
    """The first member as an ensemble of one, calibrated on the samples that it held out itself.

    The constants of the whole ensemble do not suit a single member, whose outputs vary more.
    `tasks`: those of the trainer, if they are not all.
    """
    alone = Trainer(with_members(trainer.prepared, 1), tasks=tasks)
    alone.net.member(0).load_state_dict(trainer.net.member(0).state_dict())
    alone.calibrate_members()
    return alone


def multitask_outputs(prepared: PreparedTraining, test_data: SampleTensors, test: Rows) -> Arrays:
    """The served outputs of an ensemble, of its first member, and facts about the ensemble."""
    represented = RepresentedSamples.compute(test_data, prepared.encoders)
    trainer = _trained(Trainer(prepared))
    outputs, attention = _served(trainer, "output", represented, test_data, test)
    alone = first_member(trainer) if prepared.config.members > 1 else trainer
    of_one, one_attention = _served(alone, "one", represented, test_data, test)
    if prepared.config.members > 1:
        outputs |= _subset_outputs(trainer, represented, test_data, test)
    facts = trainer.checkpoint().facts
    facts_json = facts.model_dump(mode="json", include={"intervals", "sets", "phenotypes"})
    return {
        **outputs,
        **of_one,
        "attention": attention,
        "one_attention": one_attention,
        "unusual": _unusual(trainer.net, represented, test_data)[test],
        "facts": np.array(json.dumps(facts_json)),
    }


def single_task_outputs(
    prepared: PreparedTraining, test_data: SampleTensors, test: Rows, tasks: Sequence[str]
) -> Arrays:
    """The served outputs of an ensemble for each of `tasks` alone, and of its first member.

    Other binary tasks are NaN; other outputs are missing.
    """
    represented = RepresentedSamples.compute(test_data, prepared.encoders)
    binary = [task.name for task in prepared.facts.tasks if task.kind == "binary"]
    outputs: Arrays = {
        f"{prefix}/binary": np.full((len(test), len(binary)), np.nan) for prefix in _PREFIXES
    }
    for name in tasks:
        trainer = _trained(Trainer(prepared, tasks=[name]))
        alone = first_member(trainer, [name]) if prepared.config.members > 1 else trainer
        for prefix, trained in zip(_PREFIXES, (trainer, alone), strict=True):
            served, _ = _served(trained, prefix, represented, test_data, test)
            if name in binary:
                column = served[f"{prefix}/binary"][:, 0]
                outputs[f"{prefix}/binary"][:, binary.index(name)] = column
            else:
                outputs |= served
    return outputs


_PREFIXES = ("output", "one")


@torch.no_grad()
def _served(
    trainer: Trainer,
    prefix: str,
    represented: RepresentedSamples,
    data: SampleTensors,
    rows: Rows,
) -> tuple[Arrays, Floats]:
    """The calibrated outputs by name, after `prefix`; and the attention, mean over patients."""
    raw, attention = ensemble_outputs(trainer.net, represented, data, rows)
    served = trainer.net.calibrate(raw)
    mean: Floats = attention.mean(dim=0).numpy()
    return {f"{prefix}/{name}": value.numpy() for name, value in served.items()}, mean


def _subset_outputs(
    trainer: Trainer, represented: RepresentedSamples, data: SampleTensors, rows: Rows
) -> Arrays:
    """The probabilities of the binary tasks from each proper subset of the modalities in use.

    They show how the ensemble answers patients of whom a modality is missing.
    """
    used = [
        m for m, any_sample in zip(MODALITIES, data.present.any(dim=0), strict=True) if any_sample
    ]
    outputs: Arrays = {}
    for count in range(1, len(used)):
        for subset in combinations(used, count):
            fewer = copy.copy(data)
            fewer.present = data.present & torch.tensor([m in subset for m in MODALITIES])
            served, _ = _served(trainer, "output", represented, fewer, rows)
            outputs[f"subset/{'+'.join(subset)}/binary"] = served["output/binary"]
    return outputs


@torch.no_grad()
def _unusual(net: M3H, represented: RepresentedSamples, data: SampleTensors) -> Floats:
    """[N, 4] how unusual each modality of each sample is; NaN where it is absent."""
    unusual = np.full(data.present.shape, np.nan)
    for i, modality in enumerate(MODALITIES):
        if modality in represented.vectors:
            encoder = cast("Any", net.encoders[modality])
            present = data.present[:, i].numpy()
            unusual[present, i] = encoder.novelty(represented.vectors[modality]).numpy()
    return unusual


def _trained(trainer: Trainer) -> Trainer:
    for _ in trainer.run():
        pass
    return trainer
