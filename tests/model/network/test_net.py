"""Properties of the network that hold for any weights."""

import itertools

import pytest
import torch

from model.network.attention import CrossTaskAttention
from model.network.config import NetConfig
from model.network.m3h import M3H
from model.representations.modalities import build_representations
from schemas.response import MODALITIES
from schemas.tasks import DISPOSITION, MORTALITY, load_tasks

TASKS = load_tasks()
NAMES = [task.name for task in TASKS]
EVERY_SUBSET = torch.tensor(list(itertools.product([False, True], repeat=4)))


def random_net(visible=None, **config):
    torch.manual_seed(0)
    visible = torch.ones(len(TASKS), 4, dtype=torch.bool) if visible is None else visible
    net = M3H(
        TASKS,
        visible,
        build_representations(
            tabular=7,
            statistics=(5, 11),
            treatments=(3, 4),
            vocabulary=50,
            words=20,
            image_side=32,
            values=("tabular", "series"),
        ),
        NetConfig(image_channels=(8, 16), **config),
        members=2,
    )
    net.encoders["notes"].represent.fit(torch.arange(10, 30), [torch.randint(1, 50, (60, 20))])
    with torch.no_grad():  # heads start at zero
        for parameter in net.fusion.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return net.eval()


def some_inputs(count):
    generator = torch.Generator().manual_seed(1)
    return {
        "tabular": {"values": torch.randn(count, 7, generator=generator)},
        "series": {
            "statistics": torch.randn(count, 5, 11, generator=generator),
            "treatments": torch.randn(count, 3, 4, generator=generator),
        },
        "notes": {"tokens": torch.randint(1, 50, (count, 6), generator=generator)},
        "image": {"pixels": torch.randint(0, 256, (count, 1, 32, 32)).to(torch.uint8)},
    }


def embeddings_of(net, inputs, present):
    """[B, 4, E D], zeros where a modality is absent."""
    out = torch.zeros(len(present), 4, net.width)
    for i, modality in enumerate(MODALITIES):
        out[present[:, i], i] = net.encoders[modality](*inputs[modality].values())[0]
    return out


@pytest.fixture(params=["balanced", "published"])
def attention(request):
    return request.param


def test_attention_rows_sum_to_one(attention):
    net = random_net(attention=attention)
    _, weights = net.fusion(torch.randn(3, 4, net.width), EVERY_SUBSET[[0, 7, 15]])
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, len(TASKS)))
    assert (weights >= 0).all()


def test_a_single_task_attends_to_itself():
    layer = CrossTaskAttention(1, NetConfig())
    _, weights = layer(torch.randn(2, 1, 1, 32), torch.zeros(1, dtype=torch.long))
    torch.testing.assert_close(weights, torch.ones(2, 1, 1))


@pytest.mark.parametrize("tasks", [2, 10, 44, 200])
def test_attention_starts_at_one_half_on_the_task_itself(tasks):
    layer = CrossTaskAttention(tasks, NetConfig())
    with torch.no_grad():
        layer.query.zero_()  # no evidence yet
    _, weights = layer(torch.randn(2, 1, tasks, 32), torch.zeros(tasks, dtype=torch.long))
    own = weights.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(own, torch.full_like(own, 0.5))


def test_a_patient_without_data_gives_finite_outputs_and_gradients(attention):
    """New stand-ins are zero, so all features of such a patient are zero."""
    net = random_net(attention=attention)
    for member in net.fusion.members:
        torch.nn.init.zeros_(member.stand_in)
    raw, weights = net.fusion(torch.zeros(1, 4, net.width), torch.zeros(1, 4, dtype=torch.bool))
    raw["binary"].sum().backward()
    assert weights.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.fusion.parameters())


def test_published_attention_averages_many_tasks():
    """With 44 tasks a task's weight on itself is 0.06; balanced attention corrects this."""
    layer = CrossTaskAttention(44, NetConfig(attention="published"))
    with torch.no_grad():
        layer.query.copy_(layer.query.abs() * 1e-3)
    x = torch.rand(2, 1, 44, 32)
    with torch.no_grad():
        layer.key.weight.copy_(torch.eye(32))
    _, weights = layer(x, torch.zeros(44, dtype=torch.long))
    assert weights.diagonal(dim1=1, dim2=2).mean() < 0.1


def test_every_subset_of_modalities_gives_finite_coherent_probabilities(attention):
    net = random_net(attention=attention)
    present = EVERY_SUBSET
    inputs = {
        m: {name: value[: int(present[:, i].sum())] for name, value in tensors.items()}
        for i, (m, tensors) in enumerate(some_inputs(16).items())
    }
    raw, _ = net.fusion(embeddings_of(net, inputs, present), present)
    served = net.calibrate(raw)
    binary = dict(zip(net.calibrate.names, served["binary"].T, strict=True))
    for task in TASKS:
        if task.kind == "binary":
            p = binary[task.name]
            assert torch.isfinite(p).all()
            assert ((p >= 0) & (p <= 1)).all()
        if task.subset_of:
            assert (binary[task.name] <= binary[task.subset_of]).all()
    for name in (DISPOSITION, "phenotype"):
        torch.testing.assert_close(served[name].sum(-1), torch.ones(16))
    died = next(t for t in TASKS if t.name == DISPOSITION).classes.index("died")
    torch.testing.assert_close(served[DISPOSITION][:, died], binary[MORTALITY])
    assert (served["length_of_stay"] > 0).all()


def test_the_embedding_of_an_absent_modality_has_no_effect():
    net = random_net()
    present = torch.tensor([[True, True, False, False]])
    first = torch.randn(1, 4, net.width)
    second = first.clone()
    second[:, 2:] = torch.randn(1, 2, net.width) * 100
    for one, other in zip(net.fusion(first, present), net.fusion(second, present), strict=True):
        if isinstance(one, dict):
            assert all(torch.equal(one[name], other[name]) for name in one)
        else:
            assert torch.equal(one, other)


def test_a_hidden_modality_has_no_effect_on_a_task_through_attention():
    image = MODALITIES.index("image")
    findings = [NAMES.index(n) for n in ("pleural_effusion", "pneumonia", "copd")]
    visible = torch.ones(len(TASKS), 4, dtype=torch.bool)
    visible[:, image] = False
    visible[findings, image] = True
    net = random_net(visible=visible)
    present = torch.ones(1, 4, dtype=torch.bool)
    first = torch.randn(1, 4, net.width)
    second = first.clone()
    second[:, image] += 10
    (raw, weights), (raw2, weights2) = net.fusion(first, present), net.fusion(second, present)
    hidden = [i for i in range(len(TASKS)) if i not in findings]
    assert torch.equal(weights[:, hidden], weights2[:, hidden])
    rows = net.fusion.members[0].heads.rows_binary
    moved = {
        NAMES[rows[i]] for i in (raw["binary"] != raw2["binary"])[0].nonzero().ravel().tolist()
    }
    assert moved == {NAMES[i] for i in findings}
    for name in ("length_of_stay", DISPOSITION, "phenotype"):
        assert torch.equal(raw[name], raw2[name])


def test_an_ensemble_is_the_mean_of_its_members():
    net = random_net()
    present = EVERY_SUBSET
    inputs = some_inputs(16)
    represented = {
        m: net.encoders[m].represent(**inputs[m])[: int(present[:, i].sum())]
        for i, m in enumerate(MODALITIES)
    }
    found = [net.member(k)(represented, present)[0] for k in range(2)]
    given = {
        m: {name: value[: int(present[:, i].sum())] for name, value in inputs[m].items()}
        for i, m in enumerate(MODALITIES)
    }
    raw, _ = net.fusion(embeddings_of(net, given, present), present)
    for name, value in raw.items():
        torch.testing.assert_close(value, (found[0][name] + found[1][name]) / 2)


def test_without_attention_a_task_has_weight_1_on_itself():
    net = random_net(attention="none")
    _, weights = net.fusion(torch.randn(3, 4, net.width), EVERY_SUBSET[[0, 7, 15]])
    assert torch.equal(weights, torch.eye(len(TASKS)).expand(3, -1, -1))


def test_groups_of_tasks_share_neither_trunk_nor_attention(attention):
    groups = (tuple(NAMES[1::2]), tuple(NAMES[::2]))
    net = random_net(attention=attention, groups=groups)
    present = torch.ones(3, 4, dtype=torch.bool)
    first = torch.randn(3, 4, net.width)
    second = first.clone()
    for start in (0, net.width // 2):  # of a member's input of the first group's trunk
        second[:, :, start : start + 256] += 1
    (raw, weights), (raw2, weights2) = net.fusion(first, present), net.fusion(second, present)
    odd = torch.arange(len(NAMES)) % 2 == 1
    assert (weights[:, odd][:, :, ~odd] == 0).all()
    assert (weights[:, ~odd][:, :, odd] == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, len(NAMES)))
    assert torch.equal(weights[:, ~odd], weights2[:, ~odd])
    moved = (raw["binary"] != raw2["binary"]).any(0)
    assert torch.equal(moved, odd[net.fusion.members[0].heads.rows_binary])


def test_attention_starts_at_one_half_in_each_group():
    same_group = torch.block_diag(torch.ones(3, 3), torch.ones(1, 1), torch.ones(6, 6)).bool()
    layer = CrossTaskAttention(10, NetConfig(), same_group)
    with torch.no_grad():
        layer.query.zero_()  # no evidence yet
    _, weights = layer(torch.randn(2, 1, 10, 32), torch.zeros(10, dtype=torch.long))
    own = torch.full((2, 10), 0.5)
    own[:, 3] = 1  # alone
    torch.testing.assert_close(weights.diagonal(dim1=1, dim2=2), own)


def test_a_probability_is_limited_by_the_bound():
    net = random_net()
    net.calibrate.bound.fill_(2.0)
    raw = {"binary": torch.randn(50, 41) * 30}
    raw |= {DISPOSITION: torch.randn(50, 4)}
    p = net.calibrate(raw)["binary"]
    assert p.max() <= torch.sigmoid(torch.tensor(2.0)) + 1e-6
    assert p.min() >= torch.sigmoid(torch.tensor(-2.0)) - 1e-6


def test_an_interval_contains_the_served_days():
    net = random_net()
    raw = {"binary": torch.randn(50, 41), DISPOSITION: torch.randn(50, 4)}
    raw |= {"length_of_stay": torch.randn(50, 3)}
    value, low, high = net.calibrate(raw)["length_of_stay"].T
    assert ((low <= value) & (value <= high)).all()
