"""Checks that the parts of a manifest agree: spec, graphs and tasks.

Each check raises a BundleError that names the part and the rule.
"""

from itertools import pairwise

from schemas.bundle_files import BundleError
from schemas.features import STATISTICS, TREATMENT_FEATURES
from schemas.manifest import TOKENIZER, Manifest, ServedTask
from schemas.response import MODALITIES, Modality

ATTENTION = "attention"
EMBEDDING = "embedding"
UNUSUAL = "unusual"
PRESENT = "present"
YES_NO = ("no", "yes")  # the classes of a binary task

# The arrays of each modality, as named by `schemas.features`.
_FEATURES: dict[Modality, set[str]] = {
    "tabular": {"values"},
    "series": {"statistics", "treatments"},
    "notes": {"tokens"},
    "image": {"pixels"},
}


def check_consistency(manifest: Manifest) -> None:
    """Raises BundleError if parts of the manifest contradict each other."""
    _check_tokenizer(manifest)
    _check_encoders(manifest)
    _check_features(manifest)
    _check_fusion(manifest)
    for served in manifest.tasks:
        _check_task(served, manifest)
        _check_uncertainty(served)
    _check_phenotypes(manifest)
    _check_not_learned(manifest)


def _check_tokenizer(manifest: Manifest) -> None:
    try:
        separator = manifest.spec.tokenizer.token_to_id("[SEP]")
        manifest.spec.tokenizer.encode("Fever.")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - an Exception, or a Rust panic, which is not one
        raise BundleError(f"{TOKENIZER} is not a tokenizer") from None
    if separator is None:
        raise BundleError(f"{TOKENIZER} has no [SEP]")


def _check_features(manifest: Manifest) -> None:
    """Checks that the encoders accept the feature arrays of the spec, after a batch axis."""
    spec = manifest.spec
    features: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "values": ("float32", (len(spec.tabular_names),)),
        "statistics": ("float32", (len(spec.variables), len(STATISTICS))),
        "treatments": ("float32", (len(spec.treatments), len(TREATMENT_FEATURES))),
        "tokens": ("int64", (None,)),
        "pixels": ("uint8", (1, spec.image_side, spec.image_side)),
    }
    for modality, graph in manifest.encoders.items():
        for tensor in graph.inputs:
            dtype, lengths = features[tensor.name]
            if tensor.dtype != dtype or not _accepts(tensor.axes[1:], lengths):
                shape = ", ".join(str(length or "length") for length in lengths)
                raise BundleError(
                    f"encoder {modality}: {tensor.name} must be {dtype} [batch, {shape}], as in "
                    f"the spec, not {tensor.dtype} {list(tensor.axes)}"
                )


def _accepts(axes: tuple[int | str, ...], lengths: tuple[int | None, ...]) -> bool:
    """Whether a tensor accepts arrays of these lengths; None is any length."""
    return len(axes) == len(lengths) and all(
        isinstance(axis, str) or length == axis for axis, length in zip(axes, lengths, strict=True)
    )


def _check_encoders(manifest: Manifest) -> None:
    dims = {tensor.name: tensor.axes[-1] for tensor in manifest.fusion.inputs}
    for modality, graph in manifest.encoders.items():
        inputs = {tensor.name for tensor in graph.inputs}
        if not inputs <= _FEATURES[modality]:
            unknown = ", ".join(sorted(inputs - _FEATURES[modality]))
            raise BundleError(f"encoder {modality}: no feature is named {unknown}")
        outputs = {tensor.name: (tensor.dtype, len(tensor.axes)) for tensor in graph.outputs}
        if outputs != {EMBEDDING: ("float32", 2), UNUSUAL: ("float32", 1)}:
            raise BundleError(
                f"encoder {modality}: its outputs must be {EMBEDDING} [batch, width] and "
                f"{UNUSUAL} [batch], of float32; a bundle of an older format must be exported again"
            )
        (dim,) = (tensor.axes[-1] for tensor in graph.outputs if tensor.name == EMBEDDING)
        if modality in dims and dim != dims[modality]:
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
    tasks = len({served.task.name for served in manifest.tasks})
    if tasks != len(manifest.tasks):
        raise BundleError("two tasks have the same name")
    if ATTENTION not in outputs or outputs[ATTENTION].axes[1:] != (tasks, tasks):
        raise BundleError(f"fusion: it must have an output {ATTENTION} [batch, {tasks}, {tasks}]")


def _check_task(served: ServedTask, manifest: Manifest) -> None:
    name = served.task.name
    outputs = {tensor.name: tensor.axes for tensor in manifest.fusion.outputs}
    axes = outputs.get(served.output)
    if axes is None:
        raise BundleError(f"task {name}: the fusion has no output {served.output}")
    whole_row = served.task.kind in ("multiclass", "clustering")
    if whole_row != (served.column is None):
        raise BundleError(f"task {name}: a {served.task.kind} task reads one column or a whole row")
    width = axes[-1]
    if served.column is not None and isinstance(width, int) and not 0 <= served.column < width:
        raise BundleError(f"task {name}: {served.output} has no column {served.column}")
    if served.task.kind == "regression" and (served.column, axes[1:]) != (0, (3,)):
        raise BundleError(
            f"task {name}: {served.output} must be [batch, 3], the value and its interval's ends, "
            "and the column 0"
        )
    if served.task.kind == "multiclass" and width != len(served.task.classes):
        raise BundleError(f"task {name}: {served.output} must have one column for each class")
    missing = set(served.visible_modalities) - set(manifest.encoders)
    if missing:
        names = ", ".join(sorted(missing))
        raise BundleError(f"task {name}: no encoder for its visible {names}")


def _check_uncertainty(served: ServedTask) -> None:
    name, interval, sets = served.task.name, served.interval, served.sets
    if interval is not None and (
        not len(interval.scores) == len(interval.low) == len(interval.high)
        or any(left >= right for left, right in pairwise(interval.scores))
    ):
        raise BundleError(
            f"task {name}: its interval needs ascending scores, each with a low and a high end"
        )
    classes = YES_NO if served.task.kind == "binary" else served.task.classes
    if sets is not None and sets.reason is None and set(sets.thresholds) != set(classes):
        raise BundleError(f"task {name}: its sets need a threshold for each of {list(classes)}")


def _check_phenotypes(manifest: Manifest) -> None:
    variables = {variable.name for variable in manifest.spec.variables}
    tasks = {served.task.name for served in manifest.tasks}
    for phenotype in manifest.phenotypes:
        unknown = (set(phenotype.distinguished_by) - variables) | (
            set(phenotype.more_often) - tasks
        )
        if unknown:
            names = ", ".join(sorted(unknown))
            raise BundleError(
                f"phenotype {phenotype.cluster}: no variable or task is named {names}"
            )


def _check_not_learned(manifest: Manifest) -> None:
    if manifest.not_learned is None:
        return
    unknown = (set(manifest.not_learned.variables) - {v.name for v in manifest.spec.variables}) | (
        set(manifest.not_learned.treatments) - {t.name for t in manifest.spec.treatments}
    )
    if unknown:
        names = ", ".join(sorted(unknown))
        raise BundleError(f"not_learned: no variable or treatment is named {names}")
