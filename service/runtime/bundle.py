"""A bundle in memory: its manifest, its graphs as running sessions, its documents.

Whatever is not as the manifest says is a BundleError before the first request.
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
    one_line,
    read_verified,
)
from schemas.features import Array, Floats
from schemas.manifest import GOLDEN, Graph, Manifest, Tensor, faults_of, read_manifest
from schemas.response import Modality
from schemas.tim import TIM, Tim
from service.runtime.bundle_checks import ATTENTION, EMBEDDING, PRESENT, UNUSUAL, YES_NO, check
from service.settings import Device
from service.telemetry.logging import where

__all__ = ["ATTENTION", "EMBEDDING", "PRESENT", "UNUSUAL", "YES_NO"]  # for those who run a bundle

MODEL_CARD = "MODEL_CARD.md"
NOTICE = "NOTICE"

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_SILENT = 4  # fatal only: its lines about a failed run quote input values
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class Runnable(Protocol):
    """One graph, ready to run. Safe to call from several threads."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Floats]:
        """The graph's outputs by name. `inputs` may hold more than the graph asks for."""


@dataclass(frozen=True)
class Session:
    """A graph in this process."""

    graph: Graph
    onnx: Any

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Floats]:
        names = [tensor.name for tensor in self.graph.outputs]
        feeds = {tensor.name: inputs[tensor.name] for tensor in self.graph.inputs}
        return dict(zip(names, self.onnx.run(names, feeds), strict=True))


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `digest` is the SHA-256 of its manifest.

    `golden` is empty while a bundle is being made: its answers are the engine's own.
    """

    manifest: Manifest
    digest: str
    device: Literal["cpu", "cuda"]
    encoders: Mapping[Modality, Runnable]
    fusion: Runnable
    golden: bytes
    tim: Tim | None
    model_card: bytes | None
    notice: bytes | None

    @classmethod
    def load(
        cls,
        path: Path,
        device: Device = "auto",
        threads: int = 1,
        elsewhere: Callable[[Path, str], Callable[[Graph], Runnable]] | None = None,
    ) -> Self:
        """Reads and checks everything in the folder.

        `elsewhere`: of a bundle's folder and digest, what gives graphs that are not run here.

        Raises BundleError for whatever is missing, was changed, or is not as the manifest says,
        and for a device that was asked for and is not there.
        """
        try:
            return cls._load(path, device, threads, elsewhere)
        except BundleError:
            raise
        except Exception as error:
            at = where(error)[-1]
            fault = f"{one_line(str(path))} cannot be loaded: {type(error).__name__} at {at}"
            raise BundleError(fault) from error

    @classmethod
    def _load(
        cls,
        path: Path,
        device: Device,
        threads: int,
        elsewhere: Callable[[Path, str], Callable[[Graph], Runnable]] | None,
    ) -> Self:
        manifest, digest = read_manifest(path)
        graphs = (*manifest.encoders.values(), manifest.fusion)
        for file in (graph.file for graph in graphs):
            if file not in manifest.files:
                raise BundleError(f"{path}: the manifest has no digest of {file}")
        found = chosen_device(device)
        if elsewhere is None:
            ready: Callable[[Graph], Runnable] = partial(
                _session, path, manifest.files, found, threads
            )
        else:
            ready = elsewhere(path, digest)
        bundle = cls(
            manifest=manifest.on(found),
            digest=digest,
            device=found,
            encoders={m: ready(graph) for m, graph in manifest.encoders.items()},
            fusion=ready(manifest.fusion),
            golden=_document(path, manifest, GOLDEN) or b"",
            tim=_tim(path, manifest),
            model_card=_document(path, manifest, MODEL_CARD),
            notice=_document(path, manifest, NOTICE),
        )
        check(manifest)
        if bundle.tim and bundle.tim.tasks != tuple(facts.task.name for facts in manifest.tasks):
            raise BundleError(f"{path / TIM} is of other tasks than the bundle's")
        return bundle

    def graph(self, file: str) -> Runnable:
        """A graph by its file. Raises KeyError."""
        modalities = {graph.file: m for m, graph in self.manifest.encoders.items()}
        return self.fusion if file == self.manifest.fusion.file else self.encoders[modalities[file]]


def _document(path: Path, manifest: Manifest, name: str) -> bytes | None:
    """A file that a bundle need not have; one without a digest is not served."""
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
        raise BundleError(f"{path / TIM} is no TIM: {faults_of(error)}") from None


def chosen_device(asked: Device) -> Literal["cpu", "cuda"]:
    """Raises BundleError for a CUDA device that was asked for and is not there."""
    if asked == "cpu":
        return "cpu"
    there = _CUDA in onnxruntime.get_available_providers() and _cuda_devices() > 0
    if asked == "cuda" and not there:
        raise BundleError("M3H_DEVICE=cuda, and no CUDA device is there")
    return "cuda" if there else "cpu"


def _cuda_devices() -> int:
    """CUDA devices by the driver's own count: ONNX Runtime would name CUDA where there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _session(
    path: Path,
    files: Mapping[str, str],
    device: Literal["cpu", "cuda"],
    threads: int,
    graph: Graph,
) -> Session:
    options = onnxruntime.SessionOptions()
    # A graph's weights are in its own file, whose digest is known: there is no folder of others.
    options.add_session_config_entry(_WEIGHTS_FOLDER, os.devnull)
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads
    # Requests share the processors: a thread that spins for work takes them from another request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [_CPU]
    if device == "cuda":
        # TF32 keeps 10 bits of the fraction: too few for the golden answers.
        providers = [(_CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}), _CPU]
        onnxruntime.preload_dlls()
    content = read_verified(path, graph.file, files, FILE_BYTES)
    try:
        # Its fallback prints to standard output and goes on with another provider.
        session = onnxruntime.InferenceSession(content, options, providers, enable_fallback=0)
    except Exception as error:  # noqa: BLE001 - its errors have no common base
        raise BundleError(f"{path / graph.file} does not load: {one_line(str(error))}") from None
    if device == "cuda" and _CUDA not in session.get_providers():
        raise BundleError(
            "a CUDA device is there, and ONNX Runtime cannot use it: "
            "are CUDA 13 and cuDNN 9 installed? M3H_DEVICE=cpu serves without it"
        )
    _check_tensors(path / graph.file, "input", graph.inputs, session.get_inputs())
    _check_tensors(path / graph.file, "output", graph.outputs, session.get_outputs())
    return Session(graph, session)


def _check_tensors(file: Path, kind: str, stated: tuple[Tensor, ...], real: list[Any]) -> None:
    names, real_names = {t.name for t in stated}, {t.name for t in real}
    if names != real_names:
        differ = ", ".join(sorted(names ^ real_names))
        raise BundleError(f"{file}: the {kind}s are not those of the manifest: {differ}")
    by_name = {tensor.name: tensor for tensor in real}
    for tensor in stated:
        found = by_name[tensor.name]
        dtype = _DTYPES.get(found.type, found.type)
        if dtype != tensor.dtype:
            raise BundleError(f"{file}: {kind} {tensor.name} is {dtype}, not {tensor.dtype}")
        if len(found.shape) != len(tensor.axes) or any(
            isinstance(axis, int) and isinstance(length, int) and axis != length
            for axis, length in zip(tensor.axes, found.shape, strict=True)
        ):
            raise BundleError(
                f"{file}: {kind} {tensor.name} has axes {found.shape}, not {list(tensor.axes)}"
            )
