"""Real MIMIC-IV patients: any subset of modalities gives 44 predictions."""

import itertools
import json
from itertools import islice
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from model.cohorts import mimic_iv, nih_cxr
from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings
from tests.support.inputs import fhir_bundles

PARTS = {
    "tabular": ("tabular",),
    "series": ("series", "treatments"),
    "notes": ("notes",),
    "images": ("images",),
}
SUBSETS = [subset for size in range(1, 5) for subset in itertools.combinations(PARTS, size)]


@pytest.fixture(scope="module")
def client():
    bundle = Path(__file__).parents[1] / "bundles" / "m3h-open"
    engine = Engine(Bundle.load(bundle))
    engine.replay_golden()
    with TestClient(create_app(engine, Settings(bundle=bundle))) as client:
        yield client


@pytest.fixture(scope="module")
def patient(open_data):
    """A MIMIC-IV stay at 24 h, with a note and an X-ray of others, which the demo lacks."""
    data = open_data("mimic-iv-demo-2.2", "mimic-iv-demo-meds-0.0.1", "nih-cxr")
    record = next(r for r in mimic_iv.read(data) if r.landmark_hours == 24)
    request = json.loads(record.payload.model_dump_json(exclude_unset=True))
    image = json.loads(next(iter(nih_cxr.read(data))).payload.model_dump_json())["images"][0]
    request["images"] = [image | {"time": request["as_of"]}]
    text = "Admitted with shortness of breath and fever, productive cough for three days."
    request["notes"] = [{"kind": "admission", "time": request["as_of"], "text": text}]
    return request


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_every_subset_of_the_modalities_gets_44_predictions_or_abstentions(client, patient, subset):
    names = [part for name in subset for part in PARTS[name]]
    request = {"as_of": patient["as_of"]} | {n: patient[n] for n in names if n in patient}
    answer = client.post("/predict", json=request)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert len(body["predictions"]) == 44
    used = {m for m, use in body["receipt"]["modalities"].items() if use["status"] == "used"}
    assert used == {"image" if name == "images" else name for name in subset}
    values = {p["task"]: p for p in body["predictions"]}
    abstained = {task for task, p in values.items() if "abstained" in p}
    if subset == ("images",):  # the tasks that learned nothing from images
        learned = {"pneumonia", "copd", "pleural_effusion"}
        assert abstained == values.keys() - learned
        assert {values[t]["abstained"]["code"] for t in abstained} == {"no_input"}
        return
    assert not abstained
    assert values["septic_shock"]["probability"] <= values["sepsis"]["probability"]
    died = values["discharge_disposition"]["probabilities"]["died"]
    assert died == pytest.approx(values["in_hospital_mortality"]["probability"], abs=1e-6)


def test_real_patients_have_no_unknown_inputs(client, open_data):
    data = open_data("mimic-iv-demo-2.2", "mimic-iv-demo-meds-0.0.1")
    for record in islice(mimic_iv.read(data), 8):
        body = record.payload.model_dump_json(exclude_unset=True)
        answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200, answer.text
        reasons = {entry["reason"] for entry in answer.json()["receipt"]["ignored"]}
        assert not reasons & {"unknown_variable", "unknown_treatment", "unknown_category"}


def test_an_xray_changes_only_tasks_with_image_labels(client, patient):
    with_image = client.post("/predict", json=patient).json()
    without = {name: part for name, part in patient.items() if name != "images"}
    without_image = client.post("/predict", json=without).json()

    def numbers(answer):
        return {p["task"]: p["probability"] for p in answer["predictions"] if "probability" in p}

    before, after = numbers(without_image), numbers(with_image)
    moved = {task for task in before if abs(before[task] - after[task]) > 1e-6}
    assert moved == {"pleural_effusion", "pneumonia", "copd"}
    hidden = with_image["receipt"]["modalities"]["image"]["hidden_from"]
    assert len(hidden) == 41


def test_a_bundle_of_a_real_patient_gives_equal_predictions(client, patient):
    native = client.post("/predict", json=fhir_bundles.with_measured_weight(patient))
    body = json.dumps(fhir_bundles.from_payload(patient))
    headers = {"Content-Type": "application/fhir+json"}
    answer = client.post("/fhir/$predict", content=body, headers=headers)
    assert answer.status_code == native.status_code == 200, answer.text
    outcomes = [e["resource"] for e in answer.json()["entry"] if "code" in e["resource"]]
    found = {r["code"]["coding"][0]["code"]: r for r in outcomes}
    assert len(found) == 44
    for prediction in native.json()["predictions"]:
        if "probability" in prediction:
            (served,) = found[prediction["task"]]["prediction"]
            assert served["probabilityDecimal"] == prediction["probability"], prediction["task"]
