"""A graph in fp32 becomes one whose products of matrices are in half precision, or in 8 bits.

Inputs and outputs stay float32. What decides of `unusual` alone stays as it is: it sums thousands
of squares.
"""

import logging
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quant_pre_process
from onnxruntime.quantization.onnx_model import ONNXModel

from service.runtime.bundle import UNUSUAL

# Weights of a column, and inputs of a row, that share a scale. 64 are a little faster (a BERT by a
# sixth) and move probabilities by half as much again.
BLOCK = 32

_PRODUCTS = {"MatMul", "Gemm", "Conv"}
# Beside them in half precision: what computes nothing, and what sums nothing or, on CUDA, in single
# precision. Not softmax, exponentials, and sums over an axis.
_MOVES = {"Concat", "Expand", "Gather", "GatherND", "Identity", "Reshape", "Shape", "Slice"}
_MOVES |= {"Split", "Squeeze", "Transpose", "Unsqueeze"}
_BETWEEN = {"Add", "AveragePool", "Div", "Gelu", "MaxPool", "Mul", "Relu", "Sub"}
_BETWEEN |= {"BatchNormalization", "InstanceNormalization", "LayerNormalization"}


def as_halves(path: Path) -> bool:
    """Puts products, and what lies between two of them, into half precision; False: it has none.

    What comes before the first product (values in their units, which half precision cannot hold)
    and after the last (log-odds, calibration, days) stays float32.
    """
    model = _prepared(path)
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    single = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    weights = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    half = _halves(graph, single - set(weights))
    read = {name for n in graph.node if n.name not in half for name in n.input}
    read |= {value.name for value in graph.output}
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()
    for node in graph.node:
        if node.name not in half:
            nodes.append(node)
            continue
        for k, name in enumerate(node.input):
            if name not in single and name not in weights:
                continue
            node.input[k] = f"{name}.half"
            if node.input[k] not in made and name in weights:
                rounded = numpy_helper.to_array(weights[name]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(rounded, node.input[k]))
            elif node.input[k] not in made:
                nodes.append(_cast(name, node.input[k], TensorProto.FLOAT16))
            made.add(node.input[k])
        nodes.append(node)
        for k, name in enumerate(node.output):
            if name in single:
                node.output[k] = f"{name}.half"
                made.add(node.output[k])
                if name in read:
                    nodes.append(_cast(node.output[k], name, TensorProto.FLOAT))
    _save(model, nodes, path)
    return bool(half)


def as_bytes(path: Path) -> bool:
    """Multiplies matrices of weights in 8 bits, a scale for each block; False: there are none.

    Inputs are rounded as the graph runs, by blocks of a row: no row decides of another, as it does
    in `MatMulInteger`, whose scale is that of the whole batch. Convolutions stay: in 8 bits they
    are slower.
    """
    # Sets up the root logger when it is imported, and tells of each node.
    from onnxruntime.quantization import matmul_nbits_quantizer  # noqa: PLC0415

    matmul_nbits_quantizer.logger.setLevel(logging.WARNING)
    model = ONNXModel(_prepared(path))
    model.replace_gemm_with_matmul()
    graph = model.graph()
    matrices = {t.name for t in graph.initializer if len(t.dims) == 2}
    serving = _serving(graph)
    mine = {n.name for n in serving if n.op_type == "MatMul" and n.input[1] in matrices}
    if not mine:
        return False
    quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(
        model.model,
        bits=8,
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=4,  # compute in int8, too
        nodes_to_exclude=[n.name for n in graph.node if n.name not in mine],
    )
    quantizer.process()
    onnx.save(quantizer.model.model, path)
    return True


def _prepared(path: Path) -> onnx.ModelProto:
    """Constants folded (weights are stored as halves), types known, nodes named."""
    quant_pre_process(path, path, skip_symbolic_shape=True)
    model = onnx.load(path)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    return model


def _serving(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that more than `unusual` depends on."""
    wanted = {value.name for value in graph.output} - {UNUSUAL}
    found = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            found.append(node)
    return found[::-1]


def _halves(graph: onnx.GraphProto, single: set[str]) -> set[str]:
    """The names of the nodes to compute in half precision; `single`: float32 that are no weights.

    They are the products, what leads from one to another by nothing that must stay float32, and
    what only moves numbers before or after these, so that fewer are cast.
    """
    serving = _serving(graph)
    allowed = [n for n in serving if n.op_type in _PRODUCTS | _BETWEEN | _MOVES]
    after, before = set[str](), set[str]()
    for node in allowed:
        if node.op_type in _PRODUCTS or after & set(node.input):
            after |= single & set(node.output)
    for node in reversed(allowed):
        if node.op_type in _PRODUCTS or before & set(node.output):
            before |= single & set(node.input)
    half = {
        n.name
        for n in allowed
        if n.op_type in _PRODUCTS or (after & set(n.input) and before & set(n.output))
    }
    moves = [n for n in graph.node if n.op_type in _MOVES]
    made = {name for n in allowed if n.name in half for name in n.output}
    for node in moves:
        inputs = single & set(node.input)
        if inputs and inputs <= made:
            half.add(node.name)
            made |= set(node.output)
    told = {value.name for value in graph.output}
    for node in reversed(moves):
        outputs = single & set(node.output)
        if outputs - told and all(n.name in half for n in graph.node if outputs & set(n.input)):
            half.add(node.name)
    return half


def _cast(name: str, to: str, dtype: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [to], f"{to}.cast", to=dtype)


def _save(model: onnx.ModelProto, nodes: list[onnx.NodeProto], path: Path) -> None:
    """With these nodes, and without what they do not need."""
    graph = model.graph
    del graph.value_info[:]
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    weights = [t for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    onnx.save(model, path)
