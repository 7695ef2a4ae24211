"""Converts the matrix products of an fp32 graph to half precision, or to 8 bits.

Inputs and outputs stay float32. Nodes that only `unusual` depends on stay float32, too: they sum
thousands of squares.
"""

import logging
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quant_pre_process
from onnxruntime.quantization.onnx_model import ONNXModel

from service.runtime.bundle import UNUSUAL

# The number of weights of a column, and of inputs of a row, that share a scale. Blocks of 64 are
# faster (a BERT by a sixth) and change probabilities by half as much again.
BLOCK = 32

_PRODUCTS = {"MatMul", "Gemm", "Conv"}
# Operators that may run in half precision beside the products: those that only move numbers
# (_MOVES), and those that sum nothing, or sum in single precision on CUDA (_ELEMENTWISE). Not
# softmax, exponentials and sums over an axis.
_MOVES = {"Concat", "Expand", "Gather", "GatherND", "Identity", "Reshape", "Shape", "Slice"}
_MOVES |= {"Split", "Squeeze", "Transpose", "Unsqueeze"}
_ELEMENTWISE = {"Add", "AveragePool", "Div", "Gelu", "MaxPool", "Mul", "Relu", "Sub"}
_ELEMENTWISE |= {"BatchNormalization", "InstanceNormalization", "LayerNormalization"}


def to_half_precision(path: Path) -> bool:
    """Converts products, and the nodes between two products, to half precision.

    Nodes before the first product (values in their units, which half precision cannot hold) and
    after the last (log-odds, calibration, days) stay float32. Returns False if the graph has no
    product.
    """
    model = _prepared(path)
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    single = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    weights = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    half = _half_precision_nodes(graph, single - set(weights))
    read_as_single = {name for n in graph.node if n.name not in half for name in n.input}
    read_as_single |= {value.name for value in graph.output}
    nodes: list[onnx.NodeProto] = []
    half_values: set[str] = set()
    for node in graph.node:
        if node.name not in half:
            nodes.append(node)
            continue
        for k, name in enumerate(node.input):
            if name not in single and name not in weights:
                continue
            node.input[k] = f"{name}.half"
            if node.input[k] not in half_values and name in weights:
                rounded = numpy_helper.to_array(weights[name]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(rounded, node.input[k]))
            elif node.input[k] not in half_values:
                nodes.append(_cast(name, node.input[k], TensorProto.FLOAT16))
            half_values.add(node.input[k])
        nodes.append(node)
        for k, name in enumerate(node.output):
            if name in single:
                node.output[k] = f"{name}.half"
                half_values.add(node.output[k])
                if name in read_as_single:
                    nodes.append(_cast(node.output[k], name, TensorProto.FLOAT))
    _save(model, nodes, path)
    return bool(half)


def to_int8(path: Path) -> bool:
    """Converts products of weight matrices to 8 bits, with a scale for each block.

    Inputs are rounded at run time by blocks of a row, so a row does not depend on other rows (as it
    would with `MatMulInteger`, whose scale is that of the whole batch). Convolutions stay, because
    they are slower in 8 bits. Returns False if the graph has no such product.
    """
    # The import configures the root logger, which then logs each node.
    from onnxruntime.quantization import matmul_nbits_quantizer  # noqa: PLC0415

    matmul_nbits_quantizer.logger.setLevel(logging.WARNING)
    model = ONNXModel(_prepared(path))
    model.replace_gemm_with_matmul()
    graph = model.graph()
    matrices = {t.name for t in graph.initializer if len(t.dims) == 2}
    products = {
        n.name for n in _answering_nodes(graph) if n.op_type == "MatMul" and n.input[1] in matrices
    }
    if not products:
        return False
    quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(
        model.model,
        bits=8,
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=4,  # computes in int8, too
        nodes_to_exclude=[n.name for n in graph.node if n.name not in products],
    )
    quantizer.process()
    onnx.save(quantizer.model.model, path)
    return True


def _prepared(path: Path) -> onnx.ModelProto:
    """The graph with folded constants (weights are stored as halves), types, and named nodes."""
    quant_pre_process(path, path, skip_symbolic_shape=True)
    model = onnx.load(path)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    return model


def _answering_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that another output than `unusual` depends on."""
    needed = {value.name for value in graph.output} - {UNUSUAL}
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    return nodes[::-1]


def _half_precision_nodes(graph: onnx.GraphProto, single: set[str]) -> set[str]:
    """The names of the nodes to compute in half precision.

    `single`: the float32 values that are not weights. The nodes are the products, the nodes between
    two products if none of them must stay float32, and nodes before or after these that only move
    numbers, so that fewer values are cast.
    """
    allowed = [n for n in _answering_nodes(graph) if n.op_type in _PRODUCTS | _ELEMENTWISE | _MOVES]
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
    half_values = {name for n in allowed if n.name in half for name in n.output}
    for node in moves:
        inputs = single & set(node.input)
        if inputs and inputs <= half_values:
            half.add(node.name)
            half_values |= set(node.output)
    graph_outputs = {value.name for value in graph.output}
    for node in reversed(moves):
        outputs = single & set(node.output)
        if outputs - graph_outputs and all(
            n.name in half for n in graph.node if outputs & set(n.input)
        ):
            half.add(node.name)
    return half


def _cast(name: str, to: str, dtype: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [name], [to], f"{to}.cast", to=dtype)


def _save(model: onnx.ModelProto, nodes: list[onnx.NodeProto], path: Path) -> None:
    """Saves the model with these nodes and the weights that they read."""
    graph = model.graph
    del graph.value_info[:]
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    weights = [t for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    onnx.save(model, path)
