"""Training gives the same results on all devices, except for rounding."""

import pytest
import torch

from model.training.preparation import PreparedTraining
from model.training.processes.device import CPU, Device, DeviceError
from model.training.processes.distributed import ProcessGroup
from model.training.trainer import Trainer
from tests.support.inputs.cohorts import CONFIG, make_cohort

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
BF16 = Device(torch.device("cpu"), bf16=True)


@pytest.fixture(scope="module")
def on_cpu():
    return trained(CPU)


def trained(device):
    trainer = Trainer(PreparedTraining([make_cohort()], CONFIG, device=device))
    return trainer, list(trainer.run())


def assert_alike(found, expected, tolerance):
    (trainer, epochs), (other, others) = found, expected
    assert [(e.member, e.number) for e in epochs] == [(e.member, e.number) for e in others]
    for epoch, its in zip(epochs, others, strict=True):
        for kind, loss in its.validation.items():
            assert epoch.validation[kind] == pytest.approx(loss, rel=tolerance), kind
    for name, value in trainer.held_out.items():
        difference = (value - other.held_out[name]).abs().nanmean()
        assert difference < tolerance, name


@no_cuda
def test_a_missing_gpu_is_refused_with_the_allowed_devices():
    with pytest.raises(DeviceError, match=r"no CUDA GPU here.*auto or cpu"):
        Device.choose("cuda")


@no_cuda
def test_without_a_gpu_the_device_is_the_cpu_in_fp32():
    assert Device.choose("auto") == CPU == Device.choose("cpu")
    assert str(CPU) == "cpu in fp32"


def test_bfloat16_gives_nearly_the_same_and_float32_weights(on_cpu, tmp_path):
    trainer = Trainer(PreparedTraining([make_cohort()], CONFIG, device=BF16))
    seen = set()  # dtypes of a layer's output, and whether it trains
    trainer.net.member(0).fusion.attention.key.register_forward_hook(
        lambda module, inputs, output: seen.add((output.dtype, module.training))
    )
    found = trainer, list(trainer.run(tmp_path))
    assert_alike(found, on_cpu, 0.02)
    assert seen == {(torch.bfloat16, True), (torch.float32, False)}  # learned, validated
    assert {p.dtype for p in trainer.net.parameters()} == {torch.float32}


@cuda
def test_a_gpu_gives_nearly_the_same_as_a_cpu(on_cpu):
    exact = Device(Device.choose("cuda").torch_device)
    assert_alike(trained(exact), on_cpu, 1e-3)


@cuda
def test_a_gpu_gives_nearly_the_same_in_bfloat16(on_cpu):
    device = Device.choose("cuda")
    assert device.bf16 == torch.cuda.is_bf16_supported(including_emulation=False)
    trainer, epochs = trained(device)
    assert_alike((trainer, epochs), on_cpu, 0.02)
    assert {p.device.type for p in trainer.net.parameters()} == {"cpu"}


@cuda
def test_representations_that_do_not_fit_on_the_gpu_stay_on_the_cpu(on_cpu):
    torch_device = Device.choose("cuda").torch_device
    crowded = Device(torch_device, sharers=10**9)
    trainer, epochs = trained(crowded)
    assert {v.device.type for v in trainer.prepared.represented.vectors.values()} == {"cpu"}
    assert_alike((trainer, epochs), on_cpu, 1e-3)


@cuda
def test_processes_share_gpus_if_there_are_too_few():
    gpus = torch.cuda.device_count()
    device = Device.choose("auto", ProcessGroup(gpus, gpus + 1, gpus, gpus + 1))
    assert device.torch_device.index == 0
    assert device.sharers == 2
