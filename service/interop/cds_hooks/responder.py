"""The response of a call: the cards, and what became of every task."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from schemas.manifest import Manifest
from schemas.request_errors import MAX_LISTED, FieldError
from service.errors import PreconditionFailed
from service.interop.cds_hooks.call import HookCall
from service.interop.cds_hooks.card_ids import CardIds
from service.interop.cds_hooks.cards import CardBuilder, Surroundings
from service.interop.cds_hooks.governance import (
    CardContent,
    Judgement,
    TaskGroup,
    has_changed,
    judge,
    task_groups,
)
from service.interop.cds_hooks.models import (
    HookResponse,
    NotPredicted,
    ResponseExtension,
    Result,
)
from service.interop.cds_hooks.operating_points import OperatingPoint

CountCard = Callable[[str, str], None]  # task, outcome


class CardMemory(Protocol):
    """Remembers the cards that were shown, by an identity that it does not store."""

    def get(self, identities: Sequence[tuple[str, ...]]) -> list[dict[str, float] | None]:
        """The state of each card that was shown; None for other cards."""

    def put(self, states: Mapping[tuple[str, ...], Mapping[str, float]]) -> None:
        """Remembers the states of cards that are shown."""


class CardResponder:
    """Answers the calls for one bundle. `max_cards`: of one response."""

    def __init__(
        self,
        manifest: Manifest,
        digest: str,
        points: Mapping[str, OperatingPoint],
        memory: CardMemory,
        *,
        max_cards: int,
        secret: str,
        url: str | None,
    ) -> None:
        self._model, self._digest = f"{manifest.name} {manifest.version}", digest
        self._groups: tuple[TaskGroup, ...] = task_groups(manifest)
        self._points, self._memory, self._max_cards = points, memory, max_cards
        self.ids = CardIds(self._groups, secret)
        self._builder = CardBuilder(manifest, self.ids, url)
        self._without_point = tuple(
            served.task.name
            for group in self._groups
            for served in group.tasks
            if served.task.name not in points
        )

    def respond(self, answer: Mapping[str, Any], call: HookCall, count: CountCard) -> HookResponse:
        """The response for an answer (`schemas.response.Answer` as a dictionary).

        Raises PreconditionFailed: no task is predicted, or none rests on more than age, sex and
        admission. Neither may look like a low risk.
        """
        judgement = judge(answer["predictions"], self._groups, self._points)
        _require_predictions(judgement, answer)
        states = {self._identity(call, part): part for part in judgement.contents}
        before = self._memory.get([*states]) if states else []
        changed: list[CardContent] = []
        unchanged: list[CardContent] = []
        for content, known in zip(states.values(), before, strict=True):
            (changed if has_changed(known, content) else unchanged).append(content)
        shown, over_limit = changed[: self._max_cards], changed[self._max_cards :]
        tasks = {
            "shown": _tasks(shown),
            "unchanged": _tasks(unchanged),
            "over_limit": _tasks(over_limit),
        }
        surroundings = Surroundings(
            answer["receipt"], call.incomplete, tasks["over_limit"], [*judgement.abstained]
        )
        cards = tuple(self._builder.build(content, surroundings) for content in shown)
        self._memory.put(
            {key: content.state for key, content in states.items() if content in shown}
        )
        for outcome, names in tasks.items():
            for name in names:
                count(name, outcome)
        result = self._result(answer, call, judgement, tasks)
        return HookResponse(cards=cards, extension=ResponseExtension(result=result))

    def _identity(self, call: HookCall, content: CardContent) -> tuple[str, ...]:
        """What makes two cards the same: model, hook, user, patient, encounter and group.

        The user is part of it: a second clinician has not seen the card of the first.
        """
        request, context = call.request, call.request.context
        return (
            self._digest,
            request.hook,
            context.userId,
            context.patientId,
            context.encounterId,
            content.group.tasks[0].task.name,
        )

    def _result(
        self,
        answer: Mapping[str, Any],
        call: HookCall,
        judgement: Judgement,
        tasks: Mapping[str, tuple[str, ...]],
    ) -> Result:
        abstained = tuple(
            NotPredicted(task=task, reason=reason) for task, reason in judgement.abstained.items()
        )
        return Result(
            as_of=call.as_of.isoformat(),
            model=self._model,
            digest=self._digest,
            predicted=judgement.predicted,
            shown=tasks["shown"] or None,
            unchanged=tasks["unchanged"] or None,
            over_limit=tasks["over_limit"] or None,
            not_predicted=abstained or None,
            no_operating_point=self._without_point or None,
            incomplete=call.incomplete or None,
            warnings=tuple(answer["receipt"]["warnings"]) or None,
        )


def _tasks(contents: Sequence[CardContent]) -> tuple[str, ...]:
    return tuple(finding.name for content in contents for finding in content.findings)


def _require_predictions(judgement: Judgement, answer: Mapping[str, Any]) -> None:
    """Raises PreconditionFailed if an empty list of cards could be read as a low risk."""
    if not judgement.predicted:
        reasons = dict.fromkeys(judgement.abstained.values())
        faults = [
            FieldError(pointer="/prefetch", rule="abstained", detail=reason) for reason in reasons
        ]
        raise PreconditionFailed(faults[:MAX_LISTED])
    modalities = answer["receipt"]["modalities"].items()
    if not any(use["status"] == "used" for modality, use in modalities if modality != "tabular"):
        detail = (
            "the model found no recent measurement, treatment, note or chest X-ray; age, sex and "
            "admission alone do not suffice for cards"
        )
        raise PreconditionFailed(
            [FieldError(pointer="/prefetch", rule="no_recent_data", detail=detail)]
        )
