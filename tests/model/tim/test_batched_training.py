"""Batched training gives the networks of sequential training."""

import numpy as np
import pytest
import torch

from model.network.heads import EVIDENCE, TREES
from model.tim.batched_training import BatchedTraining
from model.training.data import member_outputs
from model.training.member_run import MemberRun
from model.training.preparation import PreparedTraining
from model.training.task_network import TaskNetwork
from tests.support.inputs.cohorts import CONFIG, NAMES, TASKS, make_cohort

COALITIONS = [
    ["diabetes"],
    ["length_of_stay"],
    ["diabetes", "septic_shock", "sepsis", "phenotype"],
    ["discharge_disposition", "length_of_stay", "in_hospital_mortality"],
    NAMES,
]


@pytest.mark.parametrize(
    ("attention", "hidden"),
    [("balanced", None), ("published", None), ("none", None), ("balanced", "septic_shock")],
)
def test_batched_networks_have_the_outputs_of_single_ones(attention, hidden):
    """Also if a modality is hidden from a task, so that some networks have two views."""
    # The networks of TIM are trained without trees and without the penalty on directions.
    net = CONFIG.net.model_copy(update={"attention": attention, "trees": {}})
    config = CONFIG.model_copy(update={"net": net, "epochs": 3, "direction_weight": 0.0})
    cohort = make_cohort()
    if hidden:
        noted = cohort.samples.present[:, 2]
        noted[::2] = False
        cohort.samples.outcomes[noted, NAMES.index(hidden)] = np.nan
    prepared = PreparedTraining([cohort], config, modalities=("tabular", "series", "notes"))
    active = torch.tensor([[name in names for name in NAMES] for names in COALITIONS])
    training = BatchedTraining(prepared, 1, active)
    training.run()
    raw, attention_of = training.outputs(prepared.represented, prepared.data.present)
    binary = [task.name for task in TASKS if task.kind == "binary"]
    for k, names in enumerate(COALITIONS):
        run = MemberRun(TaskNetwork(prepared, tasks=names), 1)
        for _ in run.epochs(None):
            pass
        rows = np.arange(len(prepared.data))
        single, weights = member_outputs(run.mean, prepared.represented, prepared.data, rows)
        columns = [i for i, name in enumerate(NAMES) if name in names]
        for name, value in single.items():
            mine = raw[name][k]
            if name in ("binary", EVIDENCE, TREES):
                mine = mine[:, [binary.index(NAMES[i]) for i in columns if NAMES[i] in binary]]
            torch.testing.assert_close(mine, value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            attention_of[k][columns][:, columns], weights.mean(0), rtol=1e-4, atol=1e-5
        )
