"""What a bundle says of itself: its tasks, its inputs, its graphs, its origin, its digests."""

import hashlib
from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json

from schemas.features import FeatureSpec
from schemas.response import Modality
from schemas.tasks import Task

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
GOLDEN = "golden.jsonl"

_LINE = 500  # characters of a fault


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tensor(_Fact):
    """An input or output of a graph. Axes are numbers, or names where the length varies."""

    name: str
    dtype: Literal["float32", "int64", "uint8", "bool"]
    axes: tuple[int | str, ...]


class Graph(_Fact):
    """One ONNX graph: an encoder of a modality, or the fusion of all."""

    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Steps(_Fact):
    """The Venn-Abers interval as a function of the probability, at `scores` from low to high.

    Between two scores the lower end is that of the left one, the upper end that of the right one.
    """

    scores: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def at(self, probability: float) -> tuple[float, float]:
        """The interval around a probability; the probability itself is always inside."""
        left = bisect_right(self.scores, probability) - 1
        right = bisect_left(self.scores, probability)
        low = self.low[left] if left >= 0 else 0.0
        high = self.high[right] if right < len(self.high) else 1.0
        return min(low, probability), max(high, probability)


class Sets(_Fact):
    """By class the smallest probability that puts it into a set; or why there are no sets."""

    thresholds: dict[str, float] = {}
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
    column: int | None = None
    seen: tuple[Modality, ...]
    labels: dict[Modality, int]
    positives: int | None = None
    prevalence: float | None = None
    abstains: str | None = None
    interval: Steps | None = None
    sets: Sets | None = None


class Cohort(_Fact):
    """The patients that a model was trained on; digests prove which code and data made it.

    `with_notes_and_image`: patients who have both at once.
    """

    name: str
    patients: int
    samples: int
    landmarks_hours: tuple[float, ...]
    log_odds_offset: dict[str, float] = {}
    with_notes_and_image: int = 0
    source: str
    digest: str


class Phenotype(_Fact):
    """A cluster in words: its share of patients, and what sets it apart.

    `distinguished_by`: variables, in patients' spreads from the median; `more_often`: tasks, as the
    ratio of their rate here to that of all patients.
    """

    cluster: int
    share: float
    distinguished_by: dict[str, float]
    more_often: dict[str, float] = {}


class Recalibration(_Fact):
    """By whose patients a bundle was corrected, and by how much.

    `bundle`: the digest of the one before. `shift`: of each binary task, in log-odds; `classes`: of
    each class of a choice of classes, in log-odds against the others; `ends`: of the interval of a
    regression, outwards, in log-days.
    """

    cohort: str
    patients: int
    source: str
    digest: str
    bundle: str
    shift: dict[str, float]
    classes: dict[str, dict[str, float]] = {}
    ends: dict[str, tuple[float, float]] = {}


class HeldOut(_Fact):
    """Patients that a model never learned from, by whom something was measured."""

    cohort: str
    patients: int
    samples: int
    source: str
    digest: str


class ReducedGraph(_Fact):
    """What became of a graph; with a `reason` it stayed as it was.

    `time`: by the number of requests at once, what share of the time before it takes; none if it
    was not measured on the device that the precision is for.
    """

    precision: Literal["fp32", "fp16", "int8"]
    reason: str | None = None
    time: dict[int, float] = {}


class Change(_Fact):
    """A task's metric by patients held out, with the graphs before and with those of a bundle.

    `agreement`: the share of samples that stay in their phenotype. `judged`: there were enough
    samples to tell a loss from chance.
    """

    metric: Literal["auroc", "mae_days", "agreement"]
    before: float
    after: float
    samples: int
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
    limits: dict[str, float]
    largest_difference: float


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
    tasks: tuple[TaskFacts, ...]
    spec: FeatureSpec
    encoders: dict[Modality, Graph]
    fusion: Graph
    trained_hours: tuple[float, float]
    cohorts: tuple[Cohort, ...]
    recalibration: Recalibration | None = None
    reduction: Reduction | None = None
    phenotypes: tuple[Phenotype, ...] = ()
    evaluation: dict[str, Any] = {}
    golden_tolerance: float
    golden_tolerances: dict[Literal["cpu", "cuda"], float] = {}
    files: dict[str, str]

    def on(self, device: Literal["cpu", "cuda"]) -> Self:
        """As it holds on a device: its golden tolerance is that device's."""
        tolerance = self.golden_tolerances.get(device, self.golden_tolerance)
        return self.model_copy(update={"golden_tolerance": tolerance})


class BundleError(ValueError):
    """A bundle that cannot be trusted: what is wrong with it, and where."""


def read_manifest(bundle: Path) -> tuple[Manifest, str]:
    """The manifest of a bundle and the bundle's digest, after every file has been verified.

    Raises BundleError if a file is missing or was changed, or the manifest is not understood.
    """
    path = bundle / MANIFEST
    if not path.is_file():
        raise BundleError(f"{bundle} is no bundle: it has no {MANIFEST}")
    raw = path.read_bytes()
    fields = _json_object(raw, path)
    files = fields.get("files")
    if not isinstance(files, dict) or TOKENIZER not in files:
        raise BundleError(f"{path}: 'files' must list the digest of each file")
    _verify(bundle, files)
    tokenizer = (bundle / TOKENIZER).read_text(encoding="utf-8")
    spec = fields.get("spec")
    if not isinstance(spec, dict):
        raise BundleError(f"{path}: 'spec' must be an object")
    fields["spec"] = {**spec, "tokenizer_json": tokenizer}
    try:
        manifest = Manifest.model_validate(fields)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from None
    return manifest, sha256(raw)


def write_manifest(bundle: Path, manifest: Manifest) -> str:
    """Writes the manifest; returns the bundle's digest."""
    raw = manifest.model_dump_json(indent=1).encode()
    (bundle / MANIFEST).write_bytes(raw)
    return sha256(raw)


def one_line(text: str) -> str:
    """A text as one line of at most 500 characters, for a log or an answer."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _LINE else f"{line[: _LINE - 1]}…"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json_object(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        fields = from_json(raw)
    except ValueError:
        raise BundleError(f"{path} is not JSON") from None
    if not isinstance(fields, dict):
        raise BundleError(f"{path} is not a JSON object")
    return fields


def _verify(bundle: Path, files: dict[str, str]) -> None:
    for name, expected in files.items():
        path = bundle / name
        if not path.resolve().is_relative_to(bundle.resolve()):
            raise BundleError(f"{name!r} lies outside the bundle")
        if not path.is_file():
            raise BundleError(f"{path} is missing")
        if sha256(path.read_bytes()) != expected:
            raise BundleError(f"{path} was changed: its SHA-256 is not the manifest's")
