"""Calls of CDS Services, made from Bundles of one patient."""

import copy
import json
import re
from typing import Any

from tests.support.inputs import fhir_bundles as make

PATIENT_ID, USER = "p-1288992", "Practitioner/abc"
KEYS = {
    "Patient": "patient",
    "Encounter": "encounter",
    "Observation": "observations",
    "MedicationAdministration": "medications",
    "Procedure": "procedures",
    "DiagnosticReport": "reports",
    "DocumentReference": "documents",
    "Media": "media",
}
Call = dict[str, Any]


def with_patient_id(bundle: Call, patient_id: str = PATIENT_ID) -> Call:
    """The Bundle of `fhir_bundles` with the patient as a resource of a server."""
    renamed = json.loads(json.dumps(bundle).replace(make.PATIENT, f"Patient/{patient_id}"))
    for entry in renamed["entry"]:
        if entry["resource"]["resourceType"] == "Patient":
            entry["resource"]["id"] = patient_id
            del entry["fullUrl"]
    return renamed


def as_served(bundle: Call) -> Call:
    """The Bundle with the references that a server writes: types and ids instead of UUIDs."""
    names = {
        entry["fullUrl"]: f"{entry['resource']['resourceType']}/{entry['resource']['id']}"
        for entry in bundle["entry"]
    }
    text = re.sub(r"urn:uuid:[0-9a-f-]{36}", lambda m: names.get(m[0], m[0]), json.dumps(bundle))
    served: Call = json.loads(text)
    for entry in served["entry"]:
        entry["fullUrl"] = f"https://ehr.example/fhir/{entry['fullUrl']}"
    return served


def prefetch(bundle: Call) -> Call:
    """The prefetch of all keys: the Patient, and a searchset or null for each other key."""
    values: Call = dict.fromkeys(KEYS.values())
    for entry in bundle["entry"]:
        key = KEYS.get(entry["resource"]["resourceType"])
        if key == "patient":
            values[key] = entry["resource"]
        elif key is not None:
            values[key] = values[key] or searchset()
            values[key]["entry"].append(entry)
    return copy.deepcopy(values)


def searchset(*resources: Call, **fields: Any) -> Call:
    entries = [{"resource": resource, "search": {"mode": "match"}} for resource in resources]
    return {"resourceType": "Bundle", "type": "searchset", "entry": entries} | fields


def call(bundle: Call, hook: str = "patient-view", **fields: Any) -> Call:
    """A call with the data of a Bundle, at its timestamp. The patient has the id PATIENT_ID."""
    (patient,) = [
        entry["resource"]
        for entry in bundle["entry"]
        if entry["resource"]["resourceType"] == "Patient"
    ]
    return {
        "hook": hook,
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": {"userId": USER, "patientId": patient["id"], "encounterId": "stay"},
        "prefetch": prefetch(bundle),
        "extension": {"urn:m3h:as-of": bundle["timestamp"]},
    } | fields
