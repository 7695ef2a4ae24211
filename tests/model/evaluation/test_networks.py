"""The networks of the study: one member alone, and single-task networks on the same splits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.evaluation.study.networks import (
    first_member,
    multitask_outputs,
    single_task_outputs,
    with_members,
)
from model.training.data import SampleTensors, ensemble_outputs, member_outputs
from model.training.preparation import PreparedTraining
from model.training.trainer import Trainer
from schemas.response import MODALITIES
from tests.support.inputs.cohorts import CONFIG, NAMES, TASKS, make_cohort

MEMBERS = 7
BINARY = [task.name for task in TASKS if task.kind == "binary"]


@pytest.fixture(scope="module")
def prepared():
    config = CONFIG.model_copy(update={"epochs": 1, "members": MEMBERS})
    return PreparedTraining([make_cohort(280)], config)


@pytest.fixture(scope="module")
def trainer(prepared):
    trainer = Trainer(prepared)
    for _ in trainer.run():
        pass
    return trainer


def test_fewer_members_keep_the_splits_of_the_ensemble(prepared):
    one = with_members(prepared, 1)
    assert (one.config.members, one.facts.members, len(one.splits)) == (1, 1, 1)
    np.testing.assert_array_equal(one.splits[0][0], prepared.splits[0][0])
    assert len(prepared.splits) == prepared.config.members == MEMBERS
    # One network holds out a seventh of the 20 hospitals, as each member does.
    assert len(np.unique(prepared.data.samples.site[one.splits[0][1]])) == 3


def test_one_member_has_the_weights_of_the_ensemble_and_constants_of_its_own(prepared, trainer):
    alone = first_member(trainer)
    rows = np.arange(40)
    # The calibration of sets of modalities is a constant of its own, too.
    shift = trainer.net.fusion.members[0].subset_shift
    assert not torch.equal(alone.net.fusion.members[0].subset_shift, shift)
    alone.net.fusion.members[0].subset_shift.copy_(shift)
    expected, _ = member_outputs(trainer.net.member(0), prepared.represented, prepared.data, rows)
    raw, _ = ensemble_outputs(alone.net, prepared.represented, prepared.data, rows)
    for name, value in raw.items():
        torch.testing.assert_close(value, expected[name])
    held = ~torch.isnan(alone.held_out["binary"][:, 0])
    assert held.nonzero().squeeze(1).tolist() == sorted(prepared.splits[0][1].tolist())
    own, whole = alone.net.calibrate, trainer.net.calibrate
    # A seventh of the patients supports a smaller bound than all of them.
    assert (own.bound < whole.bound).all()
    assert not torch.allclose(own.scale, whole.scale)
    # A member's own answer without data, so that a patient without data gets the prevalence.
    with torch.no_grad():
        nothing = alone.net.raw_without_data()["binary"][0]
    torch.testing.assert_close(own.nothing, nothing)


def test_single_task_networks_are_an_ensemble_of_as_many_members(prepared):
    data, test = SampleTensors([make_cohort(40, seed=2)], MODALITIES), np.arange(40)
    outputs = single_task_outputs(prepared, data, test, ["diabetes", "length_of_stay"])
    diabetes = BINARY.index("diabetes")
    for prefix in ("output", "one"):
        binary = outputs[f"{prefix}/binary"]
        assert not np.isnan(binary[:, diabetes]).any()
        assert np.isnan(np.delete(binary, diabetes, axis=1)).all()
        assert outputs[f"{prefix}/length_of_stay"].shape == (40, 3)
    one, all_members = outputs["one/binary"][:, diabetes], outputs["output/binary"][:, diabetes]
    assert np.abs(one - all_members).max() > 1e-4


def test_the_outputs_of_one_network_are_those_of_its_ensemble_of_one(prepared):
    data, test = SampleTensors([make_cohort(40, seed=2)], MODALITIES), np.arange(40)
    outputs = multitask_outputs(with_members(prepared, 1), data, test)
    np.testing.assert_array_equal(outputs["output/binary"], outputs["one/binary"])
    assert outputs["attention"].shape == (len(NAMES), len(NAMES))


def test_an_ensemble_predicts_from_each_subset_of_its_modalities(prepared):
    cohort = make_cohort(40, seed=2)
    data, test = SampleTensors([cohort], ("tabular", "series", "notes")), np.arange(40)
    outputs = multitask_outputs(with_members(prepared, 2), data, test)
    subsets = {name.split("/")[1] for name in outputs if name.startswith("subset/")}
    two = {"tabular+series", "tabular+notes", "series+notes"}
    assert subsets == {"tabular", "series", "notes"} | two
    # The same as a patient without the other modalities.
    only = replace(cohort, samples=replace(cohort.samples, present=cohort.samples.present.copy()))
    only.samples.present[:, [0, 1, 3]] = False
    alone = multitask_outputs(with_members(prepared, 2), SampleTensors([only], ("notes",)), test)
    np.testing.assert_allclose(outputs["subset/notes/binary"], alone["output/binary"], atol=1e-6)
    assert np.abs(outputs["subset/notes/binary"] - outputs["output/binary"]).max() > 1e-4
