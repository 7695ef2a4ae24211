"""Chest X-rays in requests: which one is read, and which get a warning."""

import base64
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.support.inputs.chest_xrays import encoded, xray
from tests.support.servers.prometheus import scraped

AS_OF = "2031-05-04T12:00:00Z"


def image(picture: PIL.Image.Image, minute: int = 0, **more: Any) -> dict[str, Any]:
    data = base64.b64encode(encoded(picture)).decode()
    time = f"2031-05-04T11:{minute:02}:00Z"
    return {"time": time, "media_type": "image/png", "data": data, **more}


def request(*images: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"as_of": AS_OF, "images": list(images), **more}


def pneumonia(answer: dict[str, Any]) -> float:
    return next(p["probability"] for p in answer["predictions"] if p["task"] == "pneumonia")


NOISE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8))


def test_noise_gets_a_warning_each_time_it_is_sent(serve, engine):
    service = serve(engine)
    answers = [service.predict(request(image(NOISE))) for _ in range(2)]
    for answer in answers:
        assert answer["receipt"]["modalities"]["image"]["unusual"] == 1.0
        (warning,) = (w for w in answer["receipt"]["warnings"] if "image" in w)
        assert "noise" in warning
    assert answers[0]["receipt"] == answers[1]["receipt"]
    text = service.client.get("/metrics").text
    assert 'm3h_embeddings_total{modality="image",origin="memory"}' not in text or (
        scraped(text, 'm3h_embeddings_total{modality="image",origin="memory"}') == 0
    )


def test_a_chest_xray_gets_no_warning(service):
    receipt = service.predict(request(image(xray())))["receipt"]
    assert not [warning for warning in receipt["warnings"] if "image" in warning]


def test_a_later_lateral_xray_does_not_replace_a_frontal_one(service):
    frontal = image(xray(seed=1), view="PA")
    alone = service.predict(request(frontal))
    both = service.predict(request(frontal, image(xray(seed=2), 1, view="LATERAL")))
    assert pneumonia(both) == pytest.approx(pneumonia(alone), abs=1e-6)
    assert [(e["pointer"], e["reason"]) for e in both["receipt"]["ignored"]][:1] == [
        ("/images/1", "view_not_read")
    ]


def test_lateral_xrays_alone_are_not_read(service):
    answer = service.predict(request(image(xray(), view="LL"), tabular={"age": 70}))
    assert answer["receipt"]["modalities"]["image"] == {"status": "absent", "hidden_from": []}
    assert any("frontal" in warning for warning in answer["receipt"]["warnings"])


def test_a_strict_request_may_have_a_lateral_xray_but_no_unknown_view(serve, engine):
    blind = [f for f in engine.bundle.manifest.tasks if "image" not in f.visible_modalities]
    service = serve(engine)
    body = request(image(xray(), view="sunrise"))
    answer = service.client.post("/predict?strict=true", json=body)
    assert answer.status_code == 422
    rules = {(error["pointer"], error["rule"]) for error in answer.json()["errors"]}
    assert ("/images/0/view", "unknown_category") in rules
    assert "sunrise" not in answer.text
    body = request(image(xray(), view="PA"), image(xray(), view="LATERAL"))
    answer = service.client.post("/predict?strict=true", json=body)
    rules = {error["rule"] for error in answer.json().get("errors", ())}
    assert rules == ({"hidden_modality"} if blind else set())


def test_the_explanation_points_to_the_xray_that_is_read(service):
    read, lateral = image(xray(), view="PA"), image(xray(), 5, view="LATERAL")
    for images, index in (((read, lateral), 0), ((lateral, read), 1)):
        body = request(*images)
        answer = service.client.post("/predict?explain=full&task=pneumonia", json=body).json()
        pointers = {
            pointer
            for task in answer["explanation"]["variables"]
            for because in task["because"]
            for pointer in because["pointers"]
        }
        assert pointers == {f"/images/{index}"}
