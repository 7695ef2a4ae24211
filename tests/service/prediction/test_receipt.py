"""The receipt: used, converted and ignored input, unusual scores and warnings."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas.response import MODALITIES, ModalityUse
from service.prediction.receipt import complete_receipt
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from tests.support.inputs.modality_subsets import without


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
