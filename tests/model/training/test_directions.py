"""The penalty on directions: who pays it, and what it changes."""

import numpy as np
import pytest
import torch

from model.network.m3h import Member
from model.training.directions import _change
from model.training.member_run import MemberRun
from model.training.preparation import PreparedTraining
from model.training.task_network import TaskNetwork
from schemas.features import STATISTICS
from tests.support.inputs.cohorts import CLINICAL_SPEC, CONFIG, clinical_cohort

VARIABLES = [variable.name for variable in CLINICAL_SPEC.variables]
DRAWS = 60  # of changes; there are about ten


@pytest.fixture(scope="module")
def prepared():
    return PreparedTraining([clinical_cohort()], CONFIG)


def new_run(prepared):
    """A member that has only its evidence."""
    run = MemberRun(TaskNetwork(prepared), 0)
    torch.nn.init.zeros_(run.mean.fusion.heads.binary)
    run.mean.eval()
    return run


def penalties(run: MemberRun, member: Member):
    """The penalty of many changes, drawn at random."""
    rows = torch.arange(40)
    present = run.prepared.data.present[rows]
    generator = torch.Generator().manual_seed(0)
    return [run.directions.penalty(member, rows, present, generator).item() for _ in range(DRAWS)]


def test_a_network_that_has_only_its_evidence_pays_no_penalty(prepared):
    run = new_run(prepared)
    assert max(penalties(run, run.mean)) < 2e-3  # half precision of the weights


def test_a_network_that_takes_its_evidence_back_pays_a_penalty(prepared):
    run = new_run(prepared)
    run.mean.adapters["series"].evidence.weight.neg_()
    assert min(penalties(run, run.mean)) > 0
    run.mean.adapters["series"].evidence.weight.zero_()
    assert min(penalties(run, run.mean)) > 0


def test_the_penalty_has_gradients_of_the_networks_weights(prepared):
    run = new_run(prepared)
    run.mean.adapters["series"].evidence.weight.zero_()
    torch.nn.init.normal_(run.mean.fusion.heads.binary)
    rows = torch.arange(40)
    generator = torch.Generator().manual_seed(0)
    run.directions.penalty(run.mean, rows, prepared.data.present[rows], generator).backward()
    gradient = run.mean.adapters["series"].linear.weight.grad
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_patients_without_series_pay_no_penalty(prepared):
    run = new_run(prepared)
    rows = torch.arange(5)
    present = prepared.data.present[rows].clone()
    present[:, 1] = False
    assert run.directions.penalty(run.mean, rows, present, torch.Generator()) == 0


def change_of(run, variable):
    """The change of a variable to high values."""
    index = VARIABLES.index(variable)
    return next(
        change
        for change in run.directions._changes
        if change.finding is not None and change.index == index and change.finding.is_high
    )


def test_a_change_keeps_other_variables_and_the_times(prepared):
    run = new_run(prepared)
    change = change_of(run, "lactate")
    inputs = prepared.data.inputs("series", np.arange(6))
    inputs["statistics"][0, change.index] = torch.nan
    before = inputs["statistics"].clone()
    after = _change(change, inputs, 1.0)["statistics"]
    torch.testing.assert_close(inputs["statistics"], before, equal_nan=True)  # not modified
    others = [i for i in range(len(VARIABLES)) if i != change.index]
    torch.testing.assert_close(after[:, others], before[:, others], equal_nan=True)
    for name in ("log_count", "hours_since_last"):
        column = STATISTICS.index(name)
        assert torch.equal(after[1:, change.index, column], before[1:, change.index, column])
    for name in ("last", "mean", "minimum", "maximum", "recent_mean"):
        column = after[:, change.index, STATISTICS.index(name)]
        torch.testing.assert_close(column, torch.full((6,), float(change.finding.severe)))
    assert after[0, change.index].isfinite().all()  # measured, once


def moved(prepared, direction_weight, epochs=25):
    """The mean change of sepsis after training, if a normal lactate becomes a severe one."""
    config = prepared.config.model_copy(
        update={"direction_weight": direction_weight, "epochs": epochs, "learning_rate": 5e-3}
    )
    network = TaskNetwork(prepared)
    network.config = config
    run = MemberRun(network, 0)
    for _ in run.epochs():
        pass
    change = change_of(run, "lactate")
    rows = torch.arange(100)
    present = prepared.data.present[rows]
    represented = prepared.represented.select(rows, present)
    inputs = prepared.data.inputs("series", rows.numpy())
    log_odds = []
    for severity in (0.0, 1.0):
        vectors = prepared.encoders["series"].represent(**_change(change, inputs, severity))
        raw, _ = run.mean.eval()({**represented, "series": vectors}, present)
        k = [t.name for t in network.facts.tasks if t.kind == "binary"].index("sepsis")
        log_odds.append(raw["binary"][:, k].detach())
    return float((log_odds[1] - log_odds[0]).mean())


def test_a_trained_network_keeps_the_stated_direction_against_its_patients():
    """In these patients, sepsis is rarer with a high lactate."""
    prepared = PreparedTraining([clinical_cohort(effect=-6.0)], CONFIG)
    assert moved(prepared, 0.0) < 0
    assert moved(prepared, 10.0) > 0
