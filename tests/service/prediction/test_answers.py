"""Predictions: the tasks, values and modalities of an answer."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from schemas.features import extract_features
from schemas.payload import as_payload
from schemas.response import MODALITIES, Answer
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from tests.support.inputs.modality_subsets import joined, without


def test_an_answer_has_every_task_of_the_bundle_in_its_order(service, bundle, payload):
    answer = service.predict(payload)
    assert [p["task"] for p in answer["predictions"]] == [
        f.task.name for f in bundle.manifest.tasks
    ]
    Answer.model_validate(answer)


def test_each_prediction_has_one_value_of_its_kind_or_abstains(service, bundle, payload):
    fields = {
        "binary": "probability",
        "regression": "value",
        "multiclass": "probabilities",
        "clustering": "cluster",
    }
    for prediction in service.predict(payload)["predictions"]:
        values = {*fields.values(), "abstained"} & prediction.keys()
        own = (
            {"cluster", "probabilities"}
            if "cluster" in prediction
            else {fields[prediction["kind"]]}
        )
        assert values in (own, {"abstained"})
        assert prediction["means"]
        if "probability" in prediction:
            assert 0 <= prediction["probability"] <= 1
        if "probabilities" in prediction:
            assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_a_number_is_the_output_of_the_graph_unrounded(service, engine, payload):
    arrays = extract_features(as_payload(payload), engine.bundle.manifest.spec).arrays
    outputs = engine.run([arrays])[0].fusion
    predictions = {p["task"]: p for p in service.predict(payload)["predictions"]}
    for facts in engine.bundle.manifest.tasks:
        if facts.task.kind == "binary" and facts.abstains is None:
            expected = float(outputs[facts.output][facts.column])
            assert predictions[facts.task.name]["probability"] == pytest.approx(expected, abs=1e-6)


def test_a_task_that_abstains_has_a_reason_and_no_number(serve, changed_bundle, payload):
    def abstain(manifest: dict[str, Any], _: Path) -> None:
        manifest["tasks"][0]["abstains"] = "too few patients"

    engine = Engine(Bundle.load(changed_bundle(abstain), "cpu"))
    engine.replay_golden()
    first = serve(engine).predict(payload)["predictions"][0]
    assert first["abstained"] == {"reason": "too few patients", "code": "not_trained"}
    assert "probability" not in first


def test_a_task_without_a_finite_number_abstains(computed):
    nan = {name: np.full_like(values, math.nan) for name, values in computed.outputs.fusion.items()}
    outputs = replace(computed.outputs, fusion=nan)
    for prediction in computed.answer(outputs=outputs).values():
        assert prediction.abstained.code == "no_finite_number"
        assert prediction.based_on == ()


@pytest.mark.parametrize(
    "absent", [set(c) for n in range(4) for c in combinations(MODALITIES, n)], ids=joined
)
def test_any_modality_may_be_absent(service, bundle, payload, absent):
    answer = service.predict(without(payload, absent))
    use = answer["receipt"]["modalities"]
    assert {m for m in use if use[m]["status"] == "absent"} == absent
    seen = {f.task.name: set(f.visible_modalities) for f in bundle.manifest.tasks}
    for prediction in answer["predictions"]:
        assert set(prediction["based_on"]) == (set(MODALITIES) - absent) & seen[prediction["task"]]


def test_an_absent_modality_does_not_change_a_prediction(engine, payload):
    """Also if other patients of the batch have the modality."""
    spec = engine.bundle.manifest.spec
    whole = extract_features(as_payload(payload), spec).arrays
    part = extract_features(as_payload(without(payload, {"notes", "image"})), spec).arrays
    alone = engine.run([part])[0]
    beside = engine.run([whole, part])[1]
    for name, values in alone.fusion.items():
        np.testing.assert_allclose(beside.fusion[name], values, atol=1e-5)


def test_an_answer_does_not_depend_on_its_batch(service, payload):
    subsets: list[set[str]] = [set(), {"notes"}, {"image", "series"}, {"tabular"}]
    items = [without(payload, absent) for absent in subsets]
    batch = service.client.post("/predict/batch", json={"items": items}).json()["items"]
    for item, together in zip(items, batch, strict=True):
        for alone, batched in zip(
            service.predict(item)["predictions"], together["predictions"], strict=True
        ):
            assert alone.get("probability") == pytest.approx(batched.get("probability"), abs=1e-5)
        for name, use in service.predict(item)["receipt"]["modalities"].items():
            unusual = together["receipt"]["modalities"][name].get("unusual")
            assert use.get("unusual") == pytest.approx(unusual, abs=1e-3)


def test_a_batch_answers_each_item_separately_and_in_order(service, payload):
    broken = payload | {"as_of": "yesterday"}
    answer = service.client.post("/predict/batch", json={"items": [payload, broken, payload, 5]})
    assert answer.status_code == 200
    first, second, third, fourth = answer.json()["items"]
    assert "predictions" in first
    assert "predictions" in third
    assert first["id"] != third["id"]
    assert second["status"] == 422
    assert second["errors"][0]["pointer"] == "/as_of"
    assert fourth["errors"] == [{"pointer": "", "rule": "object", "detail": "must be an object"}]


def test_an_answer_contains_no_null_and_no_patient_id(service, payload):
    payload["patient_id"] = "Jane Roe 1957"
    answer = service.client.post("/predict", json=payload)
    assert "null" not in answer.text
    assert "Jane Roe" not in answer.text + service.written()


def test_an_answer_has_the_time_of_each_step(service, payload):
    timing = service.predict(payload)["timing_ms"]
    assert set(timing) == {"queue", "parse", "features", "model", "respond"}
    assert all(ms > 0 for ms in timing.values())


def test_a_slow_prediction_does_not_block_the_event_loop(serve, engine, payload, monkeypatch):
    entered, leave = Event(), Event()
    run = engine.run

    def slow(*arguments: Any) -> Any:
        entered.set()
        leave.wait(60)
        return run(*arguments)

    monkeypatch.setattr(engine, "run", slow)
    client = serve(engine).client
    with ThreadPoolExecutor(1) as pool:
        prediction = pool.submit(client.post, "/predict", json=payload)
        assert entered.wait(60)
        assert client.get("/health/live").status_code == 200
        leave.set()
        assert prediction.result().status_code == 200


def test_a_strict_request_without_ignored_input_is_answered(serve, changed_bundle, payload):
    def see_all(manifest: dict[str, Any], _: Path) -> None:
        for facts in manifest["tasks"]:
            facts["seen"] = list(MODALITIES)

    engine = Engine(Bundle.load(changed_bundle(see_all), "cpu"))
    engine.replay_golden()
    answer = serve(engine).client.post(
        "/predict?strict=true",
        content=json.dumps(payload).encode(),
        headers={"Content-Type": "application/json; charset=utf-8"},
    )
    assert answer.status_code == 200
