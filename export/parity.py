"""Whether a graph does what the network does: names, axes, shapes, then values."""

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
# A sum over thousands of squares, then the slope between two close quantiles.
UNUSUAL_TOLERANCE = 1e-2
BATCHES = (1, 2, 5, 33)
LENGTHS = (1, 7, 300, 2500)
# At once: more would need more memory than many machines have, if a BERT reads them.
MOST_TOKENS = 16_384


@dataclass(frozen=True)
class Parity:
    """What was compared and how far it was off at most."""

    comparisons: int
    largest_difference: float


class ParityError(UserError):
    """A graph differs from the network; every difference found is named."""


def check_parity(net: M3H, spec: FeatureSpec, graphs: dict[str, Graph], folder: Path) -> Parity:
    """Compares every graph with its module over many shapes.

    Absent modalities in all 16 combinations, missing values, notes of 1 to 2,500 tokens and notes
    without any are among them. Raises ParityError with all failures.
    """
    failures: list[str] = []
    differences: list[float] = []
    for name, graph in graphs.items():
        module = Served(net) if name == FUSION else net.encoders[name]
        wanted = output_names(net) if name == FUSION else ENCODER_OUTPUTS
        failures += _shape_failures(name, graph, wanted)
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(folder / graph.file, providers=providers)
        for inputs in _cases(name, net, spec):
            found = session.run(wanted, {k: v.numpy() for k, v in inputs.items()})
            failures += _differences(name, wanted, found, module.eval(), inputs, differences)
    if failures:
        raise ParityError("\n".join(failures))
    return Parity(len(differences), max(differences))


def _cases(name: str, net: M3H, spec: FeatureSpec) -> Iterator[dict[str, Tensor]]:
    if name == FUSION:
        every = torch.tensor(list(itertools.product([False, True], repeat=len(MODALITIES))))
        yield fusion_inputs(net, every)
        for batch in BATCHES:
            yield fusion_inputs(net, every.repeat(3, 1)[:batch])
        return
    for modality in MODALITIES:
        if modality == name:
            for batch in BATCHES:
                for length in LENGTHS if name == "notes" else LENGTHS[:1]:
                    if batch * length <= MOST_TOKENS:
                        yield encoder_inputs(modality, spec, batch, length)
    if name == "notes":
        yield {"tokens": torch.zeros(2, 9, dtype=torch.int64)}


def _shape_failures(name: str, graph: Graph, wanted: list[str]) -> list[str]:
    failures = []
    if [t.name for t in graph.outputs] != wanted:
        failures.append(f"{name}: outputs {[t.name for t in graph.outputs]}, not {wanted}")
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
    wanted: list[str],
    found: list[np.ndarray],
    module: nn.Module,
    inputs: dict[str, Tensor],
    differences: list[float],
) -> list[str]:
    expected = module(*inputs.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    failures = []
    for output, ours, theirs in zip(wanted, expected, found, strict=True):
        label = f"{name}.{output} for {[tuple(v.shape) for v in inputs.values()]}"
        if tuple(ours.shape) != theirs.shape:
            failures.append(f"{label}: shape {theirs.shape}, torch has {tuple(ours.shape)}")
            continue
        # Days are compared by their ratio, all else as it is.
        scale = np.maximum(1.0, np.abs(ours.numpy()))
        difference = float((np.abs(ours.numpy() - theirs) / scale).max())
        tolerance = UNUSUAL_TOLERANCE if output == UNUSUAL else TOLERANCE
        if output != UNUSUAL:
            differences.append(difference)
        if not difference <= tolerance:
            failures.append(f"{label}: differs by {difference:.2e}, more than {tolerance:.0e}")
        if output == ATTENTION and not np.allclose(theirs.sum(-1), 1.0, atol=1e-5):
            failures.append(f"{label}: attention rows do not sum to 1")
    return failures
