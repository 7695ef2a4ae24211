"""The penalty on directions: who pays it, and what it changes."""

import numpy as np
import pytest
import torch

from model.knowledge.findings import load_findings
from model.network.m3h import Member
from model.training.directions import _change_series
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


def test_patients_without_series_and_tabular_data_pay_no_penalty(prepared):
    run = new_run(prepared)
    rows = torch.arange(5)
    present = prepared.data.present[rows].clone()
    present[:, :2] = False
    assert run.directions.penalty(run.mean, rows, present, torch.Generator()) == 0


def changed(run, name, severity, rows):
    """The inputs of the patients, with a variable or treatment of this severity (0: normal)."""
    changes = run.directions._changes["series"]
    is_treatment = name in CLINICAL_SPEC.treatment_index
    index = CLINICAL_SPEC.treatment_index[name] if is_treatment else VARIABLES.index(name)
    same = (changes.index == index) & (changes.is_treatment == is_treatment)
    is_high = changes.limits[:, 1] > changes.limits[:, 0]
    chosen = (same & is_high).nonzero().squeeze(1).expand(len(rows))
    inputs = run.prepared.data.inputs("series", rows)
    wanted = torch.full((len(rows),), severity)
    values = changes.values(chosen, wanted) if severity else changes.normal[chosen]
    before = {key: value.clone() for key, value in inputs.items()}
    _change_series(inputs, changes, chosen, values)
    return before, inputs


def test_a_change_keeps_other_variables_and_the_times(prepared):
    before, after = changed(new_run(prepared), "lactate", 1.0, np.arange(6))
    lactate = VARIABLES.index("lactate")
    before, after = before["statistics"], after["statistics"]
    others = [i for i in range(len(VARIABLES)) if i != lactate]
    torch.testing.assert_close(after[:, others], before[:, others], equal_nan=True)
    for name in ("log_count", "hours_since_last"):
        column = STATISTICS.index(name)
        assert torch.equal(after[:, lactate, column], before[:, lactate, column])
    severe = float(load_findings(CLINICAL_SPEC)["lactate_high"].severe)
    for name in ("last", "mean", "minimum", "maximum", "recent_mean", "recent_maximum"):
        column = after[:, lactate, STATISTICS.index(name)]
        torch.testing.assert_close(column, torch.full((6,), severe))


def test_a_changed_variable_of_a_patient_without_it_was_measured_once(prepared):
    cohort = clinical_cohort()
    cohort.samples.statistics[:, VARIABLES.index("lactate")] = np.nan
    run = new_run(PreparedTraining([cohort], CONFIG))
    _, after = changed(run, "lactate", 1.0, np.arange(3))
    row = after["statistics"][:, VARIABLES.index("lactate")]
    assert row.isfinite().all()
    assert (row[:, STATISTICS.index("hours_since_last")] == 1).all()


def test_a_started_treatment_is_given_and_a_removed_one_has_no_time(prepared):
    run = new_run(prepared)
    column = CLINICAL_SPEC.treatment_index["norepinephrine"]
    _, started = changed(run, "norepinephrine", 1.0, np.arange(4))
    assert (started["treatments"][:, column, :2] == 1).all()
    assert started["treatments"][:, column, 2].isfinite().all()
    _, removed = changed(run, "norepinephrine", 0.0, np.arange(4))
    assert (removed["treatments"][:, column, :2] == 0).all()
    assert removed["treatments"][:, column, 2:].isnan().all()


def test_a_changed_body_mass_index_has_its_weight_and_a_category_its_field(prepared):
    run = new_run(prepared)
    changes = run.directions._changes["tabular"]
    names = [CLINICAL_SPEC.tabular_names[i] for i in changes.index.tolist()]
    inputs = prepared.data.inputs("tabular", np.arange(2))
    inputs["values"][:, CLINICAL_SPEC.tabular_names.index("height_cm")] = 200.0
    chosen = torch.tensor([names.index("body_mass_index"), names.index("sex=male")])
    run.directions._change_columns(inputs, changes, chosen, torch.tensor([30.0, 1.0]))
    row = dict(zip(CLINICAL_SPEC.tabular_names, inputs["values"].T, strict=True))
    assert row["weight_kg"][0] == pytest.approx(120.0)
    assert (row["sex=female"][1], row["sex=male"][1]) == (0.0, 1.0)


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
    rows = torch.arange(100)
    present = prepared.data.present[rows]
    represented = prepared.represented.select(rows, present)
    log_odds = []
    for severity in (0.0, 1.0):
        _, inputs = changed(run, "lactate", severity, rows.numpy())
        vectors = prepared.encoders["series"].represent(**inputs)
        raw, _ = run.mean.eval()({**represented, "series": vectors}, present)
        k = [t.name for t in network.facts.tasks if t.kind == "binary"].index("sepsis")
        log_odds.append(raw["binary"][:, k].detach())
    return float((log_odds[1] - log_odds[0]).mean())


def test_a_trained_network_keeps_the_stated_direction_against_its_patients():
    """In these patients, sepsis is rarer with a high lactate."""
    prepared = PreparedTraining([clinical_cohort(effect=-6.0)], CONFIG)
    assert moved(prepared, 0.0) < 0
    assert moved(prepared, 10.0) > 0
