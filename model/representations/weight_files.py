"""Files of pretrained weights, read as tensors. Code in a file is never run."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model.errors import UserError

Weights = dict[str, Tensor]

MAX_NAMES = 3  # tensors that an error names

_PICKLED = """\
{file} holds a pickled object ({code}); M3H never runs code from a file. If you trust the file, \
save its weights where the object's package is installed:
  python -c "import torch; x = torch.load('{file}', map_location='cpu', weights_only=False); \
torch.save(x.state_dict() if hasattr(x, 'state_dict') else x['state_dict'], 'weights.pt')\""""


class EncoderError(UserError):
    """An encoder that cannot be used, because of its files or because of the cohort."""


def read_weights(file: Path) -> Weights:
    """The named tensors of a torch or safetensors file, also if nested in a checkpoint.

    Raises EncoderError if the file is damaged, holds code or holds no named tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise EncoderError(f"{file} is not a safetensors file: {error}") from None
    except Exception as error:  # noqa: BLE001 - torch raises many types for a damaged file
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code is None:
            raise EncoderError(f"{file} is neither a torch nor a safetensors file") from None
        raise EncoderError(_PICKLED.format(file=file, code=code.group(1))) from None
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if isinstance(content, Mapping):
        content = {n: w for n, w in content.items() if isinstance(n, str) and isinstance(w, Tensor)}
    if not isinstance(content, dict) or not content:
        raise EncoderError(f"{file} holds no named tensors")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Raises EncoderError if the file is not a JSON object."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise EncoderError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise EncoderError(f"{path} is not a JSON object")
    return content


def round_matrices(file: Path, weights: Weights) -> Weights:
    """Rounds matrices to half precision, as a bundle does, so that training uses served weights.

    Vectors keep their precision: the variances of a batch norm may exceed the largest half.
    Raises EncoderError if a rounded weight is not finite.
    """
    rounded = {
        name: weight.half().float() if weight.ndim > 1 else weight.float()
        for name, weight in weights.items()
        if weight.is_floating_point()
    }
    broken = [name for name, weight in rounded.items() if not torch.isfinite(weight).all()]
    if broken:
        raise EncoderError(f"{file}: not finite in half precision: {list_names(broken)}")
    return rounded


def load_into(file: Path, network: nn.Module, weights: Weights) -> None:
    """Loads the weights of `file`; ignores tensors that the network does not have.

    Raises EncoderError if a tensor is missing or has another shape.
    """
    shapes = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
    missing = [name for name in shapes if name not in weights]
    if missing:
        count = f"{len(missing)} of {len(shapes)} tensors"
        raise EncoderError(f"{file} lacks {count}: {list_names(missing)}")
    wrong = [
        f"{name} {tuple(weights[name].shape)}, not {shape}"
        for name, shape in shapes.items()
        if tuple(weights[name].shape) != shape
    ]
    if wrong:
        raise EncoderError(f"{file}: tensors of another shape: {list_names(wrong)}")
    network.load_state_dict(weights, strict=False)


def list_names(names: Iterable[str]) -> str:
    """The first names, and the number of the others."""
    every = list(names)
    rest = f" and {len(every) - MAX_NAMES} more" if len(every) > MAX_NAMES else ""
    return ", ".join(every[:MAX_NAMES]) + rest


def sha256_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
