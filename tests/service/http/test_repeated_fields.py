"""Query parameters and headers that occur more than once (RFC 9110)."""

import pytest

from tests.support.servers.http_client import PATIENT, POST


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/predict?strict=true&strict=false", ["strict"]),
        ("/predict?strict=true&strict=true", ["strict"]),
        ("/predict?task=sepsis&explain=full&task=copd", ["task"]),
        ("/predict?%73trict=true&strict=false", ["strict"]),
        ("/predict?strict=&strict=true", ["strict"]),
        (
            "/predict/batch?strict=true&strict=false&explain=none&explain=full",
            ["explain", "strict"],
        ),
        ("/tim?source=sepsis&source=copd", ["source"]),
        ("/tim?source=sepsis&top=1&top=2", ["top"]),
        ("/tasks?a=1&a=2", ["a"]),
        ("/openapi.json?a=1&a=2", ["a"]),
        ("/health/live?a=1&a=2", ["a"]),
        ("/?a=1&a=2", ["a"]),
        ("/predict?Mrs Quillfeather=1&Mrs Quillfeather=2", ["(name withheld)"]),
    ],
)
def test_a_repeated_parameter_is_refused(service, payload, path, names):
    method = "POST" if "predict" in path else "GET"
    answer = service.client.request(method, path, json=payload if method == "POST" else None)
    assert answer.status_code == 422
    faults = answer.json()["errors"]
    assert [(fault["parameter"], fault["rule"]) for fault in faults] == [
        (name, "repeated") for name in names
    ]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("M3H-Priority", ("urgent", "bulk")),
        ("M3H-Deadline-Ms", ("1000", "1000")),
        ("m3h-deadline-ms", ("1000", "50")),
        ("Content-Type", ("application/json", "text/plain")),
    ],
)
@pytest.mark.parametrize("path", POST)
def test_a_repeated_single_valued_header_is_refused(service, path, name, values):
    headers = [("Content-Type", "application/json"), *((name, value) for value in values)]
    headers = headers[1:] if name == "Content-Type" else headers
    answer = service.client.post(path, content=PATIENT, headers=headers)
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert (fault["parameter"].lower(), fault["rule"]) == (name.lower(), "repeated")


def test_a_list_header_may_be_repeated(service):
    headers = [
        ("Accept-Encoding", "br"),
        ("Accept-Encoding", "gzip"),
        ("Cookie", "a"),
        ("Cookie", "b"),
    ]
    answer = service.client.get("/tasks", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-encoding"] == "gzip"
