"""The CDS Services of the shipped bundle, and of one with measured operating points."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from tests.service.conftest import png
from tests.support.inputs import fhir_bundles as make
from tests.support.inputs import hook_calls
from tests.support.servers.http_client import JSON

FULL = hook_calls.with_patient_id(make.full_stay(png(24, 20))[0])
RESULT = "urn:m3h:result"


class Cds:
    """Sends calls to a running app."""

    def __init__(self, service: Any) -> None:
        self.service = service

    def post(self, body: Any, service_id: str | None = None, **headers: str) -> Any:
        hook = body.get("hook", "patient-view") if isinstance(body, dict) else "patient-view"
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        path = f"/cds-services/{service_id or f'm3h-{hook}'}"
        return self.service.client.post(path, content=content, headers=JSON | headers)

    def cards(self, body: Any) -> dict[str, Any]:
        answer = self.post(body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def feedback(self, *parts: Any) -> Any:
        path = "/cds-services/m3h-patient-view/feedback"
        return self.service.client.post(path, json={"feedback": parts})


def tasks_of(response: dict[str, Any], outcome: str = "shown") -> list[str]:
    return response["extension"][RESULT].get(outcome, [])


def without_ids(response: dict[str, Any]) -> dict[str, Any]:
    """The response without the identifiers, which are new in each."""
    plain = copy.deepcopy(response)
    for card in plain["cards"]:
        del card["uuid"], card["suggestions"][0]["uuid"]
    return plain


@pytest.fixture
def cds(serve: Callable[..., Any], engine: Engine) -> Cds:
    """An app that has not shown a card yet."""
    return Cds(serve(engine))


@pytest.fixture(scope="session")
def repeating(serve: Callable[..., Any], engine: Engine) -> Cds:
    """An app that shows unchanged cards again."""
    return Cds(serve(engine, cds_repeat_minutes=0, max_body_bytes=32 * 2**20))


@pytest.fixture(scope="session")
def with_decisions(
    serve: Callable[..., Any], changed_bundle: Callable[..., Any]
) -> Callable[..., Cds]:
    """Serves a bundle whose report has these decision points: by task, by name, the figures."""

    def start(by_task: dict[str, Any], **settings: Any) -> Cds:
        def edit(manifest: dict[str, Any], _: Any) -> None:
            points = {task: {"points": figures} for task, figures in by_task.items()}
            manifest["evaluation"]["decisions"] = {"all": {"by_task": points}}
            for served in manifest["tasks"]:
                served["sets"] = None

        engine = Engine(Bundle.load(changed_bundle(edit), "cpu", threads=1))
        engine.replay_golden()
        return Cds(serve(engine, **settings))

    return start


@pytest.fixture
def call() -> dict[str, Any]:
    """A call with data of all kinds, for the test to change."""
    return hook_calls.call(copy.deepcopy(FULL))
