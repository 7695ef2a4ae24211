"""Whatever is wrong with a request is said by pointer and rule, and nothing of it is repeated."""

import base64
import copy
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import anyio
import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CANARY = "Zanzibar Quillfeather"
NUMBER = 8675309.125
JSON = {"Content-Type": "application/json"}


def refused(service: Any, answer: Any, status: int, *expected: tuple[str, str]) -> dict[str, Any]:
    """Asserts a problem document with the (pointer, rule) pairs, and that it repeats nothing."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= problem.keys()
    errors = {(e.get("pointer", e.get("parameter")), e["rule"]) for e in problem.get("errors", ())}
    assert set(expected) <= errors, errors
    for secret in (CANARY, "Quillfeather", str(NUMBER), "8675309"):
        assert secret not in answer.text
        assert secret not in str(answer.headers)
        assert secret not in service.written()
    return problem


def post(service: Any, body: Any, **parameters: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return service.client.post("/predict", content=content, headers=JSON, params=parameters)


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
def test_what_is_no_json_is_400(service, body, path):
    answer = service.client.post(path, content=body, headers=JSON)
    refused(service, answer, 400, ("", "json"))


@pytest.mark.parametrize("body", [[CANARY], CANARY, NUMBER, None], ids=repr)
def test_json_that_is_no_object_is_422(service, body):
    refused(service, post(service, body), 422, ("", "object"))


# -------------------------------------------------------------------------------- the document


def test_nothing_is_no_request(service, payload):
    empty = {"as_of": payload["as_of"], "patient_id": CANARY}
    refused(service, post(service, empty), 422, ("", "not_empty"))
    refused(service, post(service, empty | {"tabular": {}}), 422, ("", "not_empty"))
    refused(service, post(service, {}), 422, ("/as_of", "required"))


def test_an_unknown_field_is_refused_and_a_name_that_is_no_field_name_is_withheld(service, payload):
    payload["tabular"]["shoe_size"] = CANARY
    refused(service, post(service, payload), 422, ("/tabular/shoe_size", "unknown_field"))
    payload["tabular"][CANARY] = 1
    refused(service, post(service, payload), 422, ("/tabular/(name withheld)", "unknown_field"))


def test_a_name_that_stands_twice_is_refused_instead_of_losing_one(service, payload):
    text = json.dumps(payload)
    twice = text.replace('"age": 67', f'"age": 67, "age": {NUMBER}')
    refused(service, post(service, twice.encode()), 422, ("/tabular", "repeated_name"))
    answer = service.client.post("/predict/batch", content=f'{{"items": [{twice}]}}', headers=JSON)
    refused(service, answer, 422, ("/items/0/tabular", "repeated_name"))


@pytest.mark.parametrize("unit", [CANARY, "mmol/L", "m"])
def test_a_series_in_an_unknown_unit_is_left_out_and_strict_refuses_it(service, payload, unit):
    payload["series"][0]["unit"] = unit
    receipt = service.predict(payload)["receipt"]
    (entry,) = [e for e in receipt["ignored"] if e["pointer"] == "/series/0/unit"]
    assert entry["reason"] == "unknown_unit"
    assert "/min" in entry["detail"]
    assert CANARY not in service.written() + json.dumps(receipt)
    answer = post(service, payload, strict="true")
    problem = refused(service, answer, 422, ("/series/0/unit", "unknown_unit"))
    assert "/min" in problem["errors"][0]["detail"]


def test_a_series_without_the_unit_that_it_needs_is_left_out(service, payload):
    del payload["series"][0]["unit"]
    ignored = service.predict(payload)["receipt"]["ignored"]
    assert ("/series/0/unit", "unit_required") in {(e["pointer"], e["reason"]) for e in ignored}
    answer = post(service, payload, strict="true")
    refused(service, answer, 422, ("/series/0/unit", "unit_required"))
    payload["series"][0] |= {"variable": "ph", "values": [7.2, 7.3, 7.4]}
    assert post(service, payload).status_code == 200


def test_a_request_of_which_no_unit_is_known_is_answered_and_says_so(service, payload):
    payload = {"as_of": payload["as_of"], "series": [payload["series"][0] | {"unit": "zebra"}]}
    answer = service.predict(payload)
    assert answer["receipt"]["modalities"]["series"]["status"] == "absent"
    assert [e["reason"] for e in answer["receipt"]["ignored"]] == ["unknown_unit"]
    assert all(p["based_on"] == [] for p in answer["predictions"])


def test_a_rate_in_a_unit_that_cannot_be_converted_is_left_out_or_if_strict_refused(
    service, payload
):
    payload["treatments"][0] |= {"rate": 0.1, "unit": CANARY}
    receipt = service.predict(payload)["receipt"]
    assert "norepinephrine" in receipt["treatments"]
    assert ("/treatments/0/unit", "unknown_unit") in {
        (entry["pointer"], entry["reason"]) for entry in receipt["ignored"]
    }
    assert CANARY not in service.written() + json.dumps(receipt)
    answer = post(service, payload, strict="true")
    refused(service, answer, 422, ("/treatments/0/unit", "unknown_unit"))


def test_times_and_values_of_different_length_are_refused(service, payload):
    payload["series"][0]["values"].append(NUMBER)
    refused(service, post(service, payload), 422, ("/series/0", "same_length"))


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_must_be_finite(service, payload, token):
    body = json.dumps(payload).replace("121.5", token).encode()
    refused(service, post(service, body), 422, ("/series/0/values/2", "finite_number"))


@pytest.mark.parametrize("value", [CANARY, "121.5", True, [NUMBER], {CANARY: NUMBER}], ids=repr)
def test_text_is_no_number(service, payload, value):
    payload["series"][0]["values"][2] = value
    payload["tabular"]["age"] = value
    refused(
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
def test_nothing_may_lie_after_as_of(service, payload, change, pointer):
    change(payload, "2031-05-04T12:00:01Z")
    payload["patient_id"] = CANARY
    refused(service, post(service, payload), 422, (pointer, "not_after_as_of"))


@pytest.mark.parametrize("time", ["2031-05-04T11:00:00", "2031-05-04", CANARY, ""])
def test_a_time_needs_a_zone(service, payload, time):
    payload["as_of"] = time
    payload["series"][0]["times"][0] = time
    refused(
        service,
        post(service, payload),
        422,
        ("/as_of", "time_zone"),
        ("/series/0/times/0", "time_zone"),
    )


def test_a_treatment_does_not_end_before_it_starts(service, payload):
    payload["treatments"][0]["end"] = "2031-05-01T00:00:00Z"
    refused(service, post(service, payload), 422, ("/treatments/0", "ordered"))


def test_every_fault_is_named_but_no_more_than_a_hundred(service, payload):
    payload["series"][0]["values"] = [CANARY] * 5000
    problem = refused(service, post(service, payload), 422)
    assert len(problem["errors"]) == 100
    assert "more than 100 faults" in problem["detail"]


# ----------------------------------------------------------------------------------- the images


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_of(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(pixels, 9))
        + png_chunk(b"IEND", b"")
    )


def good_image(kind: str, side: int = 64) -> bytes:
    out = io.BytesIO()
    shades = np.random.default_rng(0).integers(0, 255, (side, side), dtype=np.uint8)
    PIL.Image.fromarray(shades).save(out, kind)
    return out.getvalue()


IMAGES = {
    "no image": (CANARY.encode() * 10, "image"),
    "empty": (b"", "image"),
    "truncated": (good_image("PNG")[:-800], "image"),
    "one pixel over the limit": (png_of(40_000_001, 1, b""), "pixel_limit"),
    "a header that claims 2^62 pixels": (png_of(2**31 - 1, 2**31 - 1, b""), "pixel_limit"),
    "a bomb: small, and large when unpacked": (
        png_of(12_000, 12_000, bytes(12_001 * 1_000)),
        "pixel_limit",
    ),
    "more data than its header says": (png_of(8, 8, bytes(50_000_000)), None),
    "a text chunk that unpacks to 64 MiB": (
        good_image("PNG")[:33]
        + png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**26), 9))
        + good_image("PNG")[33:],
        "image",
    ),
    "a GIF under another name": (b"GIF89a" + bytes(100), "image"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_cannot_be_read_is_refused(service, payload, name):
    data, rule = IMAGES[name]
    payload["images"][0]["data"] = base64.b64encode(data).decode()
    answer = post(service, payload)
    if rule is None:
        assert answer.status_code == 200
    else:
        refused(service, answer, 422, ("/images/0/data", rule))


def test_an_image_must_be_base64_of_the_type_that_it_says(service, payload):
    payload["images"][0]["media_type"] = "image/jpeg"
    refused(service, post(service, payload), 422, ("/images/0/data", "media_type"))
    payload["images"][0] |= {"media_type": CANARY, "data": CANARY}
    problem = refused(
        service,
        post(service, payload),
        422,
        ("/images/0/data", "base64"),
        ("/images/0/media_type", "allowed_values"),
    )
    assert any("'image/png'" in error["detail"] for error in problem["errors"])


def test_a_broken_image_is_refused_even_where_a_newer_one_would_be_read(service, payload):
    older = payload["images"][0] | {"time": "2031-05-01T00:00:00Z", "data": "AAAA"}
    payload["images"].append(older)
    refused(service, post(service, payload), 422, ("/images/1/data", "image"))


# --------------------------------------------------------------------------------------- HTTP


def test_a_body_over_the_limit_is_413_by_its_stated_length(service):
    body = json.dumps({"patient_id": CANARY * 20_000}).encode()
    refused(service, post(service, body), 413)


def test_a_body_over_the_limit_is_413_without_a_stated_length(service):
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield CANARY.encode() * 1000

    answer = service.client.post("/predict", content=chunks(), headers=JSON)
    refused(service, answer, 413)


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
def test_what_is_not_application_json_is_415(service, headers):
    answer = service.client.post("/predict", content=CANARY.encode(), headers=headers)
    refused(service, answer, 415)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_a_wrong_method_is_405_and_says_which_is_right(service, method):
    answer = service.client.request(method, "/predict", params={"q": CANARY})
    refused(service, answer, 405)
    assert answer.headers["allow"] == "POST"


def test_an_unknown_path_is_404_and_is_written_nowhere(service):
    refused(service, service.client.get(f"/patients/{CANARY}?name={CANARY}"), 404)
    refused(service, service.client.post("/predict/"), 404)


@pytest.mark.parametrize(
    ("query", "parameter", "rule", "allowed"),
    [
        ({"explain": CANARY}, "explain", "allowed_values", "'none', 'default' or 'full'"),
        ({"strict": CANARY}, "strict", "allowed_values", "'true' or 'false'"),
        ({"explian": "full"}, "explian", "unknown_parameter", "no parameter"),
        ({CANARY: CANARY}, "(name withheld)", "unknown_parameter", "no parameter"),
    ],
)
def test_a_query_parameter_that_is_not_understood_is_422(
    service, payload, query, parameter, rule, allowed
):
    answer = post(service, payload, **query)
    problem = refused(service, answer, 422, (parameter, rule))
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
def test_a_batch_is_items_within_the_limit(service, document, pointer, rule):
    answer = service.client.post("/predict/batch", json=document)
    refused(service, answer, 422, (pointer, rule))


def test_a_client_that_goes_away_is_no_error_of_the_service(service):
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


def test_a_header_that_is_no_safe_id_is_replaced(service, payload):
    headers = JSON | {"X-Request-ID": CANARY, "traceparent": f"00-{CANARY}"}
    answer = service.client.post("/predict", json=payload | {"as_of": 1}, headers=headers)
    refused(service, answer, 422)


def test_an_unexpected_error_is_500_and_repeats_nothing(serve, engine, payload, monkeypatch):
    service = serve(engine)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"cannot digest {CANARY}")

    monkeypatch.setattr("service.prediction.predictor.extract_features", fail)
    answer = post(service, payload | {"patient_id": CANARY})
    refused(service, answer, 500)
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
def test_strict_refuses_what_would_be_ignored(service, payload, change, pointer, rule):
    change(payload)
    lenient = service.predict(payload)
    assert (pointer, rule) in {(i["pointer"], i["reason"]) for i in lenient["receipt"]["ignored"]}
    assert CANARY not in json.dumps(lenient)
    refused(service, post(service, payload, strict="true"), 422, (pointer, rule))


def test_strict_refuses_a_modality_that_is_hidden_from_tasks(service, bundle, payload):
    blind = [f for f in bundle.manifest.tasks if "image" not in f.visible_modalities]
    if not blind:
        pytest.skip("this bundle hides no image")
    refused(service, post(service, payload, strict="true"), 422, ("/images", "hidden_modality"))


def test_strict_speaks_for_each_item_of_a_batch(service, payload):
    plain = {"as_of": payload["as_of"], "tabular": payload["tabular"]}
    strange = copy.deepcopy(plain)
    strange["tabular"]["sex"] = CANARY
    items = {"items": [plain, strange]}
    first, second = service.client.post("/predict/batch?strict=true", json=items).json()["items"]
    assert "predictions" in first
    assert second["errors"][0]["rule"] == "unknown_category"
    assert CANARY not in json.dumps(second)


# -------------------------------------------------------------------------------- any mutation

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5).map(lambda text: CANARY + text),
    st.builds(lambda: [CANARY]),
    st.builds(lambda: {CANARY: CANARY}),
    st.builds(list),
    st.builds(dict),
    st.just("2031-05-04T11:59:59Z"),
    st.just("9999-12-31T23:59:59-12:00"),
    st.just("0001-01-01T00:00:00+14:00"),
    st.just("loinc:8867-4"),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything inside."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from places(part, (*path, key))


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_change_of_a_request_is_answered_and_never_repeated(service, payload, data):
    request = copy.deepcopy(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        *path, last = data.draw(st.sampled_from(sorted(places(request), key=str)))
        inside = request
        for key in path:
            inside = inside[key]
        match data.draw(st.sampled_from(["replace", "remove", "repeat", "rename", "add"])):
            case "replace":
                inside[last] = data.draw(ODD)
            case "remove":
                del inside[last]
            case "repeat" if isinstance(inside, list):
                inside.append(copy.deepcopy(inside[last]))
            case "rename" if isinstance(inside, dict):
                inside[CANARY] = inside.pop(last)
            case _ if isinstance(inside, dict):
                inside[data.draw(st.sampled_from([CANARY, "rate", "unit"]))] = data.draw(ODD)
        if not request:
            break
    strict = data.draw(st.sampled_from(["true", "false"]))
    answer = post(service, request, strict=strict)
    assert answer.status_code in (200, 400, 422), answer.text
    assert "Quillfeather" not in answer.text
    if answer.status_code != 200:
        refused(service, answer, answer.status_code)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_broken_bytes_are_answered(service, payload, data):
    body = bytearray(json.dumps(payload).encode())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    answer = post(service, bytes(body))
    assert answer.status_code in (200, 400, 422), answer.text


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_broken_image_is_answered(service, payload, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG"]))
    image = bytearray(good_image(kind, 24))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(image) - 1))
        image[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    payload["images"][0] |= {
        "media_type": f"image/{kind.lower()}",
        "data": base64.b64encode(image).decode(),
    }
    answer = post(service, payload)
    assert answer.status_code in (200, 422), answer.text
