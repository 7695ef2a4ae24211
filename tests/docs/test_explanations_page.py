"""The figures of the worked example of docs/explanations.md are those of the service."""

import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanations.md").read_text(encoding="utf-8")
SHOWN = [json.loads(body) for body in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


@pytest.fixture(scope="module")
def answer():
    engine = Engine(Bundle.load(ROOT / "bundles" / "m3h-open", "cpu"))
    engine.replay_golden()
    body = (ROOT / "examples" / "septic_shock.json").read_bytes()
    headers = {"Content-Type": "application/json"}
    with TestClient(create_app(engine, Settings())) as client:
        return client.post("/predict?explain=full", content=body, headers=headers).json()


def test_the_shown_numbers_are_predicted(answer):
    predictions = {prediction["task"]: prediction for prediction in answer["predictions"]}
    for task, shown in SHOWN[0].items():
        for name, value in shown.items():
            assert predictions[task][name] == pytest.approx(value, abs=0.006)
    interval = predictions["septic_shock"]["interval"]
    assert (interval["low"], interval["high"]) == pytest.approx((0.41, 1.0), abs=0.006)


def test_the_shown_reasons_are_returned(answer):
    reasons = answer["explanation"]
    assert reasons["modalities"]["pneumonia"] == pytest.approx(SHOWN[1], abs=0.0006)
    assert reasons["modalities"]["sepsis"]["image"] == 0
    (entry,) = [entry for entry in reasons["variables"] if entry["task"] == "septic_shock"]
    contributions = {part["name"]: part["contribution"] for part in entry["because"]}
    assert list(contributions) == list(SHOWN[2])
    assert contributions == pytest.approx(SHOWN[2], abs=0.0006)
    sepsis = reasons["attention"]["tasks"].index("sepsis")
    weights = sorted(reasons["attention"]["weights"][sepsis])
    assert weights[-1] == pytest.approx(0.665, abs=0.005)
    assert weights[-2] == pytest.approx(0.0091, abs=0.0005)
