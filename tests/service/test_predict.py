"""What a prediction promises."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from schemas.features import features
from schemas.payload import as_payload
from schemas.response import MODALITIES, Answer
from service import respond
from service.bundle import Bundle
from service.engine import Engine

FIELDS = {"tabular": ("tabular",), "series": ("series", "treatments")}
FIELDS |= {"notes": ("notes",), "image": ("images",)}


def without(payload: dict[str, Any], absent: set[str]) -> dict[str, Any]:
    gone = {field for modality in absent for field in FIELDS[modality]}
    return {name: value for name, value in payload.items() if name not in gone}


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
    for found in service.predict(payload)["predictions"]:
        values = {*fields.values(), "abstained"} & found.keys()
        own = {"cluster", "probabilities"} if "cluster" in found else {fields[found["kind"]]}
        assert values in (own, {"abstained"})
        assert found["means"]
        if "probability" in found:
            assert 0 <= found["probability"] <= 1
        if "probabilities" in found:
            assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_a_number_is_the_graphs_own_unrounded(service, engine, payload):
    arrays = features(as_payload(payload), engine.bundle.manifest.spec).arrays
    outputs = engine.run([arrays])[0]
    predictions = {p["task"]: p for p in service.predict(payload)["predictions"]}
    for facts in engine.bundle.manifest.tasks:
        if facts.task.kind == "binary" and facts.abstains is None:
            expected = float(outputs[facts.output][facts.column])
            assert predictions[facts.task.name]["probability"] == pytest.approx(expected, abs=1e-6)


def test_a_task_that_abstains_says_why_and_gives_no_number(serve, changed_bundle, payload):
    def abstain(manifest: dict[str, Any], _: Path) -> None:
        manifest["tasks"][0]["abstains"] = "too few patients"

    engine = Engine(Bundle.load(changed_bundle(abstain), "cpu"))
    engine.replay_golden()
    first = serve(engine).predict(payload)["predictions"][0]
    assert first["abstained"] == {"reason": "too few patients"}
    assert "probability" not in first


def test_a_number_that_is_not_finite_becomes_an_abstention(engine, payload):
    manifest = engine.bundle.manifest
    found = features(as_payload(payload), manifest.spec)
    outputs = {name: np.full_like(v, math.nan) for name, v in engine.run([found.arrays])[0].items()}
    assert all(p.abstained for p in respond.predictions(outputs, found, manifest))
    assert respond.explanation(outputs, manifest, "full") is None


@pytest.mark.parametrize(
    "absent", [set(c) for n in range(4) for c in combinations(MODALITIES, n)], ids=str
)
def test_any_modality_may_be_absent(service, bundle, payload, absent):
    answer = service.predict(without(payload, absent))
    use = answer["receipt"]["modalities"]
    assert {m for m in use if use[m]["status"] == "absent"} == absent
    seen = {f.task.name: set(f.seen) for f in bundle.manifest.tasks}
    for found in answer["predictions"]:
        assert set(found["based_on"]) == (set(MODALITIES) - absent) & seen[found["task"]]


def test_what_an_absent_modality_would_say_does_not_matter(engine, payload):
    """The encoder of an absent modality is not run, whoever else is in the batch."""
    spec = engine.bundle.manifest.spec
    whole = features(as_payload(payload), spec).arrays
    part = features(as_payload(without(payload, {"notes", "image"})), spec).arrays
    alone = engine.run([part])[0]
    beside = engine.run([whole, part])[1]
    for name in alone:
        np.testing.assert_allclose(beside[name], alone[name], atol=1e-5)


def test_an_answer_does_not_depend_on_its_batch(service, payload):
    absent: list[set[str]] = [set(), {"notes"}, {"image", "series"}, {"tabular"}]
    items = [without(payload, one) for one in absent]
    batch = service.client.post("/predict/batch", json={"items": items}).json()["items"]
    for item, together in zip(items, batch, strict=True):
        for one, many in zip(
            service.predict(item)["predictions"], together["predictions"], strict=True
        ):
            assert one.get("probability") == pytest.approx(many.get("probability"), abs=1e-5)


def test_a_batch_keeps_its_order_and_answers_each_item_on_its_own(service, payload):
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


# ------------------------------------------------------------------------------ the explanation


def test_the_explanation_is_the_largest_weights_of_each_task(service, bundle, payload):
    full = service.predict(payload, explain="full")["explanation"]["attention"]
    names, weights = full["tasks"], np.array(full["weights"])
    assert names == [f.task.name for f in bundle.manifest.tasks]
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    short = service.predict(payload)["explanation"]["attention"]
    for i, (name, own) in enumerate(zip(names, short, strict=True)):
        assert own["task"] == name
        assert own["own"] == pytest.approx(weights[i, i], abs=1e-6)
        drawn = [d["weight"] for d in own["drawn_from"]]
        others = np.sort(np.delete(weights[i], i))[::-1][:5]
        np.testing.assert_allclose(drawn, others, atol=1e-6)
        assert name not in {d["task"] for d in own["drawn_from"]}


def test_the_explanation_can_be_left_out(service, payload):
    assert "explanation" not in service.predict(payload, explain="none")


# ---------------------------------------------------------------------------------- the receipt


def test_the_receipt_names_the_tasks_that_a_modality_is_hidden_from(service, bundle, payload):
    receipt = service.predict(payload)["receipt"]
    pointers = {"tabular": "/tabular", "series": "/series", "notes": "/notes", "image": "/images"}
    for modality in MODALITIES:
        blind = [f.task.name for f in bundle.manifest.tasks if modality not in f.seen]
        assert receipt["modalities"][modality]["hidden_from"] == blind
        hidden = [i["pointer"] for i in receipt["ignored"] if i["reason"] == "hidden_modality"]
        assert (pointers[modality] in hidden) == bool(blind)


def test_a_modality_that_no_task_sees_is_hidden_and_no_prediction_claims_it(
    serve, changed_bundle, payload
):
    def hide(manifest: dict[str, Any], _: Path) -> None:
        for facts in manifest["tasks"]:
            facts["seen"] = [m for m in facts["seen"] if m != "notes"]

    engine = Engine(Bundle.load(changed_bundle(hide), "cpu"))
    engine.replay_golden()
    answer = serve(engine).predict(payload)
    assert answer["receipt"]["modalities"]["notes"]["status"] == "hidden"
    assert all("notes" not in p["based_on"] for p in answer["predictions"])


def test_the_receipt_says_what_was_converted_and_what_was_used(service, payload):
    receipt = service.predict(payload)["receipt"]
    assert {"variable": "creatinine", "unit": "mg/dL", "observations": 2} in receipt["used"]
    assert receipt["converted"] == [
        {
            "pointer": "/series/1",
            "variable": "creatinine",
            "from_unit": "umol/L",
            "to_unit": "mg/dL",
        }
    ]


@pytest.mark.parametrize(
    ("admitted_at", "warned"),
    [
        ("2031-05-03T12:00:00Z", None),
        ("2031-05-04T11:00:00Z", "1 hours after admitted_at"),
        ("2031-04-04T12:00:00Z", "720 hours after admitted_at"),
        (None, "admitted_at is absent"),
    ],
)
def test_a_time_that_the_model_was_not_trained_for_is_warned_of(
    service, payload, admitted_at, warned
):
    payload["tabular"]["admitted_at"] = admitted_at
    warnings = service.predict(payload)["receipt"].get("warnings")
    assert (warned is None and not warnings) or warned in warnings[0]


def test_a_request_of_which_nothing_can_be_used_is_warned_of(service, payload):
    series = [{"variable": "aura", "times": [payload["as_of"]], "values": [1]}]
    answer = service.predict({"as_of": payload["as_of"], "series": series})
    assert all(p["based_on"] == [] for p in answer["predictions"])
    assert "nothing of the request could be used" in answer["receipt"]["warnings"][0]


def test_what_is_ignored_is_listed_by_pointer_and_reason(service, payload):
    times = payload["series"][0]["times"]
    payload["series"] += [
        {"variable": "aura", "unit": "1", "times": times, "values": [1, 2, 3]},
        {"variable": "sodium", "unit": "mmol/L", "times": times, "values": [140, 1e6, 141]},
    ]
    payload["treatments"].append({"name": "bloodletting", "start": times[0]})
    payload["tabular"]["unit_type"] = "attic"
    payload["tabular"]["age"] = 999
    ignored = service.predict(payload)["receipt"]["ignored"]
    assert {
        ("/series/2", "unknown_variable"),
        ("/series/3/values", "implausible_value"),
        ("/treatments/1", "unknown_treatment"),
        ("/tabular/unit_type", "unknown_category"),
        ("/tabular/age", "implausible_value"),
    } <= {(i["pointer"], i["reason"]) for i in ignored}


def test_an_answer_holds_no_null_and_no_trace_of_who_the_patient_is(service, payload):
    payload["patient_id"] = "Jane Roe 1957"
    answer = service.client.post("/predict", json=payload)
    assert "null" not in answer.text
    assert "Jane Roe" not in answer.text + service.written()


def test_an_answer_says_how_long_each_stage_took(service, payload):
    timing = service.predict(payload)["timing_ms"]
    assert set(timing) == {"parse", "features", "model", "respond"}
    assert all(ms > 0 for ms in timing.values())


def test_the_event_loop_is_free_while_a_prediction_runs(serve, engine, payload, monkeypatch):
    """A slow model does not hold up the health check."""
    entered, leave = Event(), Event()
    run = engine.run

    def slow(samples: Any) -> Any:
        entered.set()
        leave.wait(10)
        return run(samples)

    monkeypatch.setattr(engine, "run", slow)
    client = serve(engine).client
    with ThreadPoolExecutor(1) as pool:
        prediction = pool.submit(client.post, "/predict", json=payload)
        assert entered.wait(10)
        assert client.get("/health/live").status_code == 200
        leave.set()
        assert prediction.result().status_code == 200


def test_strict_passes_what_loses_nothing(serve, changed_bundle, payload):
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
