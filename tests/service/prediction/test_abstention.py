"""Abstention: no number for a patient unlike those of the training, or without usable input."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from schemas.response import Answer
from service.prediction.answer_fields import OutcomeFields
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from tests.support.inputs.chest_xrays import encoded, xray
from tests.support.inputs.modality_subsets import without

NUMBERS = OutcomeFields.__optional_keys__ - {"abstained"}
NOISE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8))


def image(picture: PIL.Image.Image) -> dict[str, Any]:
    data = base64.b64encode(encoded(picture)).decode()
    return {"time": "2031-05-04T11:00:00Z", "media_type": "image/png", "data": data}


def of_age(payload: dict[str, Any], age: float | None) -> dict[str, Any]:
    return payload | {"tabular": payload["tabular"] | {"age": age}}


def codes(answer: dict[str, Any]) -> set[str | None]:
    """The codes of all predictions; None for a prediction with a number."""
    return {p["abstained"]["code"] if "abstained" in p else None for p in answer["predictions"]}


def assert_no_numbers(answer: dict[str, Any], code: str) -> None:
    Answer.model_validate(answer)
    for prediction in answer["predictions"]:
        assert prediction["abstained"]["code"] == code
        assert prediction["abstained"]["reason"]
        assert prediction["based_on"] == []
        assert not NUMBERS & prediction.keys()


@pytest.fixture
def child(payload) -> dict[str, Any]:
    return of_age(payload, 5)


@pytest.mark.parametrize("age", [0, 5, 17, 17.99])
@pytest.mark.parametrize("explain", ["none", "default", "full"])
def test_every_task_abstains_for_a_child(service, payload, age, explain):
    answer = service.predict(of_age(payload, age), explain=explain)
    assert_no_numbers(answer, "outside_trained_population")
    reasons = {p["abstained"]["reason"] for p in answer["predictions"]}
    assert reasons == {"the model learned from adults (18 years and older); this one is younger"}
    assert "explanation" not in answer
    assert any("adults (18 years and older)" in w for w in answer["receipt"]["warnings"])


@pytest.mark.parametrize("age", [18, 18.0, 67, 120, None])
def test_no_task_abstains_for_an_adult_or_without_an_age(service, payload, age):
    answer = service.predict(of_age(payload, age))
    assert codes(answer) == {None}
    assert not any("adults" in warning for warning in answer["receipt"]["warnings"])


def test_an_implausible_age_counts_as_missing(service, payload):
    answer = service.predict(of_age(payload, 999))
    assert codes(answer) == {None}
    assert "/tabular/age" in {entry["pointer"] for entry in answer["receipt"]["ignored"]}


def test_a_child_has_no_explanation_of_a_requested_task(service, child):
    assert "explanation" not in service.predict(child, explain="full", task="sepsis")


def test_a_child_abstains_also_with_strict(service, child, payload):
    status = service.client.post("/predict?strict=true", json=payload).status_code
    assert service.client.post("/predict?strict=true", json=child).status_code == status


def test_a_child_changes_nothing_for_the_other_patients_of_a_batch(service, payload, child):
    body = {"items": [child, payload, child]}
    answer = service.client.post("/predict/batch?explain=full", json=body)
    first, adult, last = answer.json()["items"]
    for item in (first, last):
        assert_no_numbers(item, "outside_trained_population")
    alone = service.predict(payload, explain="full")
    for prediction, same in zip(adult["predictions"], alone["predictions"], strict=True):
        assert prediction.keys() == same.keys()
        if "probability" in same:
            assert prediction["probability"] == pytest.approx(same["probability"], abs=1e-6)
    assert adult["explanation"].keys() == alone["explanation"].keys()


@pytest.fixture
def with_ages(serve, changed_bundle) -> Callable[..., Any]:
    def start(*ages: float) -> Any:
        def edit(manifest: dict[str, Any], _: Path) -> None:
            manifest["trained_age"] = ages

        engine = Engine(Bundle.load(changed_bundle(edit), "cpu"))
        engine.replay_golden()
        return serve(engine)

    return start


def test_the_ages_of_the_training_are_those_of_the_manifest(with_ages, payload):
    service = with_ages(1, 90)
    assert codes(service.predict(of_age(payload, 5))) == {None}
    for age, side in ((0.5, "1 years and older"), (95, "90 years and younger")):
        answer = service.predict(of_age(payload, age))
        assert_no_numbers(answer, "outside_trained_population")
        assert side in answer["predictions"][0]["abstained"]["reason"]


# ---- no usable input -----------------------------------------------------------------------------


@pytest.mark.parametrize("explain", ["none", "default", "full"])
def test_every_task_abstains_if_nothing_can_be_used(service, payload, explain):
    series = [{"variable": "aura", "times": [payload["as_of"]], "values": [1]}]
    request = {"as_of": payload["as_of"], "series": series}
    answer = service.predict(request, explain=explain)
    assert_no_numbers(answer, "no_input")
    assert "explanation" not in answer
    assert "nothing of the request could be used" in answer["receipt"]["warnings"][0]


def test_the_prevalence_remains_in_an_answer_without_input(service, bundle, payload):
    request = {"as_of": payload["as_of"], "tabular": {"unit_type": "attic"}}
    answer = service.predict(request)
    assert_no_numbers(answer, "no_input")
    prevalence = {p["task"]: p.get("prevalence") for p in answer["predictions"]}
    assert prevalence == {f.task.name: f.prevalence for f in bundle.manifest.tasks}


@pytest.mark.parametrize("explain", ["none", "default", "full"])
def test_every_task_abstains_if_the_only_input_is_no_chest_xray(service, payload, explain):
    request = {"as_of": payload["as_of"], "images": [image(NOISE)]}
    for _ in range(2):  # the second time, the cache could have the embedding
        answer = service.predict(request, explain=explain)
        assert_no_numbers(answer, "no_input")
        assert answer["receipt"]["modalities"]["image"]["unusual"] == 1.0
        assert any("noise" in warning for warning in answer["receipt"]["warnings"])


def test_a_chest_xray_alone_is_evidence_only_for_the_tasks_that_learned_from_them(
    service, bundle, payload
):
    seeing = {f.task.name for f in bundle.manifest.tasks if "image" in f.visible_modalities}
    assert seeing
    answer = service.predict({"as_of": payload["as_of"], "images": [image(xray())]}, explain="full")
    for prediction in answer["predictions"]:
        if prediction["task"] in seeing:
            assert prediction["based_on"] == ["image"]
            assert "abstained" not in prediction
        else:
            assert prediction["abstained"]["code"] == "no_input"
    assert answer["explanation"]["modalities"].keys() == seeing
    assert {v["task"] for v in answer["explanation"]["variables"]} <= seeing


def test_the_variables_of_a_requested_task_without_evidence_are_empty(service, bundle, payload):
    blind = next(
        f.task.name
        for f in bundle.manifest.tasks
        if "image" not in f.visible_modalities and f.task.kind == "binary"
    )
    request = {"as_of": payload["as_of"], "images": [image(xray())]}
    answer = service.predict(request, explain="full", task=blind)
    assert answer["explanation"].get("variables", []) == []


def test_no_task_abstains_for_an_image_that_is_no_chest_xray_beside_other_input(service, payload):
    without_image = service.predict(without(payload, {"image"}))
    answer = service.predict(payload | {"images": [image(NOISE)]})
    assert codes(answer) == codes(without_image) == {None}


def test_an_abstention_has_no_value_of_the_request(service, child):
    text = json.dumps(service.predict(child)["predictions"])
    assert "opaque" not in text
    assert child["notes"][0]["text"] not in text
