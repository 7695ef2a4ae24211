"""Parity of ONNX graphs with the torch network: names, axes, shapes, then values."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from export.trace import (
    ATTENTION,
    ENCODER_OUTPUTS,
    FUSION,
    UNUSUAL,
    Served,
    encoder_inputs,
    fusion_inputs,
    output_names,
)
from model.errors import UserError
from model.network.m3h import M3H
from schemas.features import FeatureSpec
from schemas.manifest import Graph
from schemas.response import MODALITIES

TOLERANCE = 1e-4
# `unusual` sums thousands of squares, then interpolates between two close quantiles.
UNUSUAL_TOLERANCE = 1e-2
BATCHES = (1, 2, 5, 33)
LENGTHS = (1, 7, 300, 2500)
# Tokens of a batch: a BERT would need too much memory for more.
MAX_TOKENS = 16_384


@dataclass(frozen=True)
class Parity:
    """The number of comparisons, and the largest difference."""

    comparisons: int
    largest_difference: float


class ParityError(UserError):
    """A graph differs from the network. The text names every difference."""


def check_parity(net: M3H, spec: FeatureSpec, graphs: dict[str, Graph], folder: Path) -> Parity:
    """Compares every graph with its module over many shapes.

    The inputs include all 16 combinations of absent modalities, missing values, and notes of 0 to
    2,500 tokens. Raises ParityError with all failures.
    """
    failures: list[str] = []
    differences: list[float] = []
    for name, graph in graphs.items():
        module = Served(net) if name == FUSION else net.encoders[name]
        expected_names = output_names(net) if name == FUSION else ENCODER_OUTPUTS
        failures += _shape_failures(name, graph, expected_names)
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(folder / graph.file, providers=providers)
        for inputs in _cases(name, net, spec):
            actual = session.run(expected_names, {k: v.numpy() for k, v in inputs.items()})
            failures += _differences(
                name, expected_names, actual, module.eval(), inputs, differences
            )
    if failures:
        raise ParityError("\n".join(failures))
    return Parity(len(differences), max(differences))


def _cases(name: str, net: M3H, spec: FeatureSpec) -> Iterator[dict[str, Tensor]]:
    if name == FUSION:
        combinations = torch.tensor(list(itertools.product([False, True], repeat=len(MODALITIES))))
        yield fusion_inputs(net, combinations)
        for batch in BATCHES:
            yield fusion_inputs(net, combinations.repeat(3, 1)[:batch])
        return
    for modality in MODALITIES:
        if modality == name:
            for batch in BATCHES:
                for length in LENGTHS if name == "notes" else LENGTHS[:1]:
                    if batch * length <= MAX_TOKENS:
                        yield encoder_inputs(modality, spec, batch, length)
    if name == "notes":
        yield {"tokens": torch.zeros(2, 9, dtype=torch.int64)}


def _shape_failures(name: str, graph: Graph, expected_names: list[str]) -> list[str]:
    failures = []
    if [t.name for t in graph.outputs] != expected_names:
        failures.append(f"{name}: outputs {[t.name for t in graph.outputs]}, not {expected_names}")
    for tensor in (*graph.inputs, *graph.outputs):
        if tensor.axes[0] != "batch":
            failures.append(f"{name}.{tensor.name}: first axis {tensor.axes[0]!r}, not 'batch'")
        free = {axis for axis in tensor.axes if isinstance(axis, str)} - {"batch", "length"}
        if free:
            failures.append(f"{name}.{tensor.name}: unexpected free axes {sorted(free)}")
    return failures


@torch.no_grad()
def _differences(
    name: str,
    expected_names: list[str],
    actual: list[np.ndarray],
    module: nn.Module,
    inputs: dict[str, Tensor],
    differences: list[float],
) -> list[str]:
    expected = module(*inputs.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    failures = []
    for output, torch_value, value in zip(expected_names, expected, actual, strict=True):
        label = f"{name}.{output} for {[tuple(v.shape) for v in inputs.values()]}"
        if tuple(torch_value.shape) != value.shape:
            failures.append(f"{label}: shape {value.shape}, torch has {tuple(torch_value.shape)}")
            continue
        # Days are compared by their ratio, other values by their difference.
        scale = np.maximum(1.0, np.abs(torch_value.numpy()))
        difference = float((np.abs(torch_value.numpy() - value) / scale).max())
        tolerance = UNUSUAL_TOLERANCE if output == UNUSUAL else TOLERANCE
        if output != UNUSUAL:
            differences.append(difference)
        if not difference <= tolerance:
            failures.append(f"{label}: differs by {difference:.2e}, more than {tolerance:.0e}")
        if output == ATTENTION and not np.allclose(value.sum(-1), 1.0, atol=1e-5):
            failures.append(f"{label}: attention rows do not sum to 1")
    return failures
