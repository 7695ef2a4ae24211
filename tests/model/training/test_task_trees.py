"""Boosted trees: as LightGBM predicts, in no wrong direction, and each task alone."""

import lightgbm
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.knowledge.effects import expected_effects
from model.knowledge.findings import load_findings
from model.network.heads import TREES
from model.network.trees import Trees
from model.training.member_run import MemberRun
from model.training.per_task import trees as task_trees
from model.training.per_task.trees import Columns
from model.training.preparation import PreparedTraining
from model.training.task_network import TaskNetwork
from schemas.features import STATISTICS, FeatureSpec
from tests.support.inputs.cohorts import CONFIG, clinical_cohort

COUNTS = {"tabular": 5, "series": 12}
WITH_TREES = CONFIG.model_copy(update={"net": CONFIG.net.model_copy(update={"trees": COUNTS})})


@pytest.fixture(scope="module")
def prepared():
    return PreparedTraining([clinical_cohort()], WITH_TREES)


def trees_of(prepared, tasks=None):
    """The trees of a new member, by modality, and its binary tasks."""
    network = TaskNetwork(prepared, tasks=tasks)
    adapters = MemberRun(network, 0).mean.adapters
    return {m: adapters[m].trees for m in COUNTS}, network.net.calibrate.names


@pytest.mark.parametrize("seed", range(3))
def test_the_tensors_predict_as_lightgbm_does(seed):
    draw = np.random.default_rng(seed)
    x = np.round(draw.normal(size=(800, 6)), 1).astype(np.float32)
    x[draw.random(x.shape) < 0.2] = np.nan
    x[:, 4:] = np.nan_to_num(x[:, 4:])  # without missing values in training
    y = (np.nan_to_num(x[:, 0]) + x[:, 4] + draw.normal(size=800) > 0).astype(float)
    booster = lightgbm.train(dict(task_trees._PARAMETERS), lightgbm.Dataset(x, y), 30)
    fitted = task_trees._arrays(booster, 30, 0.0)
    trees = Trees(30, 1)
    for name in ("feature", "threshold", "missing_goes_right", "leaf"):
        getattr(trees, name).copy_(torch.from_numpy(getattr(fitted, name)))
    new = np.round(draw.normal(size=(500, 6)) * 2, 1).astype(np.float32)
    new[draw.random(new.shape) < 0.3] = np.nan
    expected = booster.predict(new, raw_score=True)
    np.testing.assert_allclose(trees(torch.from_numpy(new))[:, 0], expected, atol=1e-5)


def test_no_value_with_a_stated_effect_moves_a_task_in_a_wrong_direction(prepared):
    trees, tasks = trees_of(prepared)
    spec, findings = prepared.facts.spec, prepared.facts.findings
    represent = prepared.encoders["series"].represent
    inputs = prepared.data.inputs("series", prepared.data.rows_with("series")[:40])
    stated = 0

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.sampled_from(sorted(findings)), st.floats(-1, 3), st.floats(-1, 3))
    def try_one(name, one, other):
        nonlocal stated
        finding = findings[name]
        if finding.variable is None:
            return
        variable = spec.variable_index[finding.variable]
        outputs = []
        for severity in sorted((max(0.0, one), max(0.0, other))):
            changed = {n: x.clone() for n, x in inputs.items()}
            value = finding.normal + severity * (finding.severe - finding.normal)
            known = ~torch.isnan(changed["statistics"][:, variable, 0])
            for statistic in ("last", "mean", "minimum", "maximum"):
                changed["statistics"][known, variable, STATISTICS.index(statistic)] = value
            vectors = represent(**changed)[:, prepared.encoders["series"].width :]
            outputs.append(trees["series"](vectors))
        effects = np.array([expected_effects(task, [name])[0] for task in tasks])
        stated += int((effects != 0).sum())
        moved = (outputs[1] - outputs[0]) * torch.from_numpy(np.sign(effects)).float()
        assert (moved >= -1e-5).all()

    try_one()
    assert stated


def test_columns_that_a_monotone_tree_cannot_use_are_left_out():
    spec = FeatureSpec.default()
    findings = load_findings(spec)
    columns = Columns(findings, {"tabular": (), "series": ()}, spec)
    statistics = list(STATISTICS)

    def of(task, variable):
        sign, used = columns.directions(task, "series")
        start = spec.variable_index[variable] * len(statistics)
        return {s: (sign[start + i], used[start + i]) for i, s in enumerate(statistics)}

    lactate = of("septic_shock", "lactate")
    assert lactate["maximum"] == lactate["last"] == (1, 1.0)
    assert lactate["spread"] == lactate["change"] == (0, 0.0)
    assert lactate["log_count"] == (0, 1.0)
    # Both high and low temperatures speak for sepsis.
    temperature = of("sepsis", "temperature")
    assert temperature["maximum"] == (0, 0.0)
    # No effect is stated: any direction.
    assert of("asthma", "lactate")["change"] == (0, 1.0)


def test_a_task_has_the_same_trees_alone_and_with_others(prepared):
    (together, tasks), (alone, _) = trees_of(prepared), trees_of(prepared, ["pneumonia"])
    column = tasks.index("pneumonia")
    for modality, trees in alone.items():
        rows = slice(column * COUNTS[modality], (column + 1) * COUNTS[modality])
        assert trees.leaf.any()
        assert torch.equal(trees.leaf, together[modality].leaf[rows])
        assert torch.equal(trees.mean[0], together[modality].mean[column])


def test_trees_add_nothing_for_an_absent_modality(prepared):
    member = MemberRun(TaskNetwork(prepared), 0).mean.eval()
    raw, _ = member({}, torch.zeros(1, 4, dtype=torch.bool))
    assert (raw[TREES] == 0).all()


def test_a_task_with_too_few_cases_has_no_trees():
    cohort = clinical_cohort()
    column = [t.name for t in cohort.tasks].index("pneumonia")
    cohort.samples.outcomes[:, column] = 0.0
    cohort.samples.outcomes[:2, column] = 1.0
    few = PreparedTraining([cohort], WITH_TREES)
    assert few.per_task.trees(0, column) == {}


def test_without_trees_the_inputs_are_not_kept(prepared):
    net = CONFIG.net.model_copy(update={"trees": {}})
    without = PreparedTraining([clinical_cohort()], CONFIG.model_copy(update={"net": net}))
    for modality in COUNTS:
        width = without.represented.vectors[modality].shape[1]
        assert width < prepared.represented.vectors[modality].shape[1]
    assert (trees_of(without)[0]["series"](torch.zeros(2, 3)) == 0).all()


def test_trees_do_not_change_what_the_network_learns(prepared):
    net = CONFIG.net.model_copy(update={"trees": {}})
    without = PreparedTraining([clinical_cohort()], CONFIG.model_copy(update={"net": net}))
    learned = []
    for preparation in (prepared, without):
        run = MemberRun(TaskNetwork(preparation), 0)
        next(run.epochs())
        learned.append([*run.learning.parameters()])
    for one, other in zip(*learned, strict=True):
        torch.testing.assert_close(one, other)
