"""The response models: predictions, explanation, and a receipt of how the input was used."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.tasks import Kind

SCHEMA_VERSION = "1"

Modality = Literal["tabular", "series", "notes", "image"]
MODALITIES: tuple[Modality, ...] = ("tabular", "series", "notes", "image")


class _ResponseModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class UsedVariable(_ResponseModel):
    """The observations of a variable that the model reads, in the canonical unit."""

    variable: str
    unit: str
    observations: int


class _Entry(_ResponseModel):
    """An entry of the receipt. In a list of more than MAX_LISTED entries, equal ones are merged."""

    entries: int | None = Field(
        default=None,
        description="number of merged entries; absent for a single entry",
    )


class _EntryWithPointer(_Entry):
    """`pointers`: the first pointers of a merged entry."""

    pointer: str
    pointers: tuple[str, ...] | None = None


class Converted(_EntryWithPointer):
    """A series or a rate that was converted from another unit."""

    variable: str
    from_unit: str
    to_unit: str


class ReadAs(_EntryWithPointer):
    """An input with another spelling or notation, and how it was interpreted."""

    read_as: str
    detail: str
    observations: int | None = None


MergeReason = Literal["unsorted_times", "duplicate_times", "given_more_than_once", "rates_added"]


class Merged(_Entry):
    """Inputs that were sorted or merged.

    Reasons: unsorted or duplicate times, a variable or a course that was sent more than once, rates
    of parallel courses that were added.
    """

    variable: str
    reason: MergeReason
    pointers: tuple[str, ...]
    observations: int


Reason = Literal[
    "unknown_variable",
    "unknown_unit",
    "unit_required",
    "unknown_treatment",
    "ambiguous_treatment",
    "unknown_category",
    "no_value",
    "implausible_value",
    "before_window",
    "no_text",
    "weight_needed_for_rate",
    "rate_not_read",
    "not_the_latest_image",
    "view_not_read",
    "not_a_chest_xray",
    "not_for_presentation",
    "hidden_modality",
]


class Ignored(_EntryWithPointer):
    """An input that was not used. Implausible values count as missing."""

    reason: Reason
    detail: str
    observations: int | None = None


class ModalityUse(_ResponseModel):
    """Whether a modality was used, and the tasks from which it was hidden.

    A modality is hidden from each task that had no labels for this modality in training.
    """

    status: Literal["used", "absent", "hidden"]
    hidden_from: tuple[str, ...] = ()
    unusual: float | None = Field(
        default=None,
        description="share of the training patients whose input was less unusual, 0 to 1; above "
        "0.99 the receipt has a warning; absent if the modality was not used",
    )


class NotLearned(_ResponseModel):
    """Variables and treatments that the model reads but that change none of its outputs."""

    variables: tuple[str, ...] = ()
    treatments: tuple[str, ...] = ()


class Receipt(_ResponseModel):
    """The inputs that were used, converted, merged and ignored. Pointers are RFC 6901.

    `used`, `treatments`: the variables and treatments that were read.
    """

    modalities: dict[Modality, ModalityUse]
    used: tuple[UsedVariable, ...] = ()
    treatments: tuple[str, ...] = ()
    not_learned: NotLearned | None = Field(
        default=None,
        description="those of `used` and `treatments` that have no influence: the model learned "
        "nothing from them, and no prediction would differ without them. Absent if the request has "
        "no such input, and if this was not measured when the bundle was exported",
    )
    converted: tuple[Converted, ...] = ()
    read_as: tuple[ReadAs, ...] = ()
    merged: tuple[Merged, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    warnings: tuple[str, ...] = ()


AbstentionCode = Literal[
    "not_trained", "outside_trained_population", "no_input", "no_finite_number"
]


class Abstained(_ResponseModel):
    """The task gives no prediction."""

    reason: str
    code: AbstentionCode | None = Field(
        default=None,
        description="`not_trained`: the training data do not suffice for this task. "
        "`outside_trained_population`: the patient is unlike the training patients, for example a "
        "child. `no_input`: the request has no input that this task can use. `no_finite_number`: "
        "the computation failed. Absent in answers of older versions.",
    )


class Interval(_ResponseModel):
    """A closed interval that includes the predicted number."""

    low: float
    high: float


class Prediction(_ResponseModel):
    """The prediction of one task. It has exactly one of the value fields, or `abstained`.

    `based_on`: the modalities that the task used; empty if the task abstains. `prevalence`: among
    the patients of the training or of the recalibration. Fields without a value are absent, never
    null.
    """

    task: str
    display: str
    department: str
    kind: Kind
    means: str
    based_on: tuple[Modality, ...]
    probability: float | None = None
    prevalence: float | None = None
    probabilities: dict[str, float] | None = None
    value: float | None = None
    unit: str | None = None
    interval: Interval | None = Field(
        default=None,
        description="The uncertainty of the number. For a value: a 90 % prediction interval in its "
        "unit, valid for patients like those of the training. For a probability: the Venn-Abers "
        "interval. Its ends are the calibrated probabilities after this patient is added to the "
        "calibration patients without and with the outcome. One of the two ends is calibrated. A "
        "wide interval means that few calibration patients were similar.",
    )
    set: tuple[str, ...] | None = Field(
        default=None,
        description="The outcomes that cannot be excluded (label-conditional conformal prediction)."
        " A binary task has the outcomes `no` and `yes`. For each outcome, including a rare one, "
        "the set of 90 % of the patients with this outcome includes it, valid for patients like "
        "those of the training. A set with both outcomes is inconclusive. An empty set means that "
        "the patient is unlike the patients of either outcome. `yes` alone does not mean that the "
        "outcome is likely (see `probability`): if the outcome is rare, most patients with this "
        "set do not have it. It means that 90 % of the patients without the outcome score lower.",
    )
    no_set: str | None = Field(
        default=None,
        description="The reason why there is no `set`: too few patients had one of the outcomes. A "
        "binary or multiclass task that does not abstain has either `set` or `no_set`. Values and "
        "clusters have neither.",
    )
    cluster: int | None = None
    description: str | None = Field(
        default=None,
        description="The distinguishing features of the cluster: variables that are high or low, "
        "and outcomes that are more or less frequent than among all patients.",
    )
    abstained: Abstained | None = None


class TaskWeight(_ResponseModel):
    """The attention weight of another task."""

    task: str
    weight: float


class TaskAttention(_ResponseModel):
    """The attention of one task: its own weight and the largest weights of other tasks.

    The weights of a task over all tasks sum to 1.
    """

    task: str
    own: float
    drawn_from: tuple[TaskWeight, ...]


class AttentionMatrix(_ResponseModel):
    """The attention of all tasks. Row: the task that attends. Column: the task attended to."""

    tasks: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]


class Contributions(_ResponseModel):
    """The contribution of each modality to a number: exact Shapley values.

    `baseline` is the number without any input. The baseline and the four contributions add up to
    the calibrated number of the prediction, in its unit. The contribution of a modality that is
    absent, or hidden from the task, is exactly 0.
    """

    baseline: float
    tabular: float
    series: float
    notes: float
    image: float


class _EvidenceModel(_ResponseModel):
    """A part of the request and its `contribution` to a number.

    The contribution is the decrease of the number if this part is left out, in the number's unit. A
    negative contribution means that the number would be higher without the part. Contributions do
    not add up: information that two parts share appears in neither contribution.
    """

    name: str
    display: str
    pointers: tuple[str, ...]
    further_pointers: int | None = Field(
        default=None, description="number of pointers that are not listed; absent if all are listed"
    )
    contribution: float


class TabularEvidence(_EvidenceModel):
    """A tabular field."""

    kind: Literal["tabular"]
    value: float | str
    unit: str | None = None


class SeriesEvidence(_EvidenceModel):
    """A measured variable, in its canonical unit.

    `time`: time of the last value. `lowest`, `highest`: within the window that the model reads.
    """

    kind: Literal["series"]
    unit: str
    last: float
    time: str
    lowest: float
    highest: float


class TreatmentEvidence(_EvidenceModel):
    """A treatment."""

    kind: Literal["treatment"]
    running: bool
    since: str
    rate: float | None = None
    unit: str | None = None


class NoteEvidence(_EvidenceModel):
    """A passage of a note: the characters from `start` up to, but not including, `end`.

    If `start` and `end` are absent, it covers several whole notes; `time` is the latest of their
    times.
    """

    kind: Literal["note"]
    time: str
    start: int | None = None
    end: int | None = None


class ImageEvidence(_EvidenceModel):
    """The chest X-ray."""

    kind: Literal["image"]
    time: str


Evidence = Annotated[
    TabularEvidence | SeriesEvidence | TreatmentEvidence | NoteEvidence | ImageEvidence,
    Field(discriminator="kind"),
]


class TaskVariables(_ResponseModel):
    """The parts of the request with the largest contributions to a task, in descending order."""

    task: str
    because: tuple[Evidence, ...]


class Explanation(_ResponseModel):
    """The explanation of the predictions. docs/explanations.md defines each figure.

    It is absent if all tasks abstain. `modalities` and `variables` have no entry for a task that
    abstains.
    """

    attention: tuple[TaskAttention, ...] | AttentionMatrix
    modalities: dict[str, Contributions | dict[str, Contributions]] = Field(
        description="by task; for a multiclass or clustering task, by class"
    )
    variables: tuple[TaskVariables, ...] = Field(
        default=(),
        description="with explain=full: for the three binary tasks that differ most from their "
        "prevalence, or for the task in `task=`",
    )


class ModelReference(_ResponseModel):
    """The model that made the predictions. `digest`: SHA-256 of the bundle's manifest."""

    name: str
    version: str
    digest: str
    recalibrated_by: str | None = Field(
        default=None,
        description="cohort of the hospital whose outcomes recalibrated the model; absent if the "
        "model was not recalibrated",
    )


class Answer(_ResponseModel):
    """The answer for one patient. Predictions are in the order of the bundle's tasks."""

    schema_version: str = SCHEMA_VERSION
    id: str
    model: ModelReference
    predictions: tuple[Prediction, ...]
    explanation: Explanation | None = None
    receipt: Receipt
    timing_ms: dict[str, float] = Field(description="duration of each stage in milliseconds")
