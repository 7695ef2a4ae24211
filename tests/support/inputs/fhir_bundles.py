"""FHIR Bundles of one synthetic patient, and the payloads that equal them."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.variables import load_variables

LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
AS_OF = datetime(2031, 5, 4, 12, tzinfo=UTC)
PATIENT, STAY = "urn:uuid:00000000-0000-4000-8000-000000000001", "Encounter/stay"
Resource = dict[str, Any]


def ago(hours: float) -> str:
    return (AS_OF - timedelta(hours=hours)).isoformat()


def patient(**fields: Any) -> Resource:
    return {"resourceType": "Patient", "gender": "female", "birthDate": "1963-11-02"} | fields


def stay(**fields: Any) -> Resource:
    return {
        "resourceType": "Encounter",
        "id": "stay",
        "status": "in-progress",
        "class": {
            "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
            "code": "IMP",
        },
        "subject": {"reference": PATIENT},
        "period": {"start": ago(30)},
        "hospitalization": {"admitSource": {"coding": [{"code": "emd"}]}},
        "location": [
            {"location": {"display": "MICU"}, "period": {"start": ago(24)}, "status": "active"}
        ],
    } | fields


def quantity(value: Any, unit: str | None, **fields: Any) -> Resource:
    parts = {"value": value, "code": unit, "unit": unit, "system": UCUM}
    return {k: v for k, v in parts.items() if v is not None} | fields


def loinc(code: str) -> Resource:
    return {"coding": [{"system": LOINC, "code": code}]}


def observation(code: str, value: Any, unit: str | None, hours: float, **fields: Any) -> Resource:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": loinc(code),
        "subject": {"reference": PATIENT},
        "encounter": {"reference": STAY},
        "effectiveDateTime": ago(hours),
        "valueQuantity": quantity(value, unit),
    } | fields


def bound(code: str, comparator: str, value: float, unit: str, hours: float) -> Resource:
    return observation(
        code, value, unit, hours, valueQuantity=quantity(value, unit, comparator=comparator)
    )


def heart_rate(value: float = 121.5, hours: float = 1, **fields: Any) -> Resource:
    return observation("8867-4", value, "/min", hours, **fields)


def blood_pressure(systolic: float, diastolic: float, hours: float) -> Resource:
    parts = [("8480-6", systolic), ("8462-4", diastolic)]
    panel = observation("85354-9", 0, None, hours)
    del panel["valueQuantity"]
    return panel | {
        "component": [
            {"code": loinc(code), "valueQuantity": quantity(value, "mm[Hg]")}
            for code, value in parts
        ]
    }


def administration(drug: str, hours: float, **fields: Any) -> Resource:
    return {
        "resourceType": "MedicationAdministration",
        "status": "in-progress",
        "medicationCodeableConcept": {"text": drug},
        "subject": {"reference": PATIENT},
        "effectivePeriod": {"start": ago(hours)},
    } | fields


def procedure(name: str, hours: float, **fields: Any) -> Resource:
    return {
        "resourceType": "Procedure",
        "status": "in-progress",
        "code": {"text": name},
        "subject": {"reference": PATIENT},
        "performedPeriod": {"start": ago(hours)},
    } | fields


def encoded(content: str | bytes) -> str:
    return base64.b64encode(content.encode() if isinstance(content, str) else content).decode()


def note(text: str, hours: float, media_type: str = "text/plain", **fields: Any) -> Resource:
    return {
        "resourceType": "DocumentReference",
        "status": "current",
        "type": loinc("34746-8"),
        "subject": {"reference": PATIENT},
        "date": ago(hours),
        "content": [{"attachment": {"contentType": media_type, "data": encoded(text)}}],
    } | fields


def chest_xray(data: str, hours: float, **fields: Any) -> Resource:
    return {
        "resourceType": "Media",
        "status": "completed",
        "modality": {"coding": [{"code": "DX"}]},
        "bodySite": {"coding": [{"system": "http://snomed.info/sct", "code": "51185008"}]},
        "view": {"text": "PA"},
        "subject": {"reference": PATIENT},
        "createdDateTime": ago(hours),
        "content": {"contentType": "image/png", "data": data},
    } | fields


def bundle(*resources: Resource, kind: str = "collection", **fields: Any) -> Resource:
    """A Bundle of the Patient and other resources; each entry has a fullUrl."""
    entries = [{"fullUrl": PATIENT, "resource": patient()}]
    for i, resource in enumerate(resources):
        url = f"urn:uuid:00000000-0000-4000-8000-{i + 2:012}"
        entries.append({"fullUrl": url, "resource": resource})
    head = {"resourceType": "Bundle", "type": kind, "timestamp": AS_OF.isoformat()}
    return head | {"entry": entries} | fields


def full_stay(image: str) -> tuple[Resource, Resource]:
    """A Bundle with all kinds of input, and the payload that equals it. `image`: PNG as base64."""
    text = "Patient febrile and hypotensive. Started on norepinephrine."
    resources = [
        stay(),
        heart_rate(88, 20),
        heart_rate(112, 3),
        heart_rate(121.5, 1),
        blood_pressure(92, 51, 1),
        observation("2160-0", 210, "umol/L", 2),
        observation("32693-4", 4.1, "mmol/L", 2),
        observation("8310-5", 102.2, "[degF]", 4),
        bound("6598-7", "<", 0.01, "ng/mL", 5),
        observation("8302-2", 165, "cm", 23),
        observation("29463-7", 71.5, "kg", 23),
        administration(
            "Levophed 4 mg/250 mL",
            5,
            dosage={"rateQuantity": quantity(0.1, "ug/kg/min")},
        ),
        procedure("Mechanical ventilation (procedure)", 6),
        note(text, 4),
        chest_xray(image, 6),
    ]
    payload = {
        "as_of": AS_OF.isoformat(),
        "tabular": {
            "age": 67,
            "sex": "female",
            "height_cm": 165,
            "weight_kg": 71.5,
            "admission_source": "emergency",
            "unit_type": "medical_icu",
            "admitted_at": ago(24),
        },
        "series": [
            series("heart_rate", "/min", (20, 88), (3, 112), (1, 121.5)),
            series("systolic_blood_pressure", "mm[Hg]", (1, 92)),
            series("diastolic_blood_pressure", "mm[Hg]", (1, 51)),
            series("creatinine", "umol/L", (2, 210)),
            series("lactate", "mmol/L", (2, 4.1)),
            series("temperature", "[degF]", (4, 102.2)),
            series("troponin_t", "ng/mL", (5, "<0.01")),
            series("body_weight", "kg", (23, 71.5)),
        ],
        "treatments": [
            {"name": "norepinephrine", "start": ago(5), "rate": 0.1, "unit": "ug/kg/min"},
            {"name": "mechanical_ventilation", "start": ago(6)},
        ],
        "notes": [{"kind": "nursing", "time": ago(4), "text": text}],
        "images": [{"time": ago(6), "media_type": "image/png", "view": "PA", "data": image}],
    }
    return bundle(*resources), payload


def series(variable: str, unit: str, *points: tuple[float, Any]) -> Resource:
    times, values = [ago(hours) for hours, _ in points], [value for _, value in points]
    return {"variable": variable, "unit": unit, "times": times, "values": values}


def with_measured_weight(payload: Resource) -> Resource:
    """The payload with its weight as a measurement, too. A Bundle cannot tell them apart."""
    weight = payload.get("tabular", {}).get("weight_kg")
    if weight is None:
        return payload
    time = datetime.fromisoformat(payload["as_of"])
    measured = series("body_weight", "kg", (0, weight)) | {"times": [time.isoformat()]}
    return payload | {"series": [*payload.get("series", ()), measured]}


def from_payload(payload: Resource) -> Resource:
    """A Bundle that equals `with_measured_weight(payload)`.

    The variables and treatments of the payload have declared names.
    """
    tabular = payload.get("tabular", {})
    loinc_codes = {v.name: v.loinc[0] for v in load_variables() if v.loinc}
    resources = _measurements(payload, loinc_codes)
    resources += _tabular_resources(payload["as_of"], tabular)
    resources += [_course(given) for given in payload.get("treatments", ())]
    resources += [
        note(part["text"], 0, date=part["time"], type={}) for part in payload.get("notes", ())
    ]
    resources += [
        chest_xray(
            part["data"],
            0,
            createdDateTime=part["time"],
            view={"text": part.get("view", "unknown")},
            content={"contentType": part["media_type"], "data": part["data"]},
        )
        for part in payload.get("images", ())
    ]
    sent = bundle(*resources, timestamp=payload["as_of"])
    year = datetime.fromisoformat(payload["as_of"]).year
    birth = {} if "age" not in tabular else {"birthDate": f"{year - int(tabular['age'])}-01-01"}
    sex = {} if "sex" not in tabular else {"gender": tabular["sex"]}
    sent["entry"][0]["resource"] = {"resourceType": "Patient"} | birth | sex
    return sent


def _measurements(payload: Resource, loinc_codes: dict[str, str]) -> list[Resource]:
    measured = []
    for part in payload.get("series", ()):
        name = part["variable"]
        code = loinc_codes.get(name, name.removeprefix("loinc:"))
        for time, value in zip(part["times"], part["values"], strict=True):
            measured.append(observation(code, value, part.get("unit"), 0, effectiveDateTime=time))
    return measured


def _tabular_resources(as_of: str, tabular: Resource) -> list[Resource]:
    resources = []
    for field, code, unit in (("height_cm", "8302-2", "cm"), ("weight_kg", "29463-7", "kg")):
        if tabular.get(field) is not None:
            size = observation(code, tabular[field], unit, 0, effectiveDateTime=as_of)
            resources.append(size)
    admitted = tabular.get("admitted_at")
    if admitted is not None:
        place = {"location": {"display": tabular.get("unit_type")}, "period": {"start": admitted}}
        source = {"admitSource": {"text": tabular.get("admission_source", "")}}
        resources.append(stay(period={"start": admitted}, location=[place], hospitalization=source))
    return resources


def _course(given: Resource) -> Resource:
    rate = {}
    if given.get("rate") is not None:
        rate = {"dosage": {"rateQuantity": quantity(given["rate"], given.get("unit"))}}
    period = {k: given[k] for k in ("start", "end") if given.get(k) is not None}
    status = "in-progress" if given.get("end") is None else "completed"
    return administration(given["name"], 0, status=status, effectivePeriod=period, **rate)
