"""A file of tensors gives the written tensors, or an error."""

import json

import pytest
import torch
from safetensors.torch import save_file

from model.network.tensor_files import read_tensors, write_tensors

TENSORS = {
    "weights": torch.linspace(-1, 1, 6).reshape(2, 3),
    "view": torch.tensor([2, 1, 0]),
    "mask": torch.tensor([True, False]),
    "half": torch.tensor([0.5, 2.0], dtype=torch.bfloat16),
    "scalar": torch.tensor(3.0),
    "empty": torch.zeros(0, 4),
}
METADATA = {"progress": json.dumps({"epoch": 3})}


@pytest.fixture
def path(tmp_path):
    write_tensors(TENSORS, tmp_path / "state.safetensors", METADATA)
    return tmp_path / "state.safetensors"


def test_tensors_and_metadata_are_read_as_written(path):
    tensors, metadata = read_tensors(path)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_any_changed_byte_is_an_error(path):
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(Exception):  # noqa: B017, PT011 - safetensors has its own errors
            read_tensors(path)


def test_a_file_without_a_digest_is_an_error(path):
    save_file(TENSORS, path)
    with pytest.raises(ValueError, match="train again"):
        read_tensors(path)


def test_a_file_that_is_read_is_not_held_open_or_mapped(path):
    """A later run replaces the file of a tensor that is still in use."""
    tensors, _ = read_tensors(path)
    path.write_bytes(b"\x00" * path.stat().st_size)
    assert torch.equal(tensors["weights"], TENSORS["weights"])
