"""Files of named tensors (safetensors) with a digest, so that a damaged file is never used."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

_DIGEST = "sha256"


def write_tensors(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Replaces the file atomically: a killed process never leaves a partial file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = metadata or {}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, {**metadata, _DIGEST: _digest(tensors, metadata)})
    partial.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file of `write_tensors`.

    Raises ValueError if the content differs from the written one, OSError or SafetensorError if the
    file cannot be read.
    """
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        # Copies: a tensor of `safe_open` maps the file, and changes if the file is overwritten.
        # `safe_open` has `keys` but cannot be iterated.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    digest = metadata.pop(_DIGEST, None)
    if digest is None:
        raise ValueError(f"has no {_DIGEST}; another version of m3h wrote it, so train again")
    if digest != _digest(tensors, metadata):
        raise ValueError("was changed since it was written")
    return tensors, metadata


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 of the names, types, shapes and values of all tensors, and of the metadata."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
