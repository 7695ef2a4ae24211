"""Problems name a pointer and a rule for each error, and never contain a value of the request."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from tests.support.servers.http_client import JSON
from tests.support.servers.refusals import CANARY, NUMBER, assert_refused, post

# ------------------------------------------------------------------------------------- not JSON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"age=67&name=" + CANARY.encode(),
        f'{{"as_of": "{CANARY}'.encode(),
        b'{"patient_id": "' + CANARY.encode() + b'\xff"}',
        json.dumps({"patient_id": CANARY}).encode("utf-16"),
        b'{"patient_id": "' + CANARY.encode() + b'\\ud800"}',
        b'{"a":' * 10_000 + f'"{CANARY}"'.encode() + b"}" * 10_000,
        b"[" * 100_000,
        b'{"tabular": {"age": ' + b"9" * 5000 + b"}}",
    ],
    ids=[
        "empty",
        "form",
        "cut off",
        "not UTF-8",
        "UTF-16",
        "half a character",
        "deep",
        "deeper",
        "endless number",
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_body_that_is_not_json_is_400(service, body, path):
    answer = service.client.post(path, content=body, headers=JSON)
    assert_refused(service, answer, 400, ("", "json"))


@pytest.mark.parametrize("body", [[CANARY], CANARY, NUMBER, None], ids=repr)
def test_json_that_is_not_an_object_is_422(service, body):
    assert_refused(service, post(service, body), 422, ("", "object"))


# -------------------------------------------------------------------------------- the document


def test_an_empty_request_is_refused(service, payload):
    empty = {"as_of": payload["as_of"], "patient_id": CANARY}
    assert_refused(service, post(service, empty), 422, ("", "not_empty"))
    assert_refused(service, post(service, empty | {"tabular": {}}), 422, ("", "not_empty"))
    assert_refused(service, post(service, {}), 422, ("/as_of", "required"))


def test_an_unknown_field_is_refused_without_repeating_its_name(service, payload):
    payload["tabular"]["shoe_size"] = CANARY
    assert_refused(service, post(service, payload), 422, ("/tabular/shoe_size", "unknown_field"))
    payload["tabular"][CANARY] = 1
    assert_refused(
        service, post(service, payload), 422, ("/tabular/(name withheld)", "unknown_field")
    )


def test_a_repeated_json_name_is_refused(service, payload):
    text = json.dumps(payload)
    twice = text.replace('"age": 67', f'"age": 67, "age": {NUMBER}')
    assert_refused(service, post(service, twice.encode()), 422, ("/tabular", "repeated_name"))
    answer = service.client.post("/predict/batch", content=f'{{"items": [{twice}]}}', headers=JSON)
    assert_refused(service, answer, 422, ("/items/0/tabular", "repeated_name"))


@pytest.mark.parametrize("unit", [CANARY, "mmol/L", "m"])
def test_a_series_in_an_unknown_unit_is_ignored_and_refused_by_strict(service, payload, unit):
    payload["series"][0]["unit"] = unit
    receipt = service.predict(payload)["receipt"]
    (entry,) = [e for e in receipt["ignored"] if e["pointer"] == "/series/0/unit"]
    assert entry["reason"] == "unknown_unit"
    assert "/min" in entry["detail"]
    assert CANARY not in service.written() + json.dumps(receipt)
    answer = post(service, payload, strict="true")
    problem = assert_refused(service, answer, 422, ("/series/0/unit", "unknown_unit"))
    assert "/min" in problem["errors"][0]["detail"]


def test_a_series_without_a_required_unit_is_ignored(service, payload):
    del payload["series"][0]["unit"]
    ignored = service.predict(payload)["receipt"]["ignored"]
    assert ("/series/0/unit", "unit_required") in {(e["pointer"], e["reason"]) for e in ignored}
    answer = post(service, payload, strict="true")
    assert_refused(service, answer, 422, ("/series/0/unit", "unit_required"))
    payload["series"][0] |= {"variable": "ph", "values": [7.2, 7.3, 7.4]}
    assert post(service, payload).status_code == 200


def test_a_request_with_only_unknown_units_is_answered(service, payload):
    payload = {"as_of": payload["as_of"], "series": [payload["series"][0] | {"unit": "zebra"}]}
    answer = service.predict(payload)
    assert answer["receipt"]["modalities"]["series"]["status"] == "absent"
    assert [e["reason"] for e in answer["receipt"]["ignored"]] == ["unknown_unit"]
    assert all(p["based_on"] == [] for p in answer["predictions"])


def test_a_rate_in_an_unknown_unit_is_ignored_and_refused_by_strict(service, payload):
    payload["treatments"][0] |= {"rate": 0.1, "unit": CANARY}
    receipt = service.predict(payload)["receipt"]
    assert "norepinephrine" in receipt["treatments"]
    assert ("/treatments/0/unit", "unknown_unit") in {
        (entry["pointer"], entry["reason"]) for entry in receipt["ignored"]
    }
    assert CANARY not in service.written() + json.dumps(receipt)
    answer = post(service, payload, strict="true")
    assert_refused(service, answer, 422, ("/treatments/0/unit", "unknown_unit"))


def test_times_and_values_of_different_length_are_refused(service, payload):
    payload["series"][0]["values"].append(NUMBER)
    assert_refused(service, post(service, payload), 422, ("/series/0", "same_length"))


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_must_be_finite(service, payload, token):
    body = json.dumps(payload).replace("121.5", token).encode()
    assert_refused(service, post(service, body), 422, ("/series/0/values/2", "finite_number"))


@pytest.mark.parametrize("value", [CANARY, "121.5", True, [NUMBER], {CANARY: NUMBER}], ids=repr)
def test_a_number_must_not_be_text(service, payload, value):
    payload["series"][0]["values"][2] = value
    payload["tabular"]["age"] = value
    assert_refused(
        service,
        post(service, payload),
        422,
        ("/series/0/values/2", "number"),
        ("/tabular/age", "number"),
    )


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (lambda p, t: p["series"][0]["times"].__setitem__(1, t), "/series/0/times"),
        (lambda p, t: p["tabular"].update(admitted_at=t), "/tabular/admitted_at"),
        (lambda p, t: p["treatments"][0].update(start=t), "/treatments/0/start"),
        (lambda p, t: p["treatments"][0].update(end=t), "/treatments/0/end"),
        (lambda p, t: p["notes"][0].update(time=t), "/notes/0/time"),
        (lambda p, t: p["images"][0].update(time=t), "/images/0/time"),
    ],
)
def test_no_time_may_be_after_as_of(service, payload, change, pointer):
    change(payload, "2031-05-04T12:00:01Z")
    payload["patient_id"] = CANARY
    assert_refused(service, post(service, payload), 422, (pointer, "not_after_as_of"))


@pytest.mark.parametrize("time", ["2031-05-04T11:00:00", "2031-05-04", CANARY, ""])
def test_a_time_needs_a_zone(service, payload, time):
    payload["as_of"] = time
    payload["series"][0]["times"][0] = time
    assert_refused(
        service,
        post(service, payload),
        422,
        ("/as_of", "time_zone"),
        ("/series/0/times/0", "time_zone"),
    )


def test_a_treatment_must_not_end_before_it_starts(service, payload):
    payload["treatments"][0]["end"] = "2031-05-01T00:00:00Z"
    assert_refused(service, post(service, payload), 422, ("/treatments/0", "ordered"))


def test_at_most_one_hundred_errors_are_listed(service, payload):
    payload["series"][0]["values"] = [CANARY] * 5000
    problem = assert_refused(service, post(service, payload), 422)
    assert len(problem["errors"]) == 100
    assert "only the first 100 errors" in problem["detail"]


# --------------------------------------------------------------------------------------- HTTP


def test_a_content_length_above_the_limit_is_413(service):
    body = json.dumps({"patient_id": CANARY * 20_000}).encode()
    assert_refused(service, post(service, body), 413)


def test_a_chunked_body_above_the_limit_is_413(service):
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield CANARY.encode() * 1000

    answer = service.client.post("/predict", content=chunks(), headers=JSON)
    assert_refused(service, answer, 413)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": CANARY},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
def test_another_media_type_is_415(service, headers):
    answer = service.client.post("/predict", content=CANARY.encode(), headers=headers)
    assert_refused(service, answer, 415)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_a_wrong_method_is_405_with_the_allowed_ones(service, method):
    answer = service.client.request(method, "/predict", params={"q": CANARY})
    assert_refused(service, answer, 405)
    assert answer.headers["allow"] == "POST"


def test_an_unknown_path_is_404_and_is_not_logged(service):
    assert_refused(service, service.client.get(f"/patients/{CANARY}?name={CANARY}"), 404)
    assert_refused(service, service.client.post("/predict/"), 404)


@pytest.mark.parametrize(
    ("query", "parameter", "rule", "allowed"),
    [
        ({"explain": CANARY}, "explain", "allowed_values", "'none', 'default' or 'full'"),
        ({"strict": CANARY}, "strict", "allowed_values", "'true' or 'false'"),
        ({"explian": "full"}, "explian", "unknown_parameter", "not a parameter"),
        ({CANARY: CANARY}, "(name withheld)", "unknown_parameter", "not a parameter"),
    ],
)
def test_an_invalid_query_parameter_is_422(service, payload, query, parameter, rule, allowed):
    answer = post(service, payload, **query)
    problem = assert_refused(service, answer, 422, (parameter, rule))
    assert allowed in problem["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("document", "pointer", "rule"),
    [
        ([], "", "object"),
        ({}, "", "object"),
        ({"items": [], CANARY: 1}, "", "object"),
        ({"items": {CANARY: 1}}, "/items", "array"),
        ({"items": []}, "/items", "item_count"),
        ({"items": [CANARY] * 5}, "/items", "item_count"),
    ],
)
def test_a_batch_must_have_items_within_the_limit(service, document, pointer, rule):
    answer = service.client.post("/predict/batch", json=document)
    assert_refused(service, answer, 422, (pointer, rule))


def test_a_client_that_disconnects_is_logged_as_499(service):
    messages = [
        {"type": "http.request", "body": CANARY.encode(), "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(_: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"x-request-id", b"hung-up")],
    }
    anyio.run(service.client.app, scope, receive, send)
    (line,) = [line for line in service.log.getvalue().splitlines() if "hung-up" in line]
    assert json.loads(line)["status"] == 499
    assert CANARY not in service.written()


def test_an_unsafe_request_id_is_replaced(service, payload):
    headers = JSON | {"X-Request-ID": CANARY, "traceparent": f"00-{CANARY}"}
    answer = service.client.post("/predict", json=payload | {"as_of": 1}, headers=headers)
    assert_refused(service, answer, 422)


def test_an_internal_error_is_500_and_repeats_no_input(serve, engine, payload, monkeypatch):
    service = serve(engine)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"cannot digest {CANARY}")

    monkeypatch.setattr("service.prediction.predictor.extract_features", fail)
    answer = post(service, payload | {"patient_id": CANARY})
    assert_refused(service, answer, 500)
    assert '"RuntimeError"' in service.written()
    assert "fail" in service.written()


# -------------------------------------------------------------------------------------- strict


@pytest.mark.parametrize(
    ("change", "pointer", "rule"),
    [
        (lambda p: p["series"][0].update(variable=CANARY), "/series/0", "unknown_variable"),
        (lambda p: p["treatments"][0].update(name=CANARY), "/treatments/0", "unknown_treatment"),
        (lambda p: p["tabular"].update(sex=CANARY), "/tabular/sex", "unknown_category"),
        (lambda p: p["tabular"].update(age=NUMBER), "/tabular/age", "implausible_value"),
        (
            lambda p: p["series"][0]["values"].__setitem__(0, NUMBER),
            "/series/0/values",
            "implausible_value",
        ),
        (lambda p: p["images"][0].update(kind=CANARY), "/images/0/kind", "unknown_category"),
    ],
)
def test_strict_refuses_input_that_would_be_ignored(service, payload, change, pointer, rule):
    change(payload)
    lenient = service.predict(payload)
    assert (pointer, rule) in {(i["pointer"], i["reason"]) for i in lenient["receipt"]["ignored"]}
    assert CANARY not in json.dumps(lenient)
    assert_refused(service, post(service, payload, strict="true"), 422, (pointer, rule))


def test_strict_refuses_a_modality_that_is_hidden_from_tasks(service, bundle, payload):
    blind = [f for f in bundle.manifest.tasks if "image" not in f.visible_modalities]
    if not blind:
        pytest.skip("this bundle hides no image")
    assert_refused(
        service, post(service, payload, strict="true"), 422, ("/images", "hidden_modality")
    )


def test_strict_applies_to_each_item_of_a_batch(service, payload):
    plain = {"as_of": payload["as_of"], "tabular": payload["tabular"]}
    strange = copy.deepcopy(plain)
    strange["tabular"]["sex"] = CANARY
    items = {"items": [plain, strange]}
    first, second = service.client.post("/predict/batch?strict=true", json=items).json()["items"]
    assert "predictions" in first
    assert second["errors"][0]["rule"] == "unknown_category"
    assert CANARY not in json.dumps(second)
