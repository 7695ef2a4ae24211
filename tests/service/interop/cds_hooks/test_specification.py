"""The documents hold to the tables of the CDS Hooks specification, and its examples are read."""

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from service.interop.cds_hooks.models import (
    Context,
    Feedback,
    HookRequest,
    ServiceDescription,
)
from tests.service.interop.cds_hooks.conftest import FULL, RESULT
from tests.support.inputs import hook_calls
from tests.support.servers.refusals import assert_refused

HOOKS = ("patient-view", "encounter-start", "encounter-discharge")
_EXAMPLE = re.compile(r"```json\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def specification(open_data) -> Path:
    return open_data("cds-hooks") / "cds-hooks"


def examples(folder: Path) -> list[tuple[str, Any]]:
    """The JSON files, and the JSON blocks of the specification, with their names."""
    found = [(path.name, json.loads(path.read_bytes())) for path in sorted(folder.glob("*.json"))]
    for number, text in enumerate(_EXAMPLE.findall((folder / "current.md").read_text())):
        body = re.sub(r"^POST .*$|(?<!:)//.*$", "", text, flags=re.MULTILINE)
        try:
            found.append((f"current.md, block {number}", json.loads(body)))
        except ValueError:
            continue  # a part of a document
    return found


def test_every_example_of_a_call_is_read(specification):
    calls = [(name, e) for name, e in examples(specification) if "hookInstance" in e]
    assert len(calls) >= 4
    for name, example in calls:
        if "patientId" in example["context"]:
            assert HookRequest.model_validate(example).hook == example["hook"], name


@pytest.mark.parametrize("hook", HOOKS)
def test_every_example_of_a_context_is_read(specification, hook):
    blocks = _EXAMPLE.findall((specification / f"{hook}.md").read_text())
    assert blocks
    for block in blocks:
        Context.model_validate(json.loads(f"{{{block}}}")["context"])


def test_every_example_of_a_service_is_read(specification):
    described = [s for _, e in examples(specification) for s in e.get("services", ())]
    assert len(described) >= 8
    for service in described:
        known = {k: v for k, v in service.items() if k in ServiceDescription.model_fields}
        defaults = {"title": "", "prefetch": {}, "usageRequirements": ""}
        assert ServiceDescription.model_validate(defaults | known)


def test_every_example_of_feedback_is_read(specification):
    sent = [e for _, e in examples(specification) if "feedback" in e]
    assert len(sent) >= 2
    for example in sent:
        assert Feedback.model_validate(example).feedback


def test_an_example_call_is_refused_because_it_lacks_the_prefetch(specification, cds):
    example = json.loads((specification / "current-1.json").read_bytes())
    missing = [(f"/prefetch/{key}", "required") for key in hook_calls.KEYS.values()]
    assert_refused(cds.service, cds.post(example), 412, *missing)


def test_an_example_call_without_a_patient_is_refused(specification, cds):
    example = json.loads((specification / "current-22.json").read_bytes())
    assert_refused(cds.service, cds.post(example), 422, ("/context/patientId", "required"))


def test_discovery_lists_a_service_for_each_hook(cds):
    answer = cds.service.client.get("/cds-services")
    assert answer.status_code == 200
    services = answer.json()["services"]
    assert [service["hook"] for service in services] == list(HOOKS)
    assert len({service["id"] for service in services}) == len(HOOKS)
    for service in services:
        for field in ("hook", "title", "description", "id", "usageRequirements"):
            assert isinstance(service[field], str)
            assert service[field]
        assert set(service["prefetch"]) == set(hook_calls.KEYS.values())


@pytest.mark.parametrize("hook", HOOKS)
def test_prefetch_templates_use_the_recommended_subset(cds, hook):
    (service,) = [
        s for s in cds.service.client.get("/cds-services").json()["services"] if s["hook"] == hook
    ]
    tokens = {"{{context.patientId}}"}
    if hook != "patient-view":  # whose context need not have an Encounter
        tokens.add("{{context.encounterId}}")
    for template in service["prefetch"].values():
        assert set(re.findall(r"\{\{.*?\}\}", template)) <= tokens
        assert re.findall(r"\{\{.*?\}\}", template)
        path, _, query = template.partition("?")
        assert re.fullmatch(r"[A-Z][A-Za-z]+(/\{\{context\.\w+\}\})?", path)
        for parameter in filter(None, query.split("&")):
            name, _, value = parameter.partition("=")
            assert name in ("patient", "status", "_sort", "_count")
            assert value


def test_the_settings_reduce_the_prefetch(serve, engine, call):
    service = serve(engine, cds_prefetch=["observations"])
    described = service.client.get("/cds-services").json()["services"]
    assert all(set(s["prefetch"]) == {"patient", "encounter", "observations"} for s in described)
    for key in ("medications", "procedures", "reports", "documents", "media"):
        del call["prefetch"][key]
    answer = service.client.post("/cds-services/m3h-patient-view", json=call)
    assert answer.status_code == 200


def has_no_null(value: Any) -> bool:
    """Whether no element is null or empty (CDS Hooks, "Null and empty JSON elements")."""
    if isinstance(value, dict):
        return bool(value) and all(map(has_no_null, value.values()))
    if isinstance(value, list):
        return bool(value) and all(map(has_no_null, value))
    return value not in (None, "")


@pytest.mark.parametrize("hook", HOOKS)
def test_every_field_of_a_card_holds_to_its_table(serve, engine, hook):
    service = serve(engine, cds_url="https://m3h.example/api", cds_repeat_minutes=0)
    call = hook_calls.call(FULL, hook)
    if hook != "patient-view":
        call["prefetch"]["encounter"] = call["prefetch"]["encounter"]["entry"][0]["resource"]
    answer = service.client.post(f"/cds-services/m3h-{hook}", json=call)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"cards", "extension"}
    assert 1 <= len(body["cards"]) <= 3
    assert has_no_null(body)
    identifiers = [card["uuid"] for card in body["cards"]]
    assert len(set(identifiers)) == len(identifiers)
    for card in body["cards"]:
        assert_card(card)


def assert_card(card: dict[str, Any]) -> None:
    assert str(uuid.UUID(card["uuid"])) == card["uuid"]
    assert 0 < len(card["summary"]) < 140
    assert "\n" not in card["summary"]
    assert card["indicator"] in ("info", "warning", "critical")
    source = card["source"]
    assert source["label"]
    assert source["url"] == "https://m3h.example/api/model-card"
    assert set(source["topic"]) == {"code", "system", "display"}
    (suggestion,) = card["suggestions"]
    assert set(suggestion) == {"label", "uuid"}
    assert card["selectionBehavior"] == "at-most-one"
    for reason in card["overrideReasons"]:
        assert set(reason) == {"code", "system", "display"}
    (link,) = card["links"]
    assert link == {"label": "Dashboard", "url": "https://m3h.example/api/", "type": "absolute"}


def test_without_the_url_of_the_service_a_card_has_no_links(repeating, call):
    for card in repeating.cards(call)["cards"]:
        assert "links" not in card
        assert "url" not in card["source"]


def test_the_time_of_the_prediction_is_that_of_the_call_unless_it_states_another(repeating, call):
    stated = repeating.cards(call)["extension"][RESULT]["as_of"]
    assert stated.startswith("2031-05-04T12:00:00")
    del call["extension"]
    # The data are of a later time than the call, and are not read.
    expected = ("/prefetch", "no_recent_data")
    assert_refused(repeating.service, repeating.post(call), 412, expected)
