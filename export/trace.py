"""Torch modules to ONNX graphs: one for each encoder, one for fusion."""

import copy
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.func import functional_call, stack_module_state, vmap

from model.network.m3h import M3H, Ensemble, Fusion
from schemas.features import STATISTICS, TREATMENT_FEATURES, FeatureSpec
from schemas.manifest import Graph
from schemas.manifest import Tensor as TensorFact
from schemas.response import MODALITIES, Modality

# The exporter logs each missing operator of torchvision.
logging.getLogger("torch.onnx").setLevel(logging.ERROR)

OPSET = 20
MIN_HALF_SIZE = 1024  # smaller tensors stay float32
FUSION = "fusion"
ATTENTION = "attention"
PRESENT = "present"
UNUSUAL = "unusual"
ENCODER_OUTPUTS = ["embedding", UNUSUAL]

_DTYPES = {"FLOAT": "float32", "INT64": "int64", "UINT8": "uint8", "BOOL": "bool"}


class Served(nn.Module):
    """The served fusion: from embeddings to calibrated outputs and the attention."""

    def __init__(self, net: M3H) -> None:
        super().__init__()
        self.fusion = StackedEnsemble(net.fusion)
        self.calibrate = net.calibrate

    def forward(
        self, tabular: Tensor, series: Tensor, notes: Tensor, image: Tensor, present: Tensor
    ) -> tuple[Tensor, ...]:
        """Each embedding [B, D], present [B, 4] -> the outputs in `output_names` order."""
        raw, attention = self.fusion(torch.stack([tabular, series, notes, image], dim=1), present)
        return (*self.calibrate(raw).values(), attention)


class StackedEnsemble(nn.Module):
    """An Ensemble (`model.network.m3h`) with most operations of its members stacked.

    For a single request, the number of operations costs more than the arithmetic, and eight members
    have eight times as many. The projection stays one product per member: ONNX Runtime prepacks
    weights only for products of two matrices.

    `bias`: the mean over members of the bias of each head that is not a probability. Its name stays
    in the graph, so that recalibration can correct it.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        copied = copy.deepcopy(ensemble.members)
        self.members = [member for member in copied if isinstance(member, Fusion)]
        self.bias = nn.ParameterDict()
        for name in self.members[0].heads.other:
            biases = [member.heads.other.get_parameter(f"{name}.bias") for member in self.members]
            self.bias[name] = nn.Parameter(torch.stack(tuple(biases)).mean(0))
            for bias in biases:
                nn.init.zeros_(bias)

    def forward(self, embeddings: Tensor, present: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        parts = torch.stack(embeddings.chunk(len(self.members), dim=2))
        width = self.members[0].stand_in.shape[1]
        fused = self._stacked("fuse", parts[..., :width], present)
        projected = [member.project_tasks(x) for member, x in zip(self.members, fused, strict=True)]
        raw, weights = self._stacked("attend", torch.stack(projected))
        mean = {name: value.mean(0) for name, value in raw.items()}
        mean = self.members[0].add_log_odds(mean, parts[..., width:].mean(0), present)
        return mean | {name: mean[name] + bias for name, bias in self.bias.items()}, weights.mean(0)

    def _stacked(self, method: str, per_member: Tensor, *shared: Tensor) -> Any:
        """Calls a method of all members at once; `per_member` [members, …] are their inputs."""
        parts: list[nn.Module] = [_Method(member, method) for member in self.members]
        weights, _ = stack_module_state(parts)
        buffers = dict(parts[0].named_buffers())

        def call(weights: dict[str, Tensor], x: Tensor) -> Any:
            return functional_call(parts[0], (weights, buffers), (x, *shared))

        return vmap(call)(weights, per_member)


class _Method(nn.Module):
    """A method of a module as a module of its own."""

    def __init__(self, whole: nn.Module, method: str) -> None:
        super().__init__()
        self.whole, self.method = whole, method

    def forward(self, *inputs: Tensor) -> Any:
        return getattr(self.whole, self.method)(*inputs)


def output_names(net: M3H) -> list[str]:
    """The names of the fusion graph's outputs, in order."""
    with torch.no_grad():
        embeddings = torch.zeros(1, len(MODALITIES), net.width)
        raw, _ = net.fusion(embeddings, torch.zeros(1, len(MODALITIES), dtype=torch.bool))
        return [*net.calibrate(raw), ATTENTION]


def encoder_inputs(
    modality: Modality, spec: FeatureSpec, batch: int, length: int = 16
) -> dict[str, Tensor]:
    """Random inputs of an encoder, a third of them missing, for tracing and parity."""
    generator = torch.Generator().manual_seed(batch * 1000 + length)

    def numbers(*shape: int) -> Tensor:
        values = torch.randn(batch, *shape, generator=generator) * 30
        missing = torch.rand(batch, *shape, generator=generator) < 1 / 3
        return values.masked_fill(missing, torch.nan)

    if modality == "tabular":
        return {"values": numbers(len(spec.tabular_names))}
    if modality == "series":
        return {
            "statistics": numbers(len(spec.variables), len(STATISTICS)),
            "treatments": numbers(len(spec.treatments), len(TREATMENT_FEATURES)),
        }
    if modality == "notes":
        size = spec.vocabulary
        return {"tokens": torch.randint(0, size, (batch, length), generator=generator)}
    side = spec.image_side
    pixels = torch.randint(0, 256, (batch, 1, side, side), generator=generator)
    return {"pixels": pixels.to(torch.uint8)}


def fusion_inputs(net: M3H, present: Tensor) -> dict[str, Tensor]:
    """Random embeddings, zeros for absent modalities, and `present` [B, 4]."""
    generator = torch.Generator().manual_seed(len(present))
    embeddings = torch.randn(len(present), len(MODALITIES), net.width, generator=generator)
    embeddings = embeddings * present[:, :, None]
    return {m: embeddings[:, i] for i, m in enumerate(MODALITIES)} | {PRESENT: present}


def export_encoder(net: M3H, modality: Modality, spec: FeatureSpec, folder: Path) -> Graph:
    """Writes `<modality>.onnx`; its outputs are `embedding` [batch, D] and `unusual` [batch]."""
    inputs = encoder_inputs(modality, spec, batch=3)
    lengths = {"tokens": {0: Dim("batch"), 1: Dim("length")}}
    axes = {"inputs": tuple(lengths.get(name, {0: Dim("batch")}) for name in inputs)}
    return _export(
        net.encoders[modality], inputs, axes, ENCODER_OUTPUTS, folder / f"{modality}.onnx"
    )


def export_fusion(net: M3H, folder: Path) -> Graph:
    """Writes `fusion.onnx`: calibrated, coherent outputs by task, and `attention` [batch, T, T]."""
    inputs = fusion_inputs(net, torch.tensor([[True, False, True, False]] * 3))
    axes = {name: {0: Dim("batch")} for name in inputs}
    return _export(Served(net), inputs, axes, output_names(net), folder / f"{FUSION}.onnx")


def _export(
    module: nn.Module,
    inputs: dict[str, Tensor],
    axes: dict[str, Any],
    outputs: list[str],
    path: Path,
) -> Graph:
    with warnings.catch_warnings():
        # The warnings are about the exporter's internals; `parity` checks the graph.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            args=tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=axes,
        )
    if program is None:
        raise RuntimeError(f"the exporter made no graph for {path.name}")
    for node in program.model.graph:
        # The exporter records stack traces, which hold local paths.
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            # ONNX Runtime refuses an inner value with the name of an output, which aten::embedding
            # can cause.
            if value.name in outputs and not value.is_graph_output():
                value.name = f"inner_{value.name}"
    program.save(path, external_data=False)
    _store_as_halves(path)
    return describe(path)


def _store_as_halves(path: Path) -> None:
    """Stores weights whose values fit half precision as float16, which halves the file.

    ONNX Runtime casts them back when it loads the graph (constant folding); results are unchanged.
    """
    model = onnx.load(path)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or math.prod(tensor.dims) < MIN_HALF_SIZE:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):  # a larger value becomes infinite, and then differs
            halves = values.astype(np.float16)
        if np.array_equal(halves.astype(np.float32), values):
            name = tensor.name
            stored = f"{name}_half"
            tensor.CopyFrom(onnx.numpy_helper.from_array(halves, stored))
            to = onnx.TensorProto.FLOAT
            casts.append(onnx.helper.make_node("Cast", [stored], [name], f"{name}_cast", to=to))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    onnx.save(model, path)


def describe(path: Path) -> Graph:
    """The names, types and axes of a graph's inputs and outputs, read from the file."""
    graph = onnx.load(path).graph
    return Graph(
        file=path.name,
        inputs=tuple(_fact(value) for value in graph.input),
        outputs=tuple(_fact(value) for value in graph.output),
    )


def _fact(value: onnx.ValueInfoProto) -> TensorFact:
    kind = value.type.tensor_type
    axes = tuple(d.dim_param or d.dim_value for d in kind.shape.dim)
    return TensorFact.model_validate(
        {
            "name": value.name,
            "dtype": _DTYPES[onnx.TensorProto.DataType.Name(kind.elem_type)],
            "axes": axes,
        }
    )
