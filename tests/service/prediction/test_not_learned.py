"""Inputs without influence: the receipt and the list of variables say that nothing was learned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.bundle_files import BundleError
from schemas.response import Answer
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine

NOT_LEARNED = {"variables": ["creatinine", "lipase"], "treatments": ["norepinephrine", "rifaximin"]}


@pytest.fixture(scope="module")
def with_not_learned(changed_bundle) -> Callable[[Any], Path]:
    def change(value: Any) -> Path:
        def edit(manifest: dict[str, Any], _: Path) -> None:
            manifest.pop("not_learned", None)
            if value is not None:
                manifest["not_learned"] = value

        return changed_bundle(edit)

    return change


@pytest.fixture(scope="module")
def served(serve, with_not_learned) -> Callable[[Any], Any]:
    def start(value: Any) -> Any:
        engine = Engine(Bundle.load(with_not_learned(value), "cpu"))
        engine.replay_golden()
        return serve(engine)

    return start


@pytest.fixture(scope="module")
def measured(served) -> Any:
    return served(NOT_LEARNED)


def test_the_receipt_lists_the_inputs_of_the_request_that_were_not_learned(measured, payload):
    answer = measured.predict(payload)
    Answer.model_validate(answer)
    assert answer["receipt"]["not_learned"] == {
        "variables": ["creatinine"],
        "treatments": ["norepinephrine"],
    }


def test_a_receipt_without_such_inputs_has_no_list(measured, payload):
    payload["series"], payload["treatments"] = payload["series"][:1], []
    assert "not_learned" not in measured.predict(payload)["receipt"]


def test_inputs_that_were_not_learned_are_accepted_by_strict(measured, served, payload):
    url = "/predict?strict=true"
    status = served(None).client.post(url, json=payload).status_code
    assert measured.client.post(url, json=payload).status_code == status


def test_the_list_of_variables_says_what_was_not_learned(measured):
    body = measured.client.get("/variables").json()
    for kind in ("variables", "treatments"):
        assert all(isinstance(entry["learned"], bool) for entry in body[kind])
        names = [entry["name"] for entry in body[kind] if not entry["learned"]]
        assert sorted(names) == sorted(NOT_LEARNED[kind])


def test_a_bundle_without_the_measurement_claims_nothing(served, payload):
    service = served(None)
    body = service.client.get("/variables").json()
    assert not any("learned" in entry for entry in (*body["variables"], *body["treatments"]))
    assert "not_learned" not in service.predict(payload)["receipt"]


def test_a_bundle_in_which_everything_was_learned_says_so(served, payload):
    service = served({})
    body = service.client.get("/variables").json()
    assert all(entry["learned"] for entry in (*body["variables"], *body["treatments"]))
    assert "not_learned" not in service.predict(payload)["receipt"]


@pytest.mark.parametrize("field", ["variables", "treatments"])
def test_a_bundle_that_names_an_unknown_input_is_refused(with_not_learned, field):
    with pytest.raises(BundleError, match="not_learned: no variable or treatment is named aura"):
        Bundle.load(with_not_learned({field: ["aura"]}), "cpu")
