"""The types of an answer's dictionaries, one for each response model (`schemas.response`).

An answer has more than a hundred objects. Creating them as models takes longer than the rest of
its assembly (docs/experiments.md), so the service builds dictionaries and encodes them at once. A
test compares each type with its model. A field without a value is absent, never null.
"""

from typing import Any, Literal, NotRequired, TypedDict

from schemas.response import AbstentionCode, Modality
from schemas.tasks import Kind


class IntervalFields(TypedDict):
    low: float
    high: float


class AbstainedFields(TypedDict):
    reason: str
    code: AbstentionCode


class TaskFields(TypedDict):
    """The fields of a Prediction that do not depend on the outputs of the model."""

    task: str
    display: str
    department: str
    kind: Kind
    means: str
    based_on: list[Modality]
    prevalence: NotRequired[float]


class OutcomeFields(TypedDict, total=False):
    """The fields of a Prediction that depend on the outputs of the model."""

    probability: float
    probabilities: dict[str, float]
    value: float
    unit: str
    interval: IntervalFields
    set: list[str]
    no_set: str
    cluster: int
    description: str
    abstained: AbstainedFields


class PredictionFields(TaskFields, OutcomeFields):
    pass


class DrawnFields(TypedDict):
    task: str
    weight: float


class TaskAttentionFields(TypedDict):
    task: str
    own: float
    drawn_from: list[DrawnFields]


class AttentionMatrixFields(TypedDict):
    tasks: list[str]
    weights: list[list[float]]


class ContributionsFields(TypedDict):
    baseline: float
    tabular: float
    series: float
    notes: float
    image: float


PartKind = Literal["tabular", "series", "treatment", "note", "image"]


class PartFields(TypedDict):
    """The fields that describe a part of the request. Which are present depends on `kind`."""

    kind: PartKind
    name: str
    display: str
    pointers: list[str]
    further_pointers: NotRequired[int]
    value: NotRequired[float | str]
    unit: NotRequired[str]
    last: NotRequired[float]
    lowest: NotRequired[float]
    highest: NotRequired[float]
    time: NotRequired[str]
    running: NotRequired[bool]
    since: NotRequired[str]
    rate: NotRequired[float]
    start: NotRequired[int]
    end: NotRequired[int]


class EvidenceFields(PartFields):
    contribution: float


class TaskVariablesFields(TypedDict):
    task: str
    because: list[EvidenceFields]


class ExplanationFields(TypedDict):
    attention: list[TaskAttentionFields] | AttentionMatrixFields
    modalities: dict[str, ContributionsFields | dict[str, ContributionsFields]]
    variables: NotRequired[list[TaskVariablesFields]]


class OptionalExplanation(TypedDict, total=False):
    explanation: ExplanationFields


class AnswerFields(OptionalExplanation):
    """`model` and `receipt` are dumps of their models."""

    schema_version: str
    id: str
    model: dict[str, Any]
    predictions: list[PredictionFields]
    receipt: dict[str, Any]
    timing_ms: dict[str, float]
