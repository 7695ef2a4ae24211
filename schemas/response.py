"""The answer: predictions, explanation, and the receipt of what was done with the input."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.tasks import Kind

SCHEMA_VERSION = "1"

Modality = Literal["tabular", "series", "notes", "image"]
MODALITIES: tuple[Modality, ...] = ("tabular", "series", "notes", "image")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Used(_Answer):
    """Observations of one variable that the model has read, in its canonical unit."""

    variable: str
    unit: str
    observations: int


class _Entry(_Answer):
    """An entry of the receipt. Of more than LISTED entries, those that say the same are one."""

    entries: int | None = Field(
        default=None, description="how many entries this one stands for, if it is more than one"
    )


class _AtPointer(_Entry):
    """`pointers`: the first places of an entry that stands for several."""

    pointer: str
    pointers: tuple[str, ...] | None = None


class Converted(_AtPointer):
    """A series or a rate that came in another unit."""

    variable: str
    from_unit: str
    to_unit: str


class ReadAs(_AtPointer):
    """Something that was not sent as this interface writes it, and what it was read as."""

    read_as: str
    detail: str
    observations: int | None = None


class Merged(_Entry):
    """What was put in order or together: unsorted or duplicate times, one variable given twice,
    one course of a treatment sent twice, or the rates of courses that run together.
    """

    variable: str
    reason: Literal["unsorted_times", "duplicate_times", "given_more_than_once", "rates_added"]
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
    "hidden_modality",
]


class Ignored(_AtPointer):
    """Something that was understood and yet not used; implausible values count as missing."""

    reason: Reason
    detail: str
    observations: int | None = None


class ModalityUse(_Answer):
    """Whether a modality was there, and the tasks that it is hidden from.

    A modality is hidden from the tasks that it never had labels for in training.
    """

    status: Literal["used", "absent", "hidden"]
    hidden_from: tuple[str, ...] = ()
    unusual: float | None = Field(
        default=None,
        description="of a modality that was used: the share of the training patients whose input "
        "was more ordinary, 0 to 1; above 0.99 the receipt warns",
    )


class Receipt(_Answer):
    """What was used, converted, merged and ignored, and why. Pointers are RFC 6901."""

    modalities: dict[Modality, ModalityUse]
    used: tuple[Used, ...] = ()
    treatments: tuple[str, ...] = ()
    converted: tuple[Converted, ...] = ()
    read_as: tuple[ReadAs, ...] = ()
    merged: tuple[Merged, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    warnings: tuple[str, ...] = ()


class Abstained(_Answer):
    reason: str


class Interval(_Answer):
    """Both ends belong to it, and so does the number that it is given with."""

    low: float
    high: float


class Prediction(_Answer):
    """One task's answer. Exactly one of the value fields is there, or `abstained`.

    `based_on`: the modalities that this task saw; with none of them the number is the task's
    prevalence among the patients that the model was trained on, or was recalibrated by. A field
    that is not there has no value: intervals and sets, too, are left out and never null.
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
        description="How sure the number is. Of a value, in its unit: 90 % of patients like those "
        "of the training have theirs inside. Of a probability: what it would be if this patient "
        "were counted, among those that it was calibrated on, as one without the outcome, and as "
        "one with it (Venn-Abers). One of the two ends is calibrated; the further they are apart, "
        "the fewer patients were like this one.",
    )
    set: tuple[str, ...] | None = Field(
        default=None,
        description="The outcomes that cannot be ruled out; of a yes-or-no task `no` and `yes`. "
        "Of the patients of each outcome, the rare one too, 90 % have it in their set "
        "(label-conditional conformal prediction; for patients like those of the training). Both "
        "in it means: cannot say. None in it: unlike the patients of either. `yes` alone does not "
        "mean that it is likely (see `probability`; of a rare outcome, most such patients do not "
        "have it), but that nine in ten patients without the outcome do not look like this.",
    )
    no_set: str | None = Field(
        default=None,
        description="Why there is no `set`: too few patients had one of the outcomes. Each "
        "yes-or-no task and each choice of classes has `set` or `no_set`, if it does not abstain; "
        "values and clusters have neither.",
    )
    cluster: int | None = None
    description: str | None = Field(
        default=None,
        description="What sets the patients of the cluster apart: variables that are high or low "
        "in them, and outcomes that they have more or less often than all patients.",
    )
    abstained: Abstained | None = None


class Drawn(_Answer):
    task: str
    weight: float


class TaskAttention(_Answer):
    """What a task's prediction was drawn from: its own weight, and the largest of the others.

    Weights of one task over all tasks sum to 1.
    """

    task: str
    own: float
    drawn_from: tuple[Drawn, ...]


class AttentionMatrix(_Answer):
    """Row: the task that draws; column: the task that is drawn from."""

    tasks: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]


class Contributions(_Answer):
    """What each modality adds to a number: exact Shapley values, over the sets of modalities.

    `baseline` is the number with nothing known. The five add up to the number that was predicted,
    calibration and all, in its unit. What is absent, or hidden from the task, adds exactly 0.
    """

    baseline: float
    tabular: float
    series: float
    notes: float
    image: float


class _Part(_Answer):
    """Something of the request, and what a number loses without it (`contribution`).

    A contribution is in the number's own unit; below 0, the number would be higher without. They
    are no shares: what two parts both tell is lost with neither, and counted for none.
    """

    name: str
    display: str
    pointers: tuple[str, ...]
    further_pointers: int | None = Field(
        default=None, description="how many pointers are left out; not there if none is"
    )
    contribution: float


class TabularPart(_Part):
    kind: Literal["tabular"]
    value: float | str
    unit: str | None = None


class SeriesPart(_Part):
    """A variable, in its canonical unit. `time`: of the last value; lowest, highest: of the window
    that the model reads.
    """

    kind: Literal["series"]
    unit: str
    last: float
    time: str
    lowest: float
    highest: float


class TreatmentPart(_Part):
    kind: Literal["treatment"]
    running: bool
    since: str
    rate: float | None = None
    unit: str | None = None


class NotePart(_Part):
    """A passage of a note: from the character `start` to before `end` of the text.

    Without `start` and `end`: several whole notes, if there are many; `time` is the latest of them.
    """

    kind: Literal["note"]
    time: str
    start: int | None = None
    end: int | None = None


class ImagePart(_Part):
    kind: Literal["image"]
    time: str


Part = Annotated[
    TabularPart | SeriesPart | TreatmentPart | NotePart | ImagePart, Field(discriminator="kind")
]


class TaskVariables(_Answer):
    """The parts of the request that one task's number rests on most, the largest first."""

    task: str
    because: tuple[Part, ...]


class Explanation(_Answer):
    """Where the numbers come from. What each figure means, and does not: docs/explanations.md."""

    attention: tuple[TaskAttention, ...] | AttentionMatrix
    modalities: dict[str, Contributions | dict[str, Contributions]] = Field(
        description="by task; of a choice of classes and of a cluster, by class"
    )
    variables: tuple[TaskVariables, ...] = Field(
        default=(),
        description="explain=full: of the three yes-or-no tasks that stand out most against their "
        "prevalence, or of the one that was asked for",
    )


class ModelReference(_Answer):
    """Which model answered; `digest` is the SHA-256 of the bundle's manifest."""

    name: str
    version: str
    digest: str
    recalibrated_by: str | None = Field(
        default=None,
        description="the patients by whose outcomes it was corrected for a hospital that it did "
        "not learn from; not there if it was not",
    )


class Answer(_Answer):
    """The whole answer for one patient, predictions in the bundle's order."""

    schema_version: str = SCHEMA_VERSION
    id: str
    model: ModelReference
    predictions: tuple[Prediction, ...]
    explanation: Explanation | None = None
    receipt: Receipt
    timing_ms: dict[str, float] = Field(description="milliseconds by stage")
