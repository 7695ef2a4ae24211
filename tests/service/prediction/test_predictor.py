"""Predictions, their uncertainty, and the receipt."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import orjson
import pytest

from schemas.features import Features, extract_features
from schemas.manifest import ConformalSets, Manifest, Phenotype, VennAbersCurve
from schemas.payload import as_payload
from schemas.response import MODALITIES, Answer, ModalityUse, Prediction, Receipt
from service.prediction.phenotypes import describe_phenotypes
from service.prediction.receipt import complete_receipt, with_unusual_scores
from service.prediction.response import build_predictions, build_task_fields
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine, Outputs

FIELDS = {"tabular": ("tabular",), "series": ("series", "treatments")}
FIELDS |= {"notes": ("notes",), "image": ("images",)}


def joined(names: set[str]) -> str:
    """The id of a test's case; a set's own text has another order in each process."""
    return "+".join(sorted(names)) or "none"


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
    assert first["abstained"] == {"reason": "too few patients"}
    assert "probability" not in first


def test_a_task_without_a_finite_number_abstains(computed):
    nan = {name: np.full_like(values, math.nan) for name, values in computed.outputs.fusion.items()}
    outputs = replace(computed.outputs, fusion=nan)
    assert all(p.abstained for p in computed.answer(outputs=outputs).values())


@pytest.mark.parametrize(
    "absent", [set(c) for n in range(4) for c in combinations(MODALITIES, n)], ids=joined
)
def test_any_modality_may_be_absent(service, bundle, payload, absent):
    answer = service.predict(without(payload, absent))
    use = answer["receipt"]["modalities"]
    assert {m for m in use if use[m]["status"] == "absent"} == absent
    seen = {f.task.name: set(f.visible_modalities) for f in bundle.manifest.tasks}
    for found in answer["predictions"]:
        assert set(found["based_on"]) == (set(MODALITIES) - absent) & seen[found["task"]]


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
    absent: list[set[str]] = [set(), {"notes"}, {"image", "series"}, {"tabular"}]
    items = [without(payload, one) for one in absent]
    batch = service.client.post("/predict/batch", json={"items": items}).json()["items"]
    for item, together in zip(items, batch, strict=True):
        for one, many in zip(
            service.predict(item)["predictions"], together["predictions"], strict=True
        ):
            assert one.get("probability") == pytest.approx(many.get("probability"), abs=1e-5)
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


# --------------------------------------------------------------------------------- uncertainty


@dataclass
class Computed:
    """The features and outputs of one patient, from which answers with changes are built."""

    features: Features
    outputs: Outputs
    manifest: Manifest

    def answer(self, outputs: Outputs | None = None, **changed: Any) -> dict[str, Prediction]:
        """The predictions by task. `changed`: fields of all tasks in the manifest."""
        tasks = tuple(facts.model_copy(update=changed) for facts in self.manifest.tasks)
        manifest = self.manifest.model_copy(update={"tasks": tasks})
        task_fields = build_task_fields(manifest, list(self.features.arrays))
        fields = build_predictions(outputs or self.outputs, manifest, task_fields, {})
        predictions = [Prediction.model_validate_json(orjson.dumps(one)) for one in fields]
        return {prediction.task: prediction for prediction in predictions}

    def unusual(self, **scores: float) -> Receipt:
        """The receipt for other unusual scores."""
        receipt = complete_receipt(self.features, self.manifest)
        return with_unusual_scores(receipt, replace(self.outputs, unusual=scores))


@pytest.fixture
def computed(engine, payload) -> Computed:
    extracted = extract_features(as_payload(payload), engine.bundle.manifest.spec)
    outputs = engine.run([extracted.arrays])[0]
    return Computed(extracted, outputs, engine.bundle.manifest)


@pytest.mark.parametrize("absent", [set(), {"notes", "image"}, {"tabular", "series"}], ids=joined)
def test_each_probability_and_value_lies_inside_its_interval(service, payload, absent):
    for found in service.predict(without(payload, absent))["predictions"]:
        number = found.get("probability", found.get("value"))
        assert ("interval" in found) == (number is not None)
        if number is not None:
            assert found["interval"]["low"] <= number <= found["interval"]["high"]


def test_a_probability_has_the_interval_of_the_scores_around_it(computed):
    steps = VennAbersCurve(scores=(0.0, 1.0), low=(0.0, 0.7), high=(0.1, 1.0))
    for found in computed.answer(interval=steps).values():
        if found.kind == "binary" and not found.abstained:
            assert found.interval.low == 0.0
            assert found.interval.high == 1.0
    assert all(p.interval is None for p in computed.answer(interval=None).values() if p.probability)


def test_rounding_in_the_graph_does_not_put_a_value_outside_its_interval(computed):
    beside = np.array([2, np.nextafter(np.float32(2), 3), 1.5], dtype=np.float32)
    fusion = computed.outputs.fusion | {"length_of_stay": beside}
    found = computed.answer(replace(computed.outputs, fusion=fusion))["length_of_stay"]
    assert (found.interval.low, found.value, found.interval.high) == (2, 2, 2)


def test_each_classification_has_a_conformal_set_or_a_reason_for_none(service, bundle, payload):
    classes = {f.task.name: f.task.classes or ("no", "yes") for f in bundle.manifest.tasks}
    for found in service.predict(payload)["predictions"]:
        choice = found["kind"] in ("binary", "multiclass") and "abstained" not in found
        assert len({"set", "no_set"} & found.keys()) == choice
        assert set(found.get("set", ())) <= set(classes[found["task"]])


@pytest.mark.parametrize(
    ("no", "yes", "expected"),
    [(0.0, 0.0, ("no", "yes")), (1.0, 1.0, ()), (0.0, 1.0, ("no",)), (1.0, 0.0, ("yes",))],
)
def test_a_set_contains_the_classes_that_reach_their_threshold(computed, no, yes, expected):
    classes = (name for facts in computed.manifest.tasks for name in facts.task.classes)
    sets = ConformalSets(thresholds=dict.fromkeys(classes, 0.0) | {"no": no, "yes": yes})
    for found in computed.answer(sets=sets).values():
        if found.kind == "binary" and not found.abstained:
            assert found.set == expected


def test_a_probability_equal_to_the_threshold_reaches_it(computed):
    before = computed.answer()["discharge_disposition"].probabilities
    sets = ConformalSets(thresholds=before | {"no": 0.0, "yes": 0.0})
    assert computed.answer(sets=sets)["discharge_disposition"].set == tuple(before)


def test_the_reason_of_a_missing_set_is_in_the_answer(computed):
    for found in computed.answer(sets=ConformalSets(reason="only 3 patients")).values():
        choice = found.kind in ("binary", "multiclass") and not found.abstained
        assert found.no_set == ("only 3 patients" if choice else None)
        assert found.set is None


def test_a_task_that_abstains_has_no_interval_and_no_set(computed):
    for found in computed.answer(abstains="too few patients").values():
        assert found.abstained
        assert found.interval is found.set is found.no_set is found.description is None


def test_a_phenotype_has_the_description_of_the_bundle(service, bundle, payload):
    (found,) = (p for p in service.predict(payload)["predictions"] if p["kind"] == "clustering")
    words = describe_phenotypes(bundle.manifest)
    assert found["description"] == words[found["cluster"]]


def test_a_phenotype_is_described_by_its_variables_and_tasks(bundle):
    told = Phenotype(
        cluster=2,
        share=0.123,
        distinguished_by={"creatinine": 1.74, "ph": -0.6, "sodium": 0.1},
        more_often={"chronic_kidney_disease": 1.84, "sepsis": 0.5, "asthma": 1.1},
    )
    plain = Phenotype(cluster=3, share=0.5, distinguished_by={"sodium": 0.0})
    empty = Phenotype(cluster=4, share=0, distinguished_by={"sodium": 0.0})
    manifest = bundle.manifest.model_copy(update={"phenotypes": (told, plain, empty)})
    assert describe_phenotypes(manifest) == {
        2: "12 % of the patients; high creatinine; low Blood pH; "
        "1.8 times as often chronic kidney disease; 0.5 times as often sepsis",
        3: "50 % of the patients; like the average patient",
        4: "none of the patients that the phenotypes were described with",
    }


# ---------------------------------------------------------------------------------- the receipt


def test_the_receipt_lists_the_tasks_that_a_modality_is_hidden_from(service, bundle, payload):
    receipt = service.predict(payload)["receipt"]
    pointers = {"tabular": "/tabular", "series": "/series", "notes": "/notes", "image": "/images"}
    for modality in MODALITIES:
        blind = [f.task.name for f in bundle.manifest.tasks if modality not in f.visible_modalities]
        assert receipt["modalities"][modality]["hidden_from"] == blind
        hidden = [i["pointer"] for i in receipt["ignored"] if i["reason"] == "hidden_modality"]
        assert (pointers[modality] in hidden) == bool(blind)


def test_a_modality_hidden_from_all_tasks_is_in_no_prediction(serve, changed_bundle, payload):
    def hide(manifest: dict[str, Any], _: Path) -> None:
        for facts in manifest["tasks"]:
            facts["seen"] = [m for m in facts["seen"] if m != "notes"]

    engine = Engine(Bundle.load(changed_bundle(hide), "cpu"))
    engine.replay_golden()
    answer = serve(engine).predict(payload)
    assert answer["receipt"]["modalities"]["notes"]["status"] == "hidden"
    assert "unusual" not in answer["receipt"]["modalities"]["notes"]
    assert all("notes" not in p["based_on"] for p in answer["predictions"])


def test_the_receipt_has_the_unusual_score_of_each_used_modality(service, payload):
    use = service.predict(without(payload, {"image"}))["receipt"]["modalities"]
    assert "unusual" not in use["image"]
    for modality in ("tabular", "series", "notes"):
        assert 0 <= use[modality]["unusual"] <= 1


def test_the_receipt_warns_of_an_unusual_modality(computed):
    before = complete_receipt(computed.features, computed.manifest).warnings
    receipt = computed.unusual(tabular=0.99, notes=0.995, image=1.0)
    assert receipt.modalities["notes"].unusual == 0.995
    assert receipt.warnings == (
        *before,
        "the notes are unlike those of 99 % of the training patients: read with caution",
        "the image is unlike those of 99 % of the training patients: read with caution",
    )


def test_the_graph_does_not_change_an_unusual_score_of_feature_extraction(computed):
    modalities = computed.features.receipt.modalities | {
        "notes": ModalityUse(status="used", unusual=1.0)
    }
    warnings = ("the notes are in another language",)
    update = {"modalities": modalities, "warnings": warnings}
    receipt = computed.features.receipt.model_copy(update=update)
    changed = replace(computed.features, receipt=receipt)
    for score in (0.1, 0.995):
        receipt = replace(computed, features=changed).unusual(notes=score)
        assert receipt.modalities["notes"].unusual == 1.0
        assert [w for w in receipt.warnings if "notes" in w] == [*warnings]


def test_an_unusual_score_that_is_not_finite_is_left_out(computed):
    assert computed.unusual(notes=math.nan).modalities["notes"].unusual is None


def test_the_receipt_warns_of_impossible_vital_signs(service, payload):
    variables = service.client.get("/variables").json()["variables"]
    payload["series"] = [
        {
            "variable": v["name"],
            "unit": v["units"][0],
            "times": [payload["as_of"]],
            "values": [v["plausible"][i % 2]],
        }
        for i, v in enumerate(variables)
    ]
    receipt = service.predict(payload)["receipt"]
    assert any(warning.startswith("the series") for warning in receipt["warnings"])


def test_the_receipt_lists_used_variables_and_conversions(service, payload):
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
def test_the_receipt_warns_of_a_time_outside_the_training(service, payload, admitted_at, warned):
    payload["tabular"]["admitted_at"] = admitted_at
    warnings = service.predict(payload)["receipt"]["warnings"]
    of_time = [warning for warning in warnings if "admitted_at" in warning]
    assert (warned is None and not of_time) or warned in of_time[0]


def test_the_receipt_warns_if_no_input_can_be_used(service, payload):
    series = [{"variable": "aura", "times": [payload["as_of"]], "values": [1]}]
    answer = service.predict({"as_of": payload["as_of"], "series": series})
    assert all(p["based_on"] == [] for p in answer["predictions"])
    assert "nothing of the request could be used" in answer["receipt"]["warnings"][0]


def test_the_receipt_lists_ignored_input_by_pointer_and_reason(service, payload):
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

    def slow(*asked: Any) -> Any:
        entered.set()
        leave.wait(60)
        return run(*asked)

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
