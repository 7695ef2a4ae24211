"""Content types, content codings and compression (RFC 9110)."""

import gzip

import pytest
from starlette.datastructures import Headers

from service.http.negotiation import accepts_gzip, utf8_media_type
from tests.support.servers.http_client import (
    JSON,
    PATIENT,
    POST,
)


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        ("application/json", True),
        ("Application/JSON", True),
        ("application/json; charset=utf-8", True),
        ("application/json;charset=UTF-8", True),
        ('application/json; charset="utf-8"', True),
        ("application/json; charset=utf8", True),
        ("application/json; Charset=UTF8", True),
        ("application/json; charset=us-ascii", True),
        ("application/json;", True),
        ("application/json ; charset = utf-8", True),
        ("application/json; odata=verbose; charset=utf-8", True),
        ("application/json; charset=latin-1", False),
        ("application/json; charset=utf-16", False),
        ("application/json; charset=utf-8; charset=utf-16", False),
        ("application/fhir+json", False),
        ("application/jsonl", False),
        ("text/json", False),
        ("text/plain", False),
        ("", False),
    ],
)
def test_utf_8_json_is_accepted_in_every_spelling(content_type, accepted):
    assert (utf8_media_type(content_type) == "application/json") is accepted


@pytest.mark.parametrize("coding", ["identity", "IDENTITY", "", "identity, identity"])
def test_a_body_without_content_coding_is_accepted(service, coding):
    answer = service.client.post(
        "/predict", content=PATIENT, headers=JSON | {"Content-Encoding": coding}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip", "deflate"])
def test_a_body_with_content_coding_is_refused(service, coding):
    answer = service.client.post(
        "/predict", content=gzip.compress(PATIENT), headers=JSON | {"Content-Encoding": coding}
    )
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("header", "packed"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("br", False),
        ("deflate", False),
        ("gzip;q=0", False),
        ("gzip; q=0", False),
        ("gzip;Q=0.000", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0.001", True),
        ("gzip;q=1.0", True),
        ("gzip;q=1.5", False),
        ("gzip;q=oops", False),
        ("notgzip", False),
        ("gzipped", False),
        ("*", True),
        ("*;q=0", False),
        ("*;q=0, gzip", True),
        ("identity", False),
        ("identity;q=0", True),
        ("identity;q=0, gzip;q=0", False),
        ("identity, gzip;q=0.5", False),
        ("identity;q=0.5, gzip;q=0.8", True),
        ("identity;q=0.5, *;q=0.8", True),
    ],
)
def test_gzip_is_negotiated(header, packed):
    assert accepts_gzip(Headers({} if header is None else {"Accept-Encoding": header})) is packed


@pytest.mark.parametrize(
    "path", ["/", "/page/app.js", "/tasks", "/tim", "/model-card", "/openapi.json"]
)
def test_static_content_is_compressed_if_accepted(service, path):
    plain = service.client.get(path, headers={"Accept-Encoding": "gzip;q=0"})
    packed = service.client.get(path, headers={"Accept-Encoding": "GZIP"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.content)
    assert packed.content == plain.content
    assert packed.headers["etag"] != plain.headers["etag"]
    for answer in (plain, packed):
        assert "Accept-Encoding" in answer.headers["vary"]


@pytest.mark.parametrize("path", POST)
def test_a_prediction_is_compressed_if_accepted(service, payload, path):
    body = payload if path == "/predict" else {"items": [payload] * 4}
    packed = service.client.post(path, json=body, headers={"Accept-Encoding": "gzip"})
    plain = service.client.post(path, json=body, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert packed.json().keys() == plain.json().keys()
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
