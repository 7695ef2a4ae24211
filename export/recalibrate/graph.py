"""Edits of the fusion graph."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from export.recalibrate.errors import RecalibrationError
from export.recalibrate.shifts import BinaryShifts, binary_facts
from schemas.manifest import Manifest
from schemas.response import MODALITIES
from service.runtime.bundle import PRESENT

# Initializers of the fusion graph, [T] log-odds: of a patient without any input, and the maximum.
PRIOR, BOUND = "calibrate.prior", "calibrate.bound"
HEAD_BIAS = "fusion.bias.{}"


def shift_prior(graph: onnx.ModelProto, shifts: BinaryShifts, manifest: Manifest) -> None:
    """Replaces the prior: a patient with inputs of a task gets the old prior plus the shift.

    A patient without inputs gets the new prior. The two differ if the model's mean prediction for
    local patients is biased (as it is where a modality is always absent).
    """
    start = read_initializer(graph, PRIOR) + shifts.shift
    visible = [[m in f.visible_modalities for f in binary_facts(manifest)] for m in MODALITIES]
    for node in graph.graph.node:
        for k, name in enumerate(node.input):
            if name == PRIOR:
                node.input[k] = "recalibrate.prior"
    _replace_initializer(graph, PRIOR, shifts.prior)
    for name, values in (("recalibrate.start", start), ("recalibrate.sees", visible)):
        tensor = onnx.numpy_helper.from_array(np.asarray(values, np.float32), name)
        graph.graph.initializer.append(tensor)
    float32, boolean = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
    nodes = [
        onnx.helper.make_node("Cast", [PRESENT], ["recalibrate.present"], to=float32),
        onnx.helper.make_node(
            "MatMul", ["recalibrate.present", "recalibrate.sees"], ["recalibrate.count"]
        ),
        onnx.helper.make_node("Cast", ["recalibrate.count"], ["recalibrate.known"], to=boolean),
        onnx.helper.make_node(
            "Where", ["recalibrate.known", "recalibrate.start", PRIOR], ["recalibrate.prior"]
        ),
    ]
    for node in reversed(nodes):
        graph.graph.node.insert(0, node)


def shift_head(graph: onnx.ModelProto, task: str, shift: npt.NDArray[np.float64]) -> None:
    """Adds a shift to the bias of a task's head."""
    name = HEAD_BIAS.format(task)
    _replace_initializer(graph, name, read_initializer(graph, name) + shift)


def read_initializer(graph: onnx.ModelProto, name: str) -> npt.NDArray[np.float32]:
    """The values of an initializer. Raises RecalibrationError if it is missing."""
    for tensor in graph.graph.initializer:
        if tensor.name == name:
            values: npt.NDArray[np.float32] = onnx.numpy_helper.to_array(tensor)
            return values
    raise RecalibrationError(f"the fusion graph has no initializer {name!r}")


def _replace_initializer(graph: onnx.ModelProto, name: str, values: npt.NDArray[Any]) -> None:
    (tensor,) = (t for t in graph.graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))
