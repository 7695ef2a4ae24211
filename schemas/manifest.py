"""The manifest of a bundle: tasks, input spec, graphs, provenance and file digests."""

from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

from schemas.bundle_files import (
    MANIFEST_BYTES,
    MAX_FILES,
    TOKENIZER_BYTES,
    BundleError,
    read_file,
    read_verified,
    sha256,
    single_line,
    verify_file,
)
from schemas.evaluation import EvaluationFigures
from schemas.features import FeatureSpec
from schemas.response import Modality, NotLearned
from schemas.tasks import Task

__all__ = ["BundleError", "sha256"]  # re-exported for callers of read_manifest

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
GOLDEN = "golden.jsonl"

Count = Annotated[int, Field(ge=0, le=10**12)]
Share = Annotated[float, Field(ge=0, le=1)]
Hours = Annotated[float, Field(ge=0, le=10**6)]
Years = Annotated[float, Field(ge=0, le=200)]
Number = Annotated[
    float, Field(ge=-(10**9), le=10**9)
]  # log-odds, log-days, standard deviations, metrics
Tolerance = Annotated[float, Field(ge=0, le=0.1)]
Axis = Annotated[int, Field(ge=1, le=10**8)] | Annotated[str, Field(min_length=1, max_length=200)]


class _ManifestModel(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class Tensor(_ManifestModel):
    """An input or output of a graph. An axis is a fixed length, or a name if its length varies."""

    name: str
    dtype: Literal["float32", "int64", "uint8", "bool"]
    axes: tuple[Axis, ...] = Field(max_length=8)


class Graph(_ManifestModel):
    """An ONNX graph: the encoder of one modality, or the fusion of all modalities."""

    file: str
    inputs: tuple[Tensor, ...] = Field(min_length=1, max_length=1000)
    outputs: tuple[Tensor, ...] = Field(min_length=1, max_length=1000)

    @field_validator("inputs", "outputs")
    @classmethod
    def _names_differ(cls, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if len({tensor.name for tensor in tensors}) < len(tensors):
            raise ValueError("tensor names must be unique")
        return tensors


class VennAbersCurve(_ManifestModel):
    """The Venn-Abers interval as a step function of the probability.

    `low` and `high` hold the ends of the interval at each of `scores`, which ascend. Between two
    scores, the low end is taken from the left score and the high end from the right score.
    """

    scores: tuple[Share, ...]
    low: tuple[Share, ...]
    high: tuple[Share, ...]

    def interval_at(self, probability: float) -> tuple[float, float]:
        """Returns the interval at a probability. It always includes the probability."""
        left = bisect_right(self.scores, probability) - 1
        right = bisect_left(self.scores, probability)
        low = self.low[left] if left >= 0 else 0.0
        high = self.high[right] if right < len(self.high) else 1.0
        return min(low, probability), max(high, probability)


class ConformalSets(_ManifestModel):
    """Thresholds of label-conditional conformal sets, or the reason why the task has no sets.

    A class belongs to the set if its probability is at least its threshold.
    """

    thresholds: dict[str, Share] = {}
    reason: str | None = None


class ServedTask(_ManifestModel):
    """A task as this bundle serves it.

    `output`: name of a tensor of the fusion graph. `column`: index of the task in that tensor; None
    means the whole row. A regression's row holds the value and the two ends of its interval.
    `visible_modalities` (JSON: `seen`): modalities for which the task had labels in training. The
    others are hidden from the task.
    `labels`: number of labelled patients by modality. `positives`: labelled patients with the
    disease. `abstains`: the reason why the task gives no prediction.
    `interval`, `sets`: calibrated on held-out patients. The classes of a binary task are "no" and
    "yes".
    """

    task: Task
    output: str
    column: Count | None = None
    visible_modalities: tuple[Modality, ...] = Field(alias="seen")
    labels: dict[Modality, Count]
    positives: Count | None = None
    prevalence: Share | None = None
    abstains: str | None = None
    interval: VennAbersCurve | None = None
    sets: ConformalSets | None = None


class Cohort(_ManifestModel):
    """A cohort that the model was trained on.

    `source` and `digest`: SHA-256 of the code and of the data that the cohort was made from.
    `with_notes_and_image`: number of patients with both notes and an image.
    """

    name: str
    patients: Count
    samples: Count
    landmarks_hours: tuple[Hours, ...]
    log_odds_offset: dict[str, Number] = {}
    with_notes_and_image: Count = 0
    source: str
    digest: str


class Phenotype(_ManifestModel):
    """A description of a cluster: its share of patients and its distinguishing features.

    `distinguished_by`: by variable, the distance from the median of all patients, in units of their
    spread. `more_often`: by task, its rate in the cluster divided by its rate in all patients.
    """

    cluster: Count
    share: Share
    distinguished_by: dict[str, Number]
    more_often: dict[str, Number] = {}


class Recalibration(_ManifestModel):
    """A correction of a bundle with the outcomes of a hospital's own patients.

    `bundle`: digest of the bundle before the correction. `shift`: log-odds added to each binary
    task. `classes`: log-odds added to each class of a multiclass task. `ends`: by regression task,
    how far the two ends of its interval moved outwards, in log-days.
    """

    cohort: str
    patients: Count
    source: str
    digest: str
    bundle: str
    shift: dict[str, Number]
    classes: dict[str, dict[str, Number]] = {}
    ends: dict[str, tuple[Number, Number]] = {}


class HeldOutPatients(_ManifestModel):
    """Held-out patients on whom a change of the bundle was measured."""

    cohort: str
    patients: Count
    samples: Count
    source: str
    digest: str


class QuantizedGraph(_ManifestModel):
    """The precision of a graph after quantization.

    `reason`: why the graph was left unchanged. `time`: by batch size, the run time divided by that
    of the original graph. Empty if it was not measured on the target device.
    """

    precision: Literal["fp32", "fp16", "int8"]
    reason: str | None = None
    time: dict[Count, Annotated[float, Field(ge=0)]] = {}


class MetricChange(_ManifestModel):
    """A task's metric on held-out patients, before and after quantization.

    `agreement`: the share of samples that keep their phenotype. `judged`: whether the samples
    suffice to distinguish a loss from chance.
    """

    metric: Literal["auroc", "mae_days", "agreement"]
    before: Number
    after: Number
    samples: Count
    judged: bool

    @property
    def loss(self) -> float:
        """The loss of accuracy. A negative value is a gain."""
        worse = self.before - self.after
        return -worse if self.metric == "mae_days" else worse


class Quantization(_ManifestModel):
    """The quantization of a bundle's graphs and its effect on accuracy.

    `bundle`: digest of the bundle before quantization. `graphs`: by modality, and `fusion`.
    `limits`: by metric, the maximum loss that was allowed for a task. `largest_difference`: the
    largest change of any probability.
    """

    precision: Literal["fp16", "int8"]
    bundle: str
    held_out: tuple[HeldOutPatients, ...]
    graphs: dict[str, QuantizedGraph]
    tasks: dict[str, MetricChange]
    limits: dict[str, Number]
    largest_difference: Number


class Manifest(_ManifestModel):
    """`manifest.json`. Its SHA-256 is the digest of the bundle.

    `files`: SHA-256 of every other file. `network`: facts about the architecture. `trained_hours`:
    range of the hours since admission in training. `trained_age`: range of ages in training, in
    years. `not_learned`: variables and treatments without influence on any output; None if this was
    not measured. `evaluation`: figures of the evaluation report, the source of the model card.
    `golden_tolerance`: maximum difference between an answer and its golden answer.
    `golden_tolerances`: the same by device, where it was measured on that device.
    """

    schema_version: Literal["1"] = "1"
    name: str
    version: str
    created: str
    command: str
    network: dict[str, Any] = {}
    tasks: tuple[ServedTask, ...] = Field(min_length=1, max_length=1000)
    spec: FeatureSpec
    encoders: dict[Modality, Graph]
    fusion: Graph
    trained_hours: tuple[Hours, Hours]
    # The cohorts of this project hold adults only.
    trained_age: tuple[Years, Years] = (18.0, 120.0)
    not_learned: NotLearned | None = None
    cohorts: tuple[Cohort, ...]
    recalibration: Recalibration | None = None
    reduction: Quantization | None = None
    phenotypes: tuple[Phenotype, ...] = ()
    evaluation: EvaluationFigures = {}
    golden_tolerance: Tolerance
    golden_tolerances: dict[Literal["cpu", "cuda"], Tolerance] = {}
    files: dict[str, str]

    @field_validator("trained_hours")
    @classmethod
    def _check_order(cls, hours: tuple[float, float]) -> tuple[float, float]:
        if hours[0] > hours[1]:
            raise ValueError("the first hour must not be after the last")
        return hours

    def for_device(self, device: Literal["cpu", "cuda"]) -> Self:
        """Returns a copy with the golden tolerance of the device."""
        tolerance = self.golden_tolerances.get(device, self.golden_tolerance)
        return self.model_copy(update={"golden_tolerance": tolerance})


def read_manifest(bundle: Path) -> tuple[Manifest, str]:
    """Verifies every file of a bundle. Returns the manifest and the digest of the bundle.

    Raises BundleError: a file is missing or was changed, or the manifest is invalid.
    """
    path = bundle / MANIFEST
    try:
        raw = read_file(path, MANIFEST_BYTES)
    except BundleError as error:
        raise BundleError(f"{bundle} is not a bundle: {error}") from None
    fields = _json_object(raw, path)
    files = fields.get("files")
    if not isinstance(files, dict) or TOKENIZER not in files:
        raise BundleError(f"{path}: 'files' must list the digest of each file")
    if len(files) > MAX_FILES:
        raise BundleError(f"{path}: 'files' must list at most {MAX_FILES} files")
    for name, digest in files.items():
        verify_file(bundle, name, digest)
    tokenizer = read_verified(bundle, TOKENIZER, files, TOKENIZER_BYTES)
    spec = fields.get("spec")
    if not isinstance(spec, dict):
        raise BundleError(f"{path}: 'spec' must be an object")
    try:
        fields["spec"] = {**spec, "tokenizer_json": tokenizer.decode("utf-8")}
        manifest = Manifest.model_validate(fields)
    except UnicodeDecodeError:
        raise BundleError(f"{bundle / TOKENIZER} is not UTF-8") from None
    except ValidationError as error:
        raise BundleError(f"{path}: {describe_errors(error)}") from None
    return manifest, sha256(raw)


def write_manifest(bundle: Path, manifest: Manifest) -> str:
    """Writes the manifest and returns the digest of the bundle."""
    raw = manifest.model_dump_json(indent=1).encode()
    (bundle / MANIFEST).write_bytes(raw)
    return sha256(raw)


def describe_errors(error: ValidationError) -> str:
    """Describes the first three errors by location, without input values."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in errors[:3]]
    more = len(errors) - len(lines)
    return single_line("; ".join(lines) + (f"; and {more} more" if more else ""))


def _json_object(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        fields = from_json(raw, allow_inf_nan=False)
    except ValueError:
        raise BundleError(f"{path} is not JSON") from None
    if not isinstance(fields, dict):
        raise BundleError(f"{path} is not a JSON object")
    return fields
