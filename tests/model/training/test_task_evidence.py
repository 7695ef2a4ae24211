"""The evidence of a task: fitted alone, silent without findings, and part of the network."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from model.knowledge.effects import expected_effects
from model.knowledge.evidence import LEAST_SHARE
from model.network.heads import EVIDENCE
from model.training.data import RepresentedSamples, SampleTensors, ensemble_outputs
from model.training.member_run import MemberRun
from model.training.preparation import PreparedTraining
from model.training.task_network import TaskNetwork
from model.training.trainer import Trainer
from schemas.response import MODALITIES
from tests.support.inputs.cohorts import CLINICAL_SPEC, CONFIG, clinical_cohort

WITHOUT = CONFIG.model_copy(
    update={"net": CONFIG.net.model_copy(update={"clinical_effects": False}), "epochs": 2}
)


@pytest.fixture(scope="module")
def prepared():
    return PreparedTraining([clinical_cohort()], CONFIG)


def evidence_of(prepared, tasks=None, member=0):
    """The evidence buffers of a new member, by modality."""
    run = MemberRun(TaskNetwork(prepared, tasks=tasks), member)
    return {m: run.mean.adapters[m].evidence for m in ("tabular", "series", "notes")}


def test_a_task_has_the_same_evidence_alone_and_with_others(prepared):
    together, alone = evidence_of(prepared), evidence_of(prepared, ["pneumonia"])
    column = [t.name for t in prepared.facts.tasks if t.kind == "binary"].index("pneumonia")
    for modality, evidence in alone.items():
        assert torch.equal(evidence.weight[0], together[modality].weight[column])
        assert torch.equal(evidence.mean[0], together[modality].mean[column])
        assert evidence.weight.any() or modality == "tabular"


def test_every_stated_effect_keeps_its_direction_in_the_network(prepared):
    evidence = evidence_of(prepared)
    binary = [t.name for t in prepared.facts.tasks if t.kind == "binary"]
    for modality, part in evidence.items():
        names = prepared.encoders[modality].represent.findings.names
        for row, task in zip(part.weight, binary, strict=True):
            expected = torch.from_numpy(expected_effects(task, names)).float()
            stated = expected != 0
            share = row[stated] / expected[stated]
            assert (share >= LEAST_SHARE - 1e-3).all(), (modality, task)


def test_notes_without_an_assertion_are_no_evidence(prepared):
    """And no notes are the same as notes without a known word."""
    network = TaskNetwork(prepared)
    member = MemberRun(network, 0).mean.eval()
    tokens = torch.full((1, 3), CLINICAL_SPEC.first_assertion_id - 1)
    silent = prepared.encoders["notes"].represent(tokens)
    with_notes = torch.tensor([[False, False, True, False]])
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    raw, _ = member({"notes": silent}, with_notes)
    without, _ = member({}, nothing)
    assert (raw[EVIDENCE] == 0).all()
    for name, value in raw.items():
        assert torch.equal(value, without[name]), name


def test_an_assertion_in_notes_is_evidence_for_its_disease(prepared):
    member = MemberRun(TaskNetwork(prepared), 0).mean.eval()
    # The first id is that of "sepsis: affirmed".
    tokens = torch.tensor([[CLINICAL_SPEC.first_assertion_id]])
    notes = prepared.encoders["notes"].represent(tokens)
    raw, _ = member({"notes": notes}, torch.tensor([[False, False, True, False]]))
    binary = [t.name for t in prepared.facts.tasks if t.kind == "binary"]
    by_task = dict(zip(binary, raw[EVIDENCE][0].tolist(), strict=True))
    assert by_task["sepsis"] > 1
    assert by_task["sepsis"] > by_task["pneumonia"]


def test_the_first_output_without_notes_is_the_share_of_the_patients_a_member_learns_from(prepared):
    """The bias makes up for the means that the evidence subtracts."""
    run = MemberRun(TaskNetwork(prepared), 0)
    member = run.mean.eval()
    torch.nn.init.zeros_(member.fusion.heads.binary)
    rows = torch.from_numpy(run.learn)
    present = prepared.data.present[rows] & torch.tensor([m != "notes" for m in MODALITIES])
    raw, _ = member(prepared.represented.select(rows, present), present)
    predicted = raw["binary"].sigmoid().detach().double()
    column = [t.name for t in prepared.facts.tasks].index("sepsis")
    outcome = prepared.data.outcomes[rows, column].double().numpy()
    weight = prepared.data.weight[run.learn]
    observed = np.average(outcome, weights=weight)
    k = [t.name for t in prepared.facts.tasks if t.kind == "binary"].index("sepsis")
    assert np.average(predicted[:, k].numpy(), weights=weight) == pytest.approx(observed, abs=0.01)


def test_a_task_without_labels_has_no_evidence(prepared):
    cohort = clinical_cohort()
    column = [t.name for t in cohort.tasks].index("pneumonia")
    cohort.samples.outcomes[:, column] = np.nan
    cohort.samples.outcomes[0, column] = 0.0
    few = PreparedTraining([cohort], CONFIG)
    members = [few.per_task.evidence(member, column) for member in range(CONFIG.members)]
    without = [0 not in learn for learn, _ in few.splits]
    assert [evidence is None for evidence in members] == without


def test_without_clinical_effects_nothing_is_evidence_and_no_direction_is_demanded():
    prepared = PreparedTraining([clinical_cohort()], WITHOUT)
    trainer = Trainer(prepared)
    for _ in trainer.run():
        pass
    assert prepared.facts.findings == {}
    assert (trainer.held_out[EVIDENCE].nan_to_num() == 0).all()
    run = MemberRun(trainer, 0)
    rows = torch.arange(50)
    generator = torch.Generator().manual_seed(0)
    penalty = run.directions.penalty(run.mean, rows, prepared.data.present[rows], generator)
    assert penalty == 0
    free = WITHOUT.model_copy(update={"direction_weight": 0.0})
    other = Trainer(PreparedTraining([clinical_cohort()], free))
    for _ in other.run():
        pass
    weights = other.net.state_dict()
    for name, value in trainer.net.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_evidence_rises_with_the_severity_of_a_finding(prepared):
    cohort = clinical_cohort(8)
    lactate = [v.name for v in CLINICAL_SPEC.variables].index("lactate")
    cohort.samples.statistics[:, lactate, :4] = np.linspace(1, 12, 8)[:, None]
    cohort.samples.statistics[:, [i for i in range(4) if i != lactate]] = np.nan
    cohort.samples.treatments[:] = 0
    data = SampleTensors([cohort], MODALITIES[1:2])
    trainer = Trainer(prepared)
    for number in range(CONFIG.members):
        MemberRun(trainer, number)
    represented = RepresentedSamples.compute(data, prepared.encoders)
    raw, _ = ensemble_outputs(trainer.net, represented, data, np.arange(8))
    k = trainer.net.calibrate.names.index("sepsis")
    evidence = raw[EVIDENCE][:, k].tolist()
    assert all(later >= earlier for earlier, later in pairwise(evidence))
    assert evidence[-1] > evidence[0] + 0.3


def test_notes_do_not_change_what_measurements_tell(prepared):
    """Fitted together, a note that names a disease would explain away its laboratory values."""
    without_notes = PreparedTraining([clinical_cohort()], CONFIG, modalities=("tabular", "series"))
    own, alone = evidence_of(prepared), MemberRun(TaskNetwork(without_notes), 0).mean.adapters
    for modality in ("tabular", "series"):
        torch.testing.assert_close(own[modality].weight, alone[modality].evidence.weight)
