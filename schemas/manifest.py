"""What a bundle says of itself: its tasks, its inputs, its graphs, its origin, its digests."""

from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import from_json

from schemas.bundle_files import (
    MANIFEST_BYTES,
    MOST_FILES,
    TOKENIZER_BYTES,
    BundleError,
    one_line,
    read_file,
    read_verified,
    sha256,
    verify,
)
from schemas.evaluation import EvaluationFigures
from schemas.features import FeatureSpec
from schemas.response import Modality
from schemas.tasks import Task

__all__ = ["BundleError", "sha256"]  # from below, for those who read a manifest

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
GOLDEN = "golden.jsonl"

Count = Annotated[int, Field(ge=0, le=10**12)]
Share = Annotated[float, Field(ge=0, le=1)]
Hours = Annotated[float, Field(ge=0, le=10**6)]
Years = Annotated[float, Field(ge=0, le=200)]
Number = Annotated[float, Field(ge=-(10**9), le=10**9)]  # log-odds, log-days, spreads, metrics
Tolerance = Annotated[float, Field(ge=0, le=0.1)]
Axis = Annotated[int, Field(ge=1, le=10**8)] | Annotated[str, Field(min_length=1, max_length=200)]


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Tensor(_Fact):
    """An input or output of a graph. Axes are numbers, or names where the length varies."""

    name: str
    dtype: Literal["float32", "int64", "uint8", "bool"]
    axes: tuple[Axis, ...] = Field(max_length=8)


class Graph(_Fact):
    """One ONNX graph: an encoder of a modality, or the fusion of all."""

    file: str
    inputs: tuple[Tensor, ...] = Field(min_length=1, max_length=1000)
    outputs: tuple[Tensor, ...] = Field(min_length=1, max_length=1000)

    @field_validator("inputs", "outputs")
    @classmethod
    def _names_differ(cls, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if len({tensor.name for tensor in tensors}) < len(tensors):
            raise ValueError("two have one name")
        return tensors


class Steps(_Fact):
    """The Venn-Abers interval as a function of the probability, at `scores` from low to high.

    Between two scores the lower end is that of the left one, the upper end that of the right one.
    """

    scores: tuple[Share, ...]
    low: tuple[Share, ...]
    high: tuple[Share, ...]

    def at(self, probability: float) -> tuple[float, float]:
        """The interval around a probability; the probability itself is always inside."""
        left = bisect_right(self.scores, probability) - 1
        right = bisect_left(self.scores, probability)
        low = self.low[left] if left >= 0 else 0.0
        high = self.high[right] if right < len(self.high) else 1.0
        return min(low, probability), max(high, probability)


class Sets(_Fact):
    """By class the smallest probability that puts it into a set; or why there are no sets."""

    thresholds: dict[str, Share] = {}
    reason: str | None = None


class TaskFacts(_Fact):
    """A task as this bundle serves it.

    `output` names a tensor of the fusion graph and `column` the task's place in it (None: the
    whole row). `seen` are the modalities that the task had labels for; others are hidden from it.
    `labels` counts the labelled patients of each modality; `positives` those with the disease.
    `interval` and `sets` were made from patients that the model did not learn from; the classes of
    a binary task are "no" and "yes". A regression's output has the value and its interval's ends.
    """

    task: Task
    output: str
    column: Count | None = None
    seen: tuple[Modality, ...]
    labels: dict[Modality, Count]
    positives: Count | None = None
    prevalence: Share | None = None
    abstains: str | None = None
    interval: Steps | None = None
    sets: Sets | None = None


class Cohort(_Fact):
    """The patients that a model was trained on; digests prove which code and data made it.

    `with_notes_and_image`: patients who have both at once.
    """

    name: str
    patients: Count
    samples: Count
    landmarks_hours: tuple[Hours, ...]
    log_odds_offset: dict[str, Number] = {}
    with_notes_and_image: Count = 0
    source: str
    digest: str


class Phenotype(_Fact):
    """A cluster in words: its share of patients, and what sets it apart.

    `distinguished_by`: variables, in patients' spreads from the median; `more_often`: tasks, as the
    ratio of their rate here to that of all patients.
    """

    cluster: Count
    share: Share
    distinguished_by: dict[str, Number]
    more_often: dict[str, Number] = {}


class Recalibration(_Fact):
    """By whose patients a bundle was corrected, and by how much.

    `bundle`: the digest of the one before. `shift`: of each binary task, in log-odds; `classes`: of
    each class of a choice of classes, in log-odds against the others; `ends`: of the interval of a
    regression, outwards, in log-days.
    """

    cohort: str
    patients: Count
    source: str
    digest: str
    bundle: str
    shift: dict[str, Number]
    classes: dict[str, dict[str, Number]] = {}
    ends: dict[str, tuple[Number, Number]] = {}


class HeldOut(_Fact):
    """Patients that a model never learned from, by whom something was measured."""

    cohort: str
    patients: Count
    samples: Count
    source: str
    digest: str


class ReducedGraph(_Fact):
    """What became of a graph; with a `reason` it stayed as it was.

    `time`: by the number of requests at once, what share of the time before it takes; none if it
    was not measured on the device that the precision is for.
    """

    precision: Literal["fp32", "fp16", "int8"]
    reason: str | None = None
    time: dict[Count, Annotated[float, Field(ge=0)]] = {}


class Change(_Fact):
    """A task's metric by patients held out, with the graphs before and with those of a bundle.

    `agreement`: the share of samples that stay in their phenotype. `judged`: there were enough
    samples to tell a loss from chance.
    """

    metric: Literal["auroc", "mae_days", "agreement"]
    before: Number
    after: Number
    samples: Count
    judged: bool

    @property
    def loss(self) -> float:
        """How much worse it is now; below 0 it is better."""
        worse = self.before - self.after
        return -worse if self.metric == "mae_days" else worse


class Reduction(_Fact):
    """How a bundle's graphs were reduced in precision, and what that changed.

    `bundle`: the digest of the one before. `graphs`: by modality, and `fusion`. `limits`: by metric
    the most that a task was allowed to lose. `largest_difference`: of any probability.
    """

    precision: Literal["fp16", "int8"]
    bundle: str
    held_out: tuple[HeldOut, ...]
    graphs: dict[str, ReducedGraph]
    tasks: dict[str, Change]
    limits: dict[str, Number]
    largest_difference: Number


class Manifest(_Fact):
    """`manifest.json`. Its own SHA-256 is the bundle's digest; `files` has those of all others.

    `network`: what it is made of. `evaluation`: the report's figures, of which the model card is.
    `golden_tolerance`: how far an answer may be off the golden one; `golden_tolerances`: by device,
    where it was measured there.
    """

    schema_version: Literal["1"] = "1"
    name: str
    version: str
    created: str
    command: str
    network: dict[str, Any] = {}
    tasks: tuple[TaskFacts, ...] = Field(min_length=1, max_length=1000)
    spec: FeatureSpec
    encoders: dict[Modality, Graph]
    fusion: Graph
    trained_hours: tuple[Hours, Hours]
    # In years. The cohorts of this project are of adults.
    trained_age: tuple[Years, Years] = (18.0, 120.0)
    cohorts: tuple[Cohort, ...]
    recalibration: Recalibration | None = None
    reduction: Reduction | None = None
    phenotypes: tuple[Phenotype, ...] = ()
    evaluation: EvaluationFigures = {}
    golden_tolerance: Tolerance
    golden_tolerances: dict[Literal["cpu", "cuda"], Tolerance] = {}
    files: dict[str, str]

    @field_validator("trained_hours")
    @classmethod
    def _from_to(cls, hours: tuple[float, float]) -> tuple[float, float]:
        if hours[0] > hours[1]:
            raise ValueError("the first hour must not be after the last")
        return hours

    def on(self, device: Literal["cpu", "cuda"]) -> Self:
        """As it holds on a device: its golden tolerance is that device's."""
        tolerance = self.golden_tolerances.get(device, self.golden_tolerance)
        return self.model_copy(update={"golden_tolerance": tolerance})


def read_manifest(bundle: Path) -> tuple[Manifest, str]:
    """The manifest of a bundle and the bundle's digest, after every file has been verified.

    Raises BundleError if a file is missing or was changed, or the manifest is not understood.
    """
    path = bundle / MANIFEST
    try:
        raw = read_file(path, MANIFEST_BYTES)
    except BundleError as error:
        raise BundleError(f"{bundle} is no bundle: {error}") from None
    fields = _json_object(raw, path)
    files = fields.get("files")
    if not isinstance(files, dict) or TOKENIZER not in files:
        raise BundleError(f"{path}: 'files' must list the digest of each file")
    if len(files) > MOST_FILES:
        raise BundleError(f"{path}: 'files' must list at most {MOST_FILES} files")
    for name, digest in files.items():
        verify(bundle, name, digest)
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
        raise BundleError(f"{path}: {faults_of(error)}") from None
    return manifest, sha256(raw)


def write_manifest(bundle: Path, manifest: Manifest) -> str:
    """Writes the manifest; returns the bundle's digest."""
    raw = manifest.model_dump_json(indent=1).encode()
    (bundle / MANIFEST).write_bytes(raw)
    return sha256(raw)


def faults_of(error: ValidationError) -> str:
    """What is wrong, by place, without a value: the first three."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    said = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in errors[:3]]
    more = len(errors) - len(said)
    return one_line("; ".join(said) + (f"; and {more} more" if more else ""))


def _json_object(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        fields = from_json(raw, allow_inf_nan=False)
    except ValueError:
        raise BundleError(f"{path} is not JSON") from None
    if not isinstance(fields, dict):
        raise BundleError(f"{path} is not a JSON object")
    return fields
