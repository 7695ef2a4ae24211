"""The losses, with and without labels."""

import torch

from model.network.losses import Losses
from schemas.tasks import load_tasks

TASKS = list(load_tasks())
NAMES = [task.name for task in TASKS]
PREVALENCE = {task.name: 0.2 for task in TASKS if task.kind == "binary"}
KINDS = {"binary", "regression", "multiclass", "clustering"}


def raw_for(count):
    generator = torch.Generator().manual_seed(0)

    def logits(width):
        return torch.randn(count, width, generator=generator).requires_grad_()

    return {
        "binary": logits(41),
        "length_of_stay": logits(3),
        "discharge_disposition": logits(4),
        "phenotype": logits(3),
    }


def losses_of(raw, outcomes, statistics, offset=None):
    losses = Losses(TASKS, PREVALENCE, torch.eye(3, 4))
    offset = torch.zeros_like(outcomes) if offset is None else offset
    return losses(raw, outcomes, offset, statistics)


def outcomes_for(count, value=torch.nan):
    return torch.full((count, len(TASKS)), value)


def test_all_losses_are_zero_without_labels():
    raw = raw_for(4)
    found = losses_of(raw, outcomes_for(4), torch.full((4, 4), torch.nan))
    assert set(found) == KINDS
    torch.stack(list(found.values())).sum().backward()
    for value in raw.values():
        assert value.grad is None or torch.isfinite(value.grad).all()
    assert all(value == 0 for value in found.values())


def test_a_patient_without_labels_does_not_change_the_loss():
    outcomes = outcomes_for(2)
    outcomes[0] = 1.0
    statistics = torch.randn(2, 4)
    statistics[1] = torch.nan
    raw = raw_for(2)
    both = losses_of(raw, outcomes, statistics)
    one = losses_of({k: v[:1] for k, v in raw.items()}, outcomes[:1], statistics[:1])
    for kind in KINDS:
        torch.testing.assert_close(both[kind], one[kind])


def test_an_offset_corrects_for_the_sampling_of_a_cohort():
    """With an offset of ln 9, a logit of 0 fits a cohort in which nine of ten have the disease."""
    count = 1000
    outcomes = outcomes_for(count)
    column = NAMES.index("pneumonia")
    outcomes[:, column] = (torch.arange(count) % 10 != 0).float()
    offset = torch.zeros(count, len(TASKS))
    offset[:, column] = torch.log(torch.tensor(9.0))
    raw = raw_for(count) | {"binary": torch.zeros(count, 41, requires_grad=True)}
    losses_of(raw, outcomes, torch.zeros(count, 4), offset)["binary"].backward()
    assert raw["binary"].grad.sum().abs() < 1e-6


def test_one_very_long_stay_cannot_outweigh_the_others():
    outcomes = outcomes_for(2)
    outcomes[:, NAMES.index("length_of_stay")] = torch.tensor([3.0, 300.0])
    raw = raw_for(2) | {"length_of_stay": torch.zeros(2, 3, requires_grad=True)}
    losses_of(raw, outcomes, torch.zeros(2, 4))["regression"].backward()
    first, second = raw["length_of_stay"].grad.abs()[:, 0]
    assert second <= first * 1.001
