"""The CapabilityStatement and the OperationDefinition are valid and describe the operation."""

import pytest

from service.http.fhir.openapi_entries import ANSWER, BUNDLE


@pytest.mark.parametrize("path", ["metadata", "OperationDefinition/m3h-predict"])
def test_a_conformance_resource_is_valid(fhir, path):
    answer = fhir.service.client.get(f"/fhir/{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/fhir+json"
    fhir.validator.assert_valid(answer.json())


def test_the_operation_of_the_capability_statement_exists(fhir):
    capability = fhir.service.client.get("/fhir/metadata").json()
    assert capability["fhirVersion"] == "4.0.1"
    (operation,) = capability["rest"][0]["operation"]
    definition = fhir.service.client.get(f"/fhir/{operation['definition']}").json()
    assert definition["code"] == operation["name"]
    assert definition["system"]


def test_metadata_is_json_only(fhir):
    answer = fhir.service.client.get("/fhir/metadata", headers={"Accept": "application/fhir+xml"})
    fhir.assert_refused(answer, 406, ("", "not-acceptable"))


def test_metadata_has_an_etag(fhir):
    first = fhir.service.client.get("/fhir/metadata")
    again = {"If-None-Match": first.headers["etag"]}
    assert fhir.service.client.get("/fhir/metadata", headers=again).status_code == 304


def test_the_examples_of_the_openapi_document_are_valid(fhir):
    assert fhir.predict(BUNDLE, strict="true").used() == {"heart_rate": 1}
    fhir.validator.assert_valid(ANSWER)
