"""A DenseNet as the encoder of X-rays: file formats, scaling, and errors for broken files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.representations.densenet import DenseNet, DenseNetFacts, read_densenet
from model.representations.weight_files import EncoderError
from tests.support.inputs.pretrained_files import OLD_FORMAT, as_chexnet, densenet


def images(count=3, side=64):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, side, side), generator=draw).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_all_file_formats_give_the_same_encoder(tmp_path, channels):
    network = densenet(channels)
    weights = network.state_dict()
    files = {name: tmp_path / name for name in ("tv.pth", "x.pth.tar", "old.pt", "x.safetensors")}
    torch.save(weights, files["tv.pth"])
    torch.save(as_chexnet(network), files["x.pth.tar"], **OLD_FORMAT)
    torch.save({"model": as_chexnet(network)["state_dict"]}, files["old.pt"])
    save_file(weights, files["x.safetensors"])
    features = [read_densenet(file)(images()) for file in files.values()]
    assert all(torch.equal(one, features[0]) for one in features)
    assert features[0].std() > 0
    facts = read_densenet(files["x.pth.tar"]).facts
    assert (facts.channels, facts.initial, facts.growth) == (channels, 32, 8)
    assert (facts.bottleneck, facts.blocks) == (16, (1, 2, 1))


@pytest.mark.parametrize(
    ("channels", "black", "white"),
    [
        (1, [-1024.0], [1024.0]),  # torchxrayvision
        (3, [-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.6400]),  # ImageNet, so CheXNet
    ],
)
def test_grey_values_are_scaled_as_in_the_pretraining(tmp_path, channels, black, white):
    torch.save(densenet(channels).state_dict(), tmp_path / "x.pt")
    encoder = read_densenet(tmp_path / "x.pt")
    seen = []
    encoder.features.conv0.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for shade, expected in ((0, black), (255, white)):
        encoder(torch.full((1, 1, 32, 32), shade, dtype=torch.uint8))
        torch.testing.assert_close(
            seen[-1][0, :, 16, 16], torch.tensor(expected), atol=1e-3, rtol=1e-4
        )


def test_a_densenet_121_has_as_many_weights_as_torchvisions():
    facts = DenseNetFacts(
        name="",
        digest="",
        channels=3,
        initial=64,
        growth=32,
        bottleneck=128,
        blocks=(6, 12, 24, 16),
    )
    encoder = DenseNet(facts)
    # 7,978,856 with the classifier of 1,000 classes.
    assert sum(p.numel() for p in encoder.features.parameters()) == 7_978_856 - 1_025_000
    assert encoder.width == 1024


def test_matrices_are_rounded_to_half_precision_and_variances_are_not(tmp_path):
    network = densenet(1)
    torch.save(network.state_dict(), tmp_path / "x.pt")
    found = read_densenet(tmp_path / "x.pt").features.state_dict()
    for name, given in network.features.state_dict().items():
        expected = given.half().float() if given.ndim > 1 else given
        assert torch.equal(found[name], expected), name
    assert found["norm0.running_var"].max() > 65504  # the largest half


def test_a_pickled_network_is_refused_with_a_command_to_save_its_weights(tmp_path):
    network, file = densenet(1), tmp_path / "xrv.pt"
    torch.save(network, file)
    with pytest.raises(EncoderError, match=r"PickledDenseNet.*never runs code") as e:
        read_densenet(file)
    command = re.search(r"-c \"(.*)\"", str(e.value)).group(1)
    command = command.replace("'weights.pt'", f"'{tmp_path / 'weights.pt'}'")
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", command], cwd=root, check=True)
    torch.save(network.state_dict(), tmp_path / "expected.pt")
    found, expected = (read_densenet(tmp_path / n) for n in ("weights.pt", "expected.pt"))
    assert torch.equal(found(images()), expected(images()))


class Malicious:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"state_dict": Malicious(tmp_path / "ran")}, tmp_path / "x.pt")
    with pytest.raises(EncoderError, match="never runs code"):
        read_densenet(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def resnet(weights):
    return {"conv1.weight": torch.zeros(8, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(8, 8)}


def without_a_layer(weights):
    return {n: w for n, w in weights.items() if "denseblock2.denselayer1." not in n}


def wider(weights):
    name = "features.denseblock2.denselayer2.conv1.weight"
    return weights | {name: torch.zeros(16, 99, 1, 1)}


def of_two_channels(weights):
    return weights | {"features.conv0.weight": torch.zeros(32, 2, 7, 7)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (resnet, r"is not a DenseNet: .*it has conv1.weight, layer1.0.conv1.weight"),
        (without_a_layer, r"lacks 10 of \d+ tensors: denseblock2.denselayer1.norm1.weight"),
        (wider, r"denseblock2.denselayer2.conv1.weight \(16, 99, 1, 1\), not \(16, 28, 1, 1\)"),
        (of_two_channels, "reads 2 channels; it must read 1 or 3"),
        (lambda _: torch.zeros(3), "holds no named tensors"),
        (lambda _: {}, "holds no named tensors"),
    ],
)
def test_a_broken_densenet_file_is_refused(tmp_path, change, expected):
    torch.save(change(densenet(3).state_dict()), tmp_path / "x.pt")
    with pytest.raises(EncoderError, match=expected):
        read_densenet(tmp_path / "x.pt")


def test_a_file_without_weights_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"a text")
    with pytest.raises(EncoderError, match="neither a torch nor a safetensors file"):
        read_densenet(tmp_path / "x.pt")
    with pytest.raises(EncoderError, match="there is no file"):
        read_densenet(tmp_path / "y.pt")
