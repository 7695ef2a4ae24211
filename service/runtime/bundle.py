"""A bundle in memory: its manifest, its graphs and its documents.

Everything is verified when the bundle is loaded, so that no request fails later.
"""

import ctypes
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import onnxruntime
from pydantic import ValidationError

from schemas.bundle_files import (
    DOCUMENT_BYTES,
    FILE_BYTES,
    BundleError,
    read_verified,
    single_line,
)
from schemas.features import Array, Floats
from schemas.manifest import GOLDEN, Graph, Manifest, Tensor, describe_errors, read_manifest
from schemas.response import Modality
from schemas.tim import TIM, Tim
from service.runtime.bundle_checks import (
    ATTENTION,
    EMBEDDING,
    PRESENT,
    UNUSUAL,
    YES_NO,
    check_consistency,
)
from service.settings import Device
from service.telemetry.logging import stack_frames

__all__ = ["ATTENTION", "EMBEDDING", "PRESENT", "UNUSUAL", "YES_NO"]  # re-exported

MODEL_CARD = "MODEL_CARD.md"
NOTICE = "NOTICE"

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_FATAL = 4  # log level: lines about a failed run quote input values
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class Runnable(Protocol):
    """A graph that is ready to run. Safe to call from several threads."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Floats]:
        """Returns the outputs by name. Ignores inputs that the graph does not have."""


# Given a bundle's folder and digest, returns a constructor of graphs that run in another process.
GraphConnector = Callable[[Path, str], Callable[[Graph], Runnable]]


@dataclass(frozen=True)
class LocalGraph:
    """A graph that runs in this process. `onnx`: its ONNX Runtime session."""

    graph: Graph
    onnx: Any

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Floats]:
        names = [tensor.name for tensor in self.graph.outputs]
        feeds = {tensor.name: inputs[tensor.name] for tensor in self.graph.inputs}
        return dict(zip(names, self.onnx.run(names, feeds), strict=True))


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `digest`: SHA-256 of its manifest.

    `golden` is empty during export: the engine computes the golden answers.
    """

    manifest: Manifest
    digest: str
    device: Literal["cpu", "cuda"]
    encoders: Mapping[Modality, Runnable]
    fusion: Runnable
    golden: bytes
    tim: Tim | None
    model_card: bytes | None

    @classmethod
    def load(
        cls,
        path: Path,
        device: Device = "auto",
        threads: int = 1,
        remote: GraphConnector | None = None,
    ) -> Self:
        """Loads and verifies a bundle.

        `threads`: CPU threads of each graph. `remote`: connects to a process that runs the graphs;
        without it, they run in this process.

        Raises BundleError if a file is missing, changed or not as the manifest declares, and if the
        requested device is not available.
        """
        try:
            return cls._load(path, device, threads, remote)
        except BundleError:
            raise
        except Exception as error:
            frame = stack_frames(error)[-1]
            fault = f"{single_line(str(path))} cannot be loaded: {type(error).__name__} at {frame}"
            raise BundleError(fault) from error

    @classmethod
    def _load(
        cls,
        path: Path,
        device: Device,
        threads: int,
        remote: GraphConnector | None,
    ) -> Self:
        manifest, digest = read_manifest(path)
        graphs = (*manifest.encoders.values(), manifest.fusion)
        for file in (graph.file for graph in graphs):
            if file not in manifest.files:
                raise BundleError(f"{path}: the manifest has no digest of {file}")
        available = select_device(device)
        load_graph: Callable[[Graph], Runnable]
        if remote is None:
            load_graph = partial(_load_graph, path, manifest.files, available, threads)
        else:
            load_graph = remote(path, digest)
        bundle = cls(
            manifest=manifest.for_device(available),
            digest=digest,
            device=available,
            encoders={m: load_graph(graph) for m, graph in manifest.encoders.items()},
            fusion=load_graph(manifest.fusion),
            golden=_document(path, manifest, GOLDEN) or b"",
            tim=_tim(path, manifest),
            model_card=_document(path, manifest, MODEL_CARD),
        )
        check_consistency(manifest)
        if bundle.tim and bundle.tim.tasks != tuple(task.task.name for task in manifest.tasks):
            raise BundleError(f"{path / TIM} is of other tasks than the bundle's")
        return bundle

    def graph(self, file: str) -> Runnable:
        """The graph in a file. Raises KeyError if no graph has this file name."""
        modalities = {graph.file: m for m, graph in self.manifest.encoders.items()}
        return self.fusion if file == self.manifest.fusion.file else self.encoders[modalities[file]]


def _document(path: Path, manifest: Manifest, name: str) -> bytes | None:
    """Reads an optional file. Returns None if the manifest has no digest of it."""
    if name not in manifest.files:
        return None
    return read_verified(path, name, manifest.files, DOCUMENT_BYTES)


def _tim(path: Path, manifest: Manifest) -> Tim | None:
    content = _document(path, manifest, TIM)
    if content is None:
        return None
    try:
        return Tim.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(f"{path / TIM} is not a TIM: {describe_errors(error)}") from None


def select_device(requested: Device) -> Literal["cpu", "cuda"]:
    """The device to run on. Raises BundleError if CUDA is requested and not available."""
    if requested == "cpu":
        return "cpu"
    has_cuda = _CUDA in onnxruntime.get_available_providers() and _count_cuda_devices() > 0
    if requested == "cuda" and not has_cuda:
        raise BundleError("M3H_DEVICE is cuda, but no CUDA device is available")
    return "cuda" if has_cuda else "cpu"


def _count_cuda_devices() -> int:
    """Counts CUDA devices with the driver: ONNX Runtime offers CUDA even without a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _load_graph(
    path: Path,
    files: Mapping[str, str],
    device: Literal["cpu", "cuda"],
    threads: int,
    graph: Graph,
) -> LocalGraph:
    """Reads and verifies the file of a graph and creates its session. Raises BundleError."""
    options = onnxruntime.SessionOptions()
    # The weights are in the graph's file, whose digest is verified. External files are refused.
    options.add_session_config_entry(_WEIGHTS_FOLDER, os.devnull)
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads
    # Requests share the CPUs: a thread that spins while it waits takes CPU time from others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [_CPU]
    if device == "cuda":
        # TF32 has a fraction of 10 bits, too few for the golden answers.
        providers = [(_CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}), _CPU]
        onnxruntime.preload_dlls()
    content = read_verified(path, graph.file, files, FILE_BYTES)
    try:
        # The fallback would print to standard output and use another provider.
        session = onnxruntime.InferenceSession(content, options, providers, enable_fallback=0)
    except Exception as error:  # noqa: BLE001 - its errors have no common base
        raise BundleError(f"{path / graph.file} does not load: {single_line(str(error))}") from None
    if device == "cuda" and _CUDA not in session.get_providers():
        raise BundleError(
            "ONNX Runtime cannot use the CUDA device: "
            "are CUDA 13 and cuDNN 9 installed? M3H_DEVICE=cpu serves without it"
        )
    _check_tensors(path / graph.file, "input", graph.inputs, session.get_inputs())
    _check_tensors(path / graph.file, "output", graph.outputs, session.get_outputs())
    return LocalGraph(graph, session)


def _check_tensors(file: Path, kind: str, declared: tuple[Tensor, ...], actual: list[Any]) -> None:
    """Raises BundleError if a graph's inputs or outputs are not those that the manifest declares.

    `kind`: "input" or "output". `actual`: as ONNX Runtime describes them.
    """
    names, actual_names = {t.name for t in declared}, {t.name for t in actual}
    if names != actual_names:
        differ = ", ".join(sorted(names ^ actual_names))
        raise BundleError(f"{file}: the {kind}s are not those of the manifest: {differ}")
    by_name = {tensor.name: tensor for tensor in actual}
    for tensor in declared:
        node = by_name[tensor.name]
        dtype = _DTYPES.get(node.type, node.type)
        if dtype != tensor.dtype:
            raise BundleError(f"{file}: {kind} {tensor.name} is {dtype}, not {tensor.dtype}")
        if len(node.shape) != len(tensor.axes) or any(
            isinstance(axis, int) and isinstance(length, int) and axis != length
            for axis, length in zip(tensor.axes, node.shape, strict=True)
        ):
            raise BundleError(
                f"{file}: {kind} {tensor.name} has axes {node.shape}, not {list(tensor.axes)}"
            )
