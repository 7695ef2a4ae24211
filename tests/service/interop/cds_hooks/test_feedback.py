"""Feedback becomes counts for each task; unknown cards and comments are not stored."""

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.interop.cds_hooks.card_ids import CardIds
from service.interop.cds_hooks.governance import CardContent, Finding, task_groups
from service.interop.cds_hooks.operating_points import OperatingPoint
from tests.service.interop.cds_hooks.conftest import tasks_of
from tests.support.servers.prometheus import scraped
from tests.support.servers.refusals import CANARY, assert_refused

TIME = "2031-05-04T12:05:31Z"


def accepted(card: dict[str, Any]) -> dict[str, Any]:
    return {
        "card": card["uuid"],
        "outcome": "accepted",
        "acceptedSuggestions": [{"id": card["suggestions"][0]["uuid"]}],
        "outcomeTimestamp": TIME,
    }


def overridden(card: dict[str, Any], **reason: Any) -> dict[str, Any]:
    body = {"card": card["uuid"], "outcome": "overridden", "outcomeTimestamp": TIME}
    return body | ({"overrideReason": reason} if reason else {})


def count(cds: Any, task: str, outcome: str) -> float:
    text = cds.service.client.get("/metrics").text
    return scraped(text, f'm3h_cds_cards_total{{outcome="{outcome}",task="{task}"}}')


def overrides(cds: Any, task: str, reason: str) -> float:
    text = cds.service.client.get("/metrics").text
    return scraped(text, f'm3h_cds_overrides_total{{reason="{reason}",task="{task}"}}')


def test_an_accepted_card_counts_for_each_of_its_tasks(cds, call):
    response = cds.cards(call)
    answer = cds.feedback(*map(accepted, response["cards"]))
    assert answer.status_code == 200
    assert answer.json() == {"recorded": len(response["cards"])}
    for task in tasks_of(response):
        assert count(cds, task, "accepted") == 1
        assert count(cds, task, "overridden") == 0


@pytest.mark.parametrize(
    ("reason", "counted"),
    [
        ({}, "none"),
        ({"userComment": CANARY}, "none"),
        ({"reason": {"code": "known", "system": "urn:m3h:override-reason"}}, "known"),
        ({"reason": {"code": CANARY, "system": "urn:m3h:override-reason"}}, "other"),
        ({"reason": {"code": "known", "system": CANARY}, "userComment": CANARY}, "other"),
    ],
)
def test_an_overridden_card_counts_with_its_reason(cds, call, reason, counted):
    card = cds.cards(call)["cards"][0]
    answer = cds.feedback(overridden(card, **reason))
    assert answer.json() == {"recorded": 1}
    for task in ("sepsis", "septic_shock"):
        assert count(cds, task, "overridden") == 1
        assert overrides(cds, task, counted) == 1
    assert CANARY not in answer.text + cds.service.written()


def test_every_offered_reason_is_counted_by_its_code(cds, call):
    card = cds.cards(call)["cards"][0]
    for offered in card["overrideReasons"]:
        cds.feedback(overridden(card, reason=offered))
        assert overrides(cds, "sepsis", offered["code"]) == 1


def test_feedback_may_be_sent_to_another_replica(cds, serve, engine, call):
    from tests.service.interop.cds_hooks.conftest import Cds

    card = cds.cards(call)["cards"][0]
    other = Cds(serve(engine))
    assert other.feedback(accepted(card)).json() == {"recorded": 1}


def test_an_unknown_card_is_named_and_the_rest_is_counted(cds, call):
    card = cds.cards(call)["cards"][0]
    unknown = [card | {"uuid": str(uuid.uuid4())}, card | {"uuid": CANARY}]
    answer = cds.feedback(overridden(unknown[0]), accepted(card), overridden(unknown[1]))
    assert answer.status_code == 200
    expected = ["/feedback/0/card", "/feedback/2/card"]
    assert answer.json() == {"recorded": 1, "unknown": expected}
    assert count(cds, "sepsis", "overridden") == 0
    assert CANARY not in answer.text + cds.service.written()


def test_an_accepted_suggestion_must_be_of_the_card(cds, call):
    first, second, *_ = cds.cards(call)["cards"]
    answer = cds.feedback(accepted(first | {"suggestions": second["suggestions"]}))
    assert answer.json() == {"recorded": 0, "unknown": ["/feedback/0/acceptedSuggestions"]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"card": None}, ("/feedback/0/card", "string")),
        ({"card": ""}, ("/feedback/0/card", "not_empty")),
        ({"outcome": CANARY}, ("/feedback/0/outcome", "allowed_values")),
        ({"outcomeTimestamp": CANARY}, ("/feedback/0/outcomeTimestamp", "time_zone")),
        ({"acceptedSuggestions": []}, ("/feedback/0/acceptedSuggestions", "required")),
        ({"acceptedSuggestions": [{}]}, ("/feedback/0/acceptedSuggestions/0/id", "required")),
        (
            {"overrideReason": {"reason": {"code": "x"}}},
            ("/feedback/0/overrideReason/reason/system", "required"),
        ),
    ],
)
def test_wrong_feedback_is_refused_and_nothing_is_counted(cds, call, change, expected):
    card = cds.cards(call)["cards"][0]
    answer = cds.feedback(accepted(card) | change, accepted(card))
    assert_refused(cds.service, answer, 422, expected)
    assert count(cds, "sepsis", "accepted") == 0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ("/feedback", "required")),
        ({"feedback": []}, ("/feedback", "not_empty")),
        ({"feedback": {}}, ("/feedback", "array")),
        ({"feedback": [7]}, ("/feedback/0", "object")),
        ([], ("", "object")),
    ],
    ids=repr,
)
def test_a_body_that_is_no_feedback_is_refused(cds, body, expected):
    answer = cds.service.client.post("/cds-services/m3h-patient-view/feedback", json=body)
    assert_refused(cds.service, answer, 422, expected)


# ------------------------------------------------------------------------------------ identifiers


@given(st.data())
def test_an_identifier_carries_any_tasks_of_any_group(bundle, data):
    groups = task_groups(bundle.manifest)
    ids = CardIds(groups, "")
    group = data.draw(st.sampled_from(groups))
    members = data.draw(st.lists(st.sampled_from(range(len(group.tasks))), min_size=1, unique=True))
    findings = [Finding(group.tasks[i], {}, OperatingPoint(0.5)) for i in members]
    identifier = ids.make(CardContent(group, tuple(findings)))
    assert set(ids.tasks(identifier)) == {finding.name for finding in findings}
    assert uuid.UUID(identifier).version == 8
    assert uuid.UUID(identifier).variant == uuid.RFC_4122


@given(st.uuids() | st.text())
def test_another_identifier_is_unknown(bundle, identifier):
    assert CardIds(task_groups(bundle.manifest), "").tasks(str(identifier)) == ()


@given(st.integers(0, 127))
def test_a_changed_identifier_is_unknown(bundle, bit):
    groups = task_groups(bundle.manifest)
    ids = CardIds(groups, "a secret of these tests")
    finding = Finding(groups[0].tasks[0], {}, OperatingPoint(0.5))
    identifier = ids.make(CardContent(groups[0], (finding,)))
    changed = uuid.UUID(int=uuid.UUID(identifier).int ^ (1 << bit))
    assert ids.tasks(str(changed)) == ()
    assert CardIds(groups, "another secret").tasks(identifier) == ()
    assert CardIds(groups[:-1], "a secret of these tests").tasks(identifier) == ()
