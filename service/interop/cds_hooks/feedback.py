"""Feedback on cards becomes counts for each task (CDS Hooks, "Feedback")."""

from collections.abc import Callable

from pydantic_core import PydanticCustomError

from schemas.parsing.times import read_time
from schemas.request_errors import FieldError, InvalidPayload
from service.interop.cds_hooks.card_ids import CardIds
from service.interop.cds_hooks.cards import OVERRIDE_REASONS
from service.interop.cds_hooks.documents import parse_document, validate
from service.interop.cds_hooks.models import CardFeedback, Feedback, FeedbackReceipt

CountOutcome = Callable[[str, str, str | None], None]  # task, outcome, reason


def record_feedback(body: bytes, ids: CardIds, count: CountOutcome) -> FeedbackReceipt:
    """Counts the feedback of a body. Cards of another task list are reported, and not counted.

    Comments of users are not read. Raises InvalidPayload: nothing was counted.
    """
    parts = validate(Feedback, parse_document(body)).feedback
    errors = [error for i, part in enumerate(parts) for error in _errors(i, part)]
    if errors:
        raise InvalidPayload(errors)
    unknown = []
    for i, part in enumerate(parts):
        tasks = ids.tasks(part.card)
        if not tasks:
            unknown.append(f"/feedback/{i}/card")
        elif part.outcome == "accepted" and not _is_suggestion_of(tasks, part, ids):
            unknown.append(f"/feedback/{i}/acceptedSuggestions")
        else:
            for task in tasks:
                count(task, part.outcome, _reason(part))
    return FeedbackReceipt(recorded=len(parts) - len(unknown), unknown=tuple(unknown) or None)


def _errors(i: int, part: CardFeedback) -> list[FieldError]:
    head, errors = f"/feedback/{i}", []
    if part.outcome == "accepted" and not part.acceptedSuggestions:
        pointer = f"{head}/acceptedSuggestions"
        detail = "is required for the outcome accepted"
        errors.append(FieldError(pointer=pointer, rule="required", detail=detail))
    try:
        read_time(part.outcomeTimestamp)
    except PydanticCustomError as error:
        pointer = f"{head}/outcomeTimestamp"
        errors.append(FieldError(pointer=pointer, rule=error.type, detail=error.message()))
    return errors


def _is_suggestion_of(tasks: tuple[str, ...], part: CardFeedback, ids: CardIds) -> bool:
    return any(ids.tasks(suggestion.id) == tasks for suggestion in part.acceptedSuggestions)


def _reason(part: CardFeedback) -> str | None:
    """The reason of an override: a code of this service, `other`, or `none`."""
    if part.outcome != "overridden":
        return None
    reason = None if part.overrideReason is None else part.overrideReason.reason
    if reason is None:
        return "none"
    is_own = reason.system == "urn:m3h:override-reason" and reason.code in OVERRIDE_REASONS
    return reason.code if is_own else "other"
