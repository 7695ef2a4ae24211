"""The OpenAPI document: complete, current, compatible with the last release, with examples."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from service.http.app import create_app
from service.settings import Settings

CURRENT = Path(__file__).parents[3] / "docs" / "openapi.json"
RELEASED = Path(__file__).with_name("released_openapi.json")

# Keys that describe an interface without defining it.
DESCRIPTIVE = {"title", "description", "summary", "tags", "operationId", "example", "examples"}


@pytest.fixture(scope="module")
def document(engine, bundle_dir) -> dict[str, Any]:
    return create_app(engine, Settings(bundle=bundle_dir)).openapi()


def removed(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """The paths, methods, parameters, fields and enum values of `old` that `new` lacks."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            if key in DESCRIPTIVE and not at.endswith("/properties"):
                continue
            if key not in new:
                yield f"{at}/{key}"
            elif key != "required":
                yield from removed(value, new[key], f"{at}/{key}")
    elif at.endswith("/parameters"):
        yield from removed(by_name(old), by_name(new), at)
    elif isinstance(old, list) and isinstance(new, list):
        yield from (f"{at}: {value}" for value in old if not any(contains(n, value) for n in new))
    elif at.rpartition("/")[2] in ("type", "$ref", "const", "format") and old != new:
        yield f"{at}: {old}"


def by_name(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {f"{p['in']} {p['name']}": p for p in parameters}


def contains(new: Any, old: Any) -> bool:
    return new == old or (isinstance(old, dict) and not any(removed(old, new)))


def test_the_document_in_docs_is_current(document):
    assert json.loads(CURRENT.read_text(encoding="utf-8")) == document, "run scripts/openapi"


def test_nothing_of_the_last_release_is_removed(document):
    released = json.loads(RELEASED.read_text(encoding="utf-8"))
    assert [*removed(released["paths"], document["paths"])] == []
    assert [*removed(released["components"], document["components"])] == []


@pytest.mark.parametrize(
    "path",
    [
        ("paths", "/predict", "post"),
        ("components", "schemas", "Prediction", "properties", "interval"),
        ("components", "schemas", "Image", "properties", "media_type", "enum", 0),
    ],
)
def test_a_removal_is_detected(document, path):
    changed = json.loads(json.dumps(document))
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    del parent[path[-1]]
    assert [*removed(document, changed)] != []


def media_types(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The media types of all requests and 2xx and 4xx responses, with names."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = f"{method.upper()} {path}"
            for kind, media in operation.get("requestBody", {}).get("content", {}).items():
                yield f"{name} request", kind, media
            for status, response in operation["responses"].items():
                if status[0] in "24":
                    assert response.get("content"), f"{name} {status} has no content"
                    for kind, media in response["content"].items():
                        yield f"{name} {status}", kind, media


def test_every_request_and_response_has_a_valid_example(document):
    for name, kind, media in media_types(document):
        assert "example" in media, f"{name} {kind}"
        schema = media["schema"] | {"components": document["components"]}
        errors = [e.message for e in Draft202012Validator(schema).iter_errors(media["example"])]
        assert errors == [], f"{name} {kind}"


def test_the_example_requests_are_answered(document, service):
    for path in ("/predict", "/predict/batch"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert service.client.post(path, json=body["example"]).status_code == 200


def test_openapi_documents_the_bodies_and_the_problems(service):
    document = service.client.get("/openapi.json").json()
    operation = document["paths"]["/predict"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Payload"}
    ok = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert ok == {"$ref": "#/components/schemas/Answer"}
    for status in ("400", "408", "413", "415", "422", "503", "504"):
        content = operation["responses"][status]["content"]
        assert content.keys() == {"application/problem+json"}
        schema = content["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}
    names = {"explain", "task", "strict", "M3H-Priority", "M3H-Deadline-Ms"}
    assert {p["name"] for p in operation["parameters"]} == names
    assert set(document["paths"]) == {
        "/predict",
        "/predict/batch",
        "/usage",
        "/tasks",
        "/model",
        "/variables",
        "/tim",
        "/model-card",
        "/hl7v2",
        "/cds-services",
        "/cds-services/{service_id}",
        "/cds-services/{service_id}/feedback",
        "/fhir/$predict",
        "/fhir/metadata",
        "/fhir/OperationDefinition/m3h-predict",
        "/health/live",
        "/health/ready",
        "/metrics",
    }


def test_openapi_has_the_limits_of_a_request(service, settings):
    schemas = service.client.get("/openapi.json").json()["components"]["schemas"]
    batch = schemas["Batch"]["properties"]["items"]
    assert (batch["minItems"], batch["maxItems"]) == (1, settings.max_batch)
    series = schemas["Series"]["properties"]
    assert series["times"]["minItems"] == series["values"]["minItems"] == 1
    assert series["times"]["items"]["format"] == "date-time"
    assert {"type": "number"} in series["values"]["items"]["anyOf"]
    for part in ("series", "treatments", "notes"):
        assert schemas["Payload"]["properties"][part]["maxItems"] == 100_000


def test_openapi_has_the_coverage_of_intervals_and_sets(service):
    schemas = service.client.get("/openapi.json").json()["components"]["schemas"]
    fields = schemas["Prediction"]["properties"]
    for name in ("interval", "set"):
        assert "90 %" in fields[name]["description"]
    assert fields["no_set"]["description"].startswith("The reason why there is no `set`")


def test_every_openapi_reference_resolves(service):
    document = service.client.get("/openapi.json").json()
    references = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)))
    assert {"Payload", "Series", "Answer", "Problem", "Batch"} <= references
    assert references <= document["components"]["schemas"].keys()


def test_the_openapi_document_is_json(service):
    assert json.loads(service.client.get("/openapi.json").content)["openapi"].startswith("3.")
