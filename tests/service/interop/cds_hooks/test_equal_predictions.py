"""A call and the Bundle of its resources give equal predictions, in any order of the entries."""

import copy
import gzip
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.interop.cds_hooks.conftest import FULL, RESULT, tasks_of, without_ids
from tests.service.interop.fhir.conftest import Answer
from tests.service.interop.fhir.test_equal_predictions import as_of_of, synthea_files
from tests.support.inputs import hook_calls
from tests.support.servers.http_client import JSON

CELL = re.compile(r"\| ([^|]+) \| \*\*([\d.]+) %\*\* \|")


def shown_probabilities(response: dict[str, Any]) -> dict[str, float]:
    """The probabilities in percent by display of the task, as the cards show them."""
    rows = [row for card in response["cards"] for row in CELL.findall(card["detail"])]
    return {display.replace("\\", ""): float(percent) for display, percent in rows}


def fhir_answer(service: Any, bundle: dict[str, Any], as_of: str) -> Answer:
    answer = service.client.post(
        "/fhir/$predict", json=bundle, headers=JSON, params={"as_of": as_of}
    )
    assert answer.status_code == 200, answer.text
    return Answer(answer.json())


def assert_equal(response: dict[str, Any], answer: Answer) -> None:
    by_display = {o["code"]["text"]: o for o in answer.outcomes().values()}
    shown = shown_probabilities(response)
    assert len(shown) == len(tasks_of(response))
    for display, percent in shown.items():
        (prediction,) = by_display[display]["prediction"]
        assert percent == pytest.approx(100 * prediction["probabilityDecimal"], abs=0.51)


def test_a_call_and_the_bundle_give_equal_predictions(repeating, call):
    response = repeating.cards(call)
    assert tasks_of(response)
    assert_equal(response, fhir_answer(repeating.service, FULL, FULL["timestamp"]))


def synthea_bundle(path: Path) -> dict[str, Any]:
    """The record of a patient, as a server has it."""
    return hook_calls.as_served(json.loads(gzip.decompress(path.read_bytes())))


@pytest.mark.parametrize("number", range(20))
def test_a_synthea_patient_gets_the_cards_of_the_same_bundle(repeating, open_data, number):
    bundle = synthea_bundle(synthea_files(open_data)[number])
    as_of = as_of_of(bundle)
    call = hook_calls.call(bundle | {"timestamp": as_of})
    answer = repeating.post(call)
    if answer.status_code == 412:  # no measurement of the last days
        assert {e["rule"] for e in answer.json()["errors"]} <= {"no_recent_data", "abstained"}
        return
    assert answer.status_code == 200, answer.text
    kept = [e for e in bundle["entry"] if e["resource"]["resourceType"] in hook_calls.KEYS]
    assert_equal(answer.json(), fhir_answer(repeating.service, bundle | {"entry": kept}, as_of))


def test_some_synthea_patients_are_predicted(repeating, open_data):
    statuses = []
    for path in synthea_files(open_data):
        bundle = synthea_bundle(path)
        call = hook_calls.call(bundle | {"timestamp": as_of_of(bundle)})
        statuses.append(repeating.post(call).status_code)
    assert statuses.count(200) >= 5
    assert set(statuses) <= {200, 412}


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_prefetch_does_not_matter(repeating, order):
    call = hook_calls.call(copy.deepcopy(FULL))
    expected = repeating.cards(call)
    values = [*call["prefetch"].items()]
    order.shuffle(values)
    call["prefetch"] = dict(values)
    for value in call["prefetch"].values():
        if value is not None and "entry" in value:
            order.shuffle(value["entry"])
    shuffled = repeating.cards(call)
    assert without_ids(shuffled) == without_ids(expected)


@settings(max_examples=20)
@given(st.sets(st.sampled_from([*hook_calls.KEYS.values()]), min_size=1))
def test_a_removed_prefetch_is_never_an_answer_without_risk(repeating, removed):
    call = hook_calls.call(copy.deepcopy(FULL))
    for key in removed:
        del call["prefetch"][key]
    answer = repeating.post(call)
    assert answer.status_code == 412
    pointers = {error["pointer"] for error in answer.json()["errors"]}
    assert pointers == {f"/prefetch/{key}" for key in removed}


def test_the_joined_resources_may_repeat(repeating, call):
    expected = repeating.cards(call)
    encounter = call["prefetch"]["encounter"]["entry"]
    call["prefetch"]["observations"]["entry"] += encounter
    assert without_ids(repeating.cards(call)) == without_ids(expected)


def test_the_default_time_of_the_prediction_is_now(repeating, call):
    moved = json.dumps(call)
    now = datetime.now(UTC)
    for time in set(re.findall(r"2031-05-0\dT[\d:]+\+00:00", moved)):
        shifted = now - (datetime.fromisoformat(FULL["timestamp"]) - datetime.fromisoformat(time))
        moved = moved.replace(time, shifted.isoformat())
    recent = json.loads(moved)
    del recent["extension"]
    response = repeating.cards(recent)
    as_of = datetime.fromisoformat(response["extension"][RESULT]["as_of"])
    assert 0 <= (as_of - now).total_seconds() < 600
    assert tasks_of(response)
