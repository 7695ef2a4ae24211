"""The JSON documents of CDS Hooks 2.0.1. Fields of later versions are accepted and not read.

An absent field is never null (CDS Hooks, "Use of JSON").
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1, max_length=4096)]
FhirId = Annotated[str, Field(pattern=r"^[A-Za-z0-9\-.]{1,64}$")]
UserId = Annotated[
    str,
    Field(
        pattern=r"^(Practitioner|PractitionerRole|Patient|RelatedPerson)/[A-Za-z0-9\-.]{1,64}$",
        description="type and id of the user, such as Practitioner/abc",
    ),
]
Uuid = Annotated[
    str,
    Field(
        pattern=r"^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$",
        description="a UUID",
    ),
]


class _Received(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Sent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# ---- discovery -----------------------------------------------------------------------------------


class ServiceDescription(_Sent):
    """A CDS Service, as discovery lists it. `prefetch`: FHIR queries by key."""

    hook: str
    title: str
    description: str
    id: str
    prefetch: dict[str, str]
    usageRequirements: str


class Discovery(_Sent):
    """All CDS Services."""

    services: tuple[ServiceDescription, ...]


# ---- a call --------------------------------------------------------------------------------------


class Context(_Received):
    """The context of the hooks `patient-view`, `encounter-start` and `encounter-discharge`."""

    userId: UserId
    patientId: FhirId
    encounterId: FhirId = Field(default="", description="required by the encounter hooks")


class HookRequest(_Received):
    """A call of a CDS Service. The service never uses `fhirServer` or `fhirAuthorization`."""

    hook: Text
    hookInstance: Uuid
    context: Context
    prefetch: dict[str, Any] = Field(
        default={},
        description="for each key of discovery, a resource, a searchset Bundle, or null if the "
        "record has none",
    )
    extension: dict[str, Any] = Field(
        default={},
        description="`urn:m3h:as-of`: the moment of the prediction with a time zone, to replay "
        "records; default: the time at which the request arrives",
    )


# ---- cards ---------------------------------------------------------------------------------------

Indicator = Literal["info", "warning", "critical"]


class CardCoding(_Sent):
    """A code."""

    code: str
    system: str
    display: str | None = None


class Source(_Sent):
    """The source of a card. `topic`: the task with the system `urn:m3h:task`."""

    label: str
    url: str | None = None
    topic: CardCoding


class Suggestion(_Sent):
    """The one suggestion of a card, which has no actions: the user has read it."""

    label: str
    uuid: str


class Link(_Sent):
    """A link to the dashboard."""

    label: str
    url: str
    type: Literal["absolute"]


class Card(_Sent):
    """One or more tasks above their operating points."""

    uuid: str
    summary: str = Field(max_length=139)
    detail: str = Field(description="GitHub Flavored Markdown")
    indicator: Indicator
    source: Source
    suggestions: tuple[Suggestion, ...]
    selectionBehavior: Literal["at-most-one"]
    overrideReasons: tuple[CardCoding, ...]
    links: tuple[Link, ...] | None = None


class NotPredicted(_Sent):
    """A task without a prediction for this patient, and why."""

    task: str
    reason: str


class Result(_Sent):
    """What became of each task. Tasks without an entry are predicted and below their point.

    `predicted`: number of tasks that were compared with their operating point. `unchanged`: tasks
    above their point whose card this user has seen. `over_limit`: tasks above their point for which
    there was no place. `no_operating_point`: tasks that never get a card. `incomplete`: prefetch
    keys of which only the first page was sent.
    """

    as_of: str
    model: str
    digest: str
    predicted: int
    shown: tuple[str, ...] | None = None
    unchanged: tuple[str, ...] | None = None
    over_limit: tuple[str, ...] | None = None
    not_predicted: tuple[NotPredicted, ...] | None = None
    no_operating_point: tuple[str, ...] | None = None
    incomplete: tuple[str, ...] | None = None
    warnings: tuple[str, ...] | None = None


class ResponseExtension(_Sent):
    """The extension of a response."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True)

    result: Result = Field(alias="urn:m3h:result")


class HookResponse(_Sent):
    """The cards of a call. Without cards, `extension` states that the tasks were predicted."""

    cards: tuple[Card, ...]
    extension: ResponseExtension

    def json_bytes(self) -> bytes:
        """The document without its absent fields."""
        return self.model_dump_json(exclude_none=True, by_alias=True).encode()


# ---- feedback ------------------------------------------------------------------------------------


class SentCoding(_Received):
    """A code of the client."""

    code: Text
    system: Text


class AcceptedSuggestion(_Received):
    """The `uuid` of a suggestion."""

    id: Text


class OverrideReason(_Received):
    """Why a card was overridden. `userComment` is neither read nor stored."""

    reason: SentCoding | None = None


class CardFeedback(_Received):
    """What the user did with a card. `card`: its `uuid`."""

    card: Text
    outcome: Literal["accepted", "overridden"]
    acceptedSuggestions: tuple[AcceptedSuggestion, ...] = ()
    overrideReason: OverrideReason | None = None
    outcomeTimestamp: Text = Field(description="RFC 3339")


class Feedback(_Received):
    """Feedback on one or more cards."""

    feedback: Annotated[tuple[CardFeedback, ...], Field(min_length=1, max_length=1000)]


class FeedbackReceipt(_Sent):
    """What became of the feedback. `unknown`: JSON Pointers to unknown cards and suggestions."""

    recorded: int
    unknown: tuple[str, ...] | None = None
