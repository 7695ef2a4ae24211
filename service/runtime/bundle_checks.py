"""Whether a manifest's parts agree with each other: its spec, its graphs, its tasks.

Whatever does not is a BundleError that names it.
"""

from itertools import pairwise

from schemas.bundle_files import BundleError
from schemas.features import STATISTICS, TREATMENT_FEATURES
from schemas.manifest import TOKENIZER, Manifest, TaskFacts
from schemas.response import MODALITIES, Modality

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


def check(manifest: Manifest) -> None:
    """Raises BundleError."""
    _check_tokenizer(manifest)
    _check_encoders(manifest)
    _check_features(manifest)
    _check_fusion(manifest)
    for facts in manifest.tasks:
        _check_task(facts, manifest)
        _check_uncertainty(facts)
    _check_phenotypes(manifest)


def _check_tokenizer(manifest: Manifest) -> None:
    try:
        separator = manifest.spec.tokenizer.token_to_id("[SEP]")
        manifest.spec.tokenizer.encode("Fever.")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - plain Exception, or a panic, which is none
        raise BundleError(f"{TOKENIZER} is no tokenizer") from None
    if separator is None:
        raise BundleError(f"{TOKENIZER} has no [SEP]")


def _check_features(manifest: Manifest) -> None:
    """The encoders take the arrays that the spec makes, behind an axis for the batch."""
    spec = manifest.spec
    made: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "values": ("float32", (len(spec.tabular_names),)),
        "statistics": ("float32", (len(spec.variables), len(STATISTICS))),
        "treatments": ("float32", (len(spec.treatments), len(TREATMENT_FEATURES))),
        "tokens": ("int64", (None,)),
        "pixels": ("uint8", (1, spec.image_side, spec.image_side)),
    }
    for modality, graph in manifest.encoders.items():
        for tensor in graph.inputs:
            dtype, lengths = made[tensor.name]
            if tensor.dtype != dtype or not _takes(tensor.axes[1:], lengths):
                shape = ", ".join(str(length or "length") for length in lengths)
                raise BundleError(
                    f"encoder {modality}: {tensor.name} must be {dtype} [batch, {shape}], as the "
                    f"spec makes it, not {tensor.dtype} {list(tensor.axes)}"
                )


def _takes(axes: tuple[int | str, ...], lengths: tuple[int | None, ...]) -> bool:
    """Whether a tensor takes arrays of these lengths; None is any."""
    return len(axes) == len(lengths) and all(
        isinstance(axis, str) or length == axis for axis, length in zip(axes, lengths, strict=True)
    )


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
