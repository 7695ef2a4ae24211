"""A bundle in memory: its manifest, its graphs as running sessions, its documents.

Whatever is not as the manifest says is a BundleError before the first request.
"""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import onnxruntime
from pydantic import ValidationError

from schemas.features import Array, Floats
from schemas.manifest import (
    GOLDEN,
    TOKENIZER,
    BundleError,
    Graph,
    Manifest,
    TaskFacts,
    Tensor,
    read_manifest,
)
from schemas.response import MODALITIES, Modality
from schemas.tim import TIM, Tim
from service.settings import Device

MODEL_CARD = "MODEL_CARD.md"
NOTICE = "NOTICE"
ATTENTION = "attention"
EMBEDDING = "embedding"
UNUSUAL = "unusual"
PRESENT = "present"

YES_NO = ("no", "yes")  # the classes of a binary task

# The names of each modality's arrays, as `schemas.features` makes them.
_INPUTS: dict[Modality, set[str]] = {
    "tabular": {"values"},
    "series": {"statistics", "treatments"},
    "notes": {"tokens"},
    "image": {"pixels"},
}
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_SILENT = 4  # fatal only: its lines about a failed run quote input values
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


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
        manifest, digest = read_manifest(path)
        graphs = (*manifest.encoders.values(), manifest.fusion)
        for file in (graph.file for graph in graphs):
            if file not in manifest.files:
                raise BundleError(f"{path}: the manifest has no digest of {file}")
        found = chosen_device(device)
        if elsewhere is None:
            ready: Callable[[Graph], Runnable] = partial(_session, path, found, threads)
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
        _check_tokenizer(manifest)
        _check_encoders(manifest)
        _check_fusion(manifest)
        for facts in manifest.tasks:
            _check_task(facts, manifest)
            _check_uncertainty(facts)
        _check_phenotypes(manifest)
        if bundle.tim and bundle.tim.tasks != tuple(facts.task.name for facts in manifest.tasks):
            raise BundleError(f"{path / TIM} is of other tasks than the bundle's")
        return bundle

    def graph(self, file: str) -> Runnable:
        """A graph by its file. Raises KeyError."""
        modalities = {graph.file: m for m, graph in self.manifest.encoders.items()}
        return self.fusion if file == self.manifest.fusion.file else self.encoders[modalities[file]]


def _document(path: Path, manifest: Manifest, name: str) -> bytes | None:
    """A file that a bundle need not have; one without a digest is not served."""
    return (path / name).read_bytes() if name in manifest.files else None


def _tim(path: Path, manifest: Manifest) -> Tim | None:
    content = _document(path, manifest, TIM)
    if content is None:
        return None
    try:
        return Tim.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(f"{path / TIM} is no TIM: {error}") from None


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


def _session(path: Path, device: Literal["cpu", "cuda"], threads: int, graph: Graph) -> Session:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads
    # Requests share the processors: a thread that spins for work takes them from another request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [_CPU]
    if device == "cuda":
        # TF32 keeps 10 bits of the fraction: too few for the golden answers.
        providers = [(_CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}), _CPU]
        onnxruntime.preload_dlls()
    content = (path / graph.file).read_bytes()
    try:
        session = onnxruntime.InferenceSession(content, options, providers)
    except Exception as error:  # noqa: BLE001 - its errors have no common base
        first_line = str(error).partition("\n")[0]
        raise BundleError(f"{path / graph.file} does not load: {first_line}") from None
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


def _check_tokenizer(manifest: Manifest) -> None:
    try:
        separator = manifest.spec.tokenizer.token_to_id("[SEP]")
    except Exception:  # noqa: BLE001 - it raises plain Exception
        raise BundleError(f"{TOKENIZER} is no tokenizer") from None
    if separator is None:
        raise BundleError(f"{TOKENIZER} has no [SEP]")


def _check_encoders(manifest: Manifest) -> None:
    widths = {tensor.name: tensor.axes[-1] for tensor in manifest.fusion.inputs}
    for modality, graph in manifest.encoders.items():
        inputs = {tensor.name for tensor in graph.inputs}
        if not inputs <= _INPUTS[modality]:
            unknown = ", ".join(sorted(inputs - _INPUTS[modality]))
            raise BundleError(f"encoder {modality}: no feature is named {unknown}")
        outputs = {tensor.name: (tensor.dtype, len(tensor.axes)) for tensor in graph.outputs}
        if outputs != {EMBEDDING: ("float32", 2), UNUSUAL: ("float32", 1)}:
            raise BundleError(
                f"encoder {modality}: its outputs must be {EMBEDDING} [batch, width] and "
                f"{UNUSUAL} [batch], of float32; a bundle of an older format must be exported again"
            )
        (width,) = (tensor.axes[-1] for tensor in graph.outputs if tensor.name == EMBEDDING)
        if modality in widths and width != widths[modality]:
            raise BundleError(f"encoder {modality}: its width is not that of the fusion's input")


def _check_fusion(manifest: Manifest) -> None:
    inputs = {tensor.name: tensor for tensor in manifest.fusion.inputs}
    if set(inputs) != {*MODALITIES, PRESENT}:
        expected = ", ".join((*MODALITIES, PRESENT))
        raise BundleError(f"fusion: its inputs must be {expected}")
    if any(not isinstance(inputs[modality].axes[-1], int) for modality in MODALITIES):
        raise BundleError("fusion: the width of an embedding must be a number")
    outputs = {tensor.name: tensor for tensor in manifest.fusion.outputs}
    for tensor in manifest.fusion.outputs:
        if tensor.dtype != "float32":
            raise BundleError(f"fusion: output {tensor.name} must be float32")
    tasks = len({facts.task.name for facts in manifest.tasks})
    if tasks != len(manifest.tasks):
        raise BundleError("two tasks have one name")
    if ATTENTION not in outputs or outputs[ATTENTION].axes[1:] != (tasks, tasks):
        raise BundleError(f"fusion: it must have an output {ATTENTION} [batch, {tasks}, {tasks}]")


def _check_task(facts: TaskFacts, manifest: Manifest) -> None:
    name = facts.task.name
    outputs = {tensor.name: tensor.axes for tensor in manifest.fusion.outputs}
    axes = outputs.get(facts.output)
    if axes is None:
        raise BundleError(f"task {name}: the fusion has no output {facts.output}")
    whole_row = facts.task.kind in ("multiclass", "clustering")
    if whole_row != (facts.column is None):
        raise BundleError(f"task {name}: a {facts.task.kind} task reads one column or a whole row")
    width = axes[-1]
    if facts.column is not None and isinstance(width, int) and not 0 <= facts.column < width:
        raise BundleError(f"task {name}: {facts.output} has no column {facts.column}")
    if facts.task.kind == "regression" and (facts.column, axes[1:]) != (0, (3,)):
        raise BundleError(
            f"task {name}: {facts.output} must be [batch, 3], the value and its interval's ends, "
            "and the column 0"
        )
    if facts.task.kind == "multiclass" and width != len(facts.task.classes):
        raise BundleError(f"task {name}: {facts.output} is not as wide as its classes are many")
    missing = set(facts.seen) - set(manifest.encoders)
    if missing:
        raise BundleError(f"task {name}: it sees {', '.join(sorted(missing))}, without an encoder")


def _check_uncertainty(facts: TaskFacts) -> None:
    name, interval, sets = facts.task.name, facts.interval, facts.sets
    if interval is not None and (
        not len(interval.scores) == len(interval.low) == len(interval.high)
        or any(left >= right for left, right in pairwise(interval.scores))
    ):
        raise BundleError(f"task {name}: its interval needs both ends at each of rising scores")
    classes = YES_NO if facts.task.kind == "binary" else facts.task.classes
    if sets is not None and sets.reason is None and set(sets.thresholds) != set(classes):
        raise BundleError(f"task {name}: its sets need a threshold for each of {list(classes)}")


def _check_phenotypes(manifest: Manifest) -> None:
    variables = {variable.name for variable in manifest.spec.variables}
    tasks = {facts.task.name for facts in manifest.tasks}
    for phenotype in manifest.phenotypes:
        unknown = (set(phenotype.distinguished_by) - variables) | (
            set(phenotype.more_often) - tasks
        )
        if unknown:
            names = ", ".join(sorted(unknown))
            raise BundleError(f"phenotype {phenotype.cluster}: nothing is named {names}")
