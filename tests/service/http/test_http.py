"""HTTP semantics (RFC 9110): methods, repeated headers, compression, CORS, Host."""

import gzip
import json

import pytest
from starlette.datastructures import Headers

from service.http.negotiation import accepts_gzip, is_json
from service.runtime.engine import Engine
from tests.support.servers.http_client import PATIENT, connected, prediction, request

GET = (
    *("/", "/page/app.js", "/tasks", "/variables", "/model", "/model-card", "/tim"),
    *("/openapi.json", "/health/live", "/health/ready", "/metrics", "/usage"),
)
POST = ("/predict", "/predict/batch")
JSON = {"Content-Type": "application/json"}


# ------------------------------------------------------------------------------------- methods


@pytest.mark.parametrize("path", GET)
def test_head_has_the_headers_of_get_and_no_content(running, path):
    """Over a socket, to see that the next response follows the head at once."""
    for encoding in ("identity", "gzip"):
        accept = f"Accept-Encoding: {encoding}"
        with connected(running) as client:
            head = client.send(request(f"HEAD {path}", accept)).receive("HEAD")
            got = client.send(request(f"GET {path}", accept)).receive()
        assert head.status == got.status == 200
        given = ("x-request-id", "traceparent", "date")
        if path in ("/metrics", "/usage"):
            given = (*given, "content-length")  # metrics count their own requests
        assert {k: v for k, v in head.headers.items() if k not in given} == {
            k: v for k, v in got.headers.items() if k not in given
        }
        assert int(head.headers["content-length"]) > 0


def test_head_is_404_for_unknown_paths_and_405_for_post_paths(service):
    for path, status in (("/nowhere", 404), *((path, 405) for path in POST)):
        answer = service.client.head(path)
        assert (answer.status_code, answer.content) == (status, b"")


def test_head_is_counted_as_its_route(service):
    service.client.head("/tasks")
    assert '"route":"/tasks","status":200' in service.log.getvalue()


def test_head_supports_if_none_match(service):
    tag = service.client.head("/tasks").headers["etag"]
    assert service.client.head("/tasks", headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("path", [*GET, *POST])
def test_options_lists_the_methods_of_a_path(service, path):
    answer = service.client.options(path)
    assert (answer.status_code, answer.content) == (204, b"")
    allowed = set(answer.headers["allow"].split(", "))
    assert allowed == ({"GET", "HEAD"} if path in GET else {"POST"}) | {"OPTIONS"}
    assert "access-control-allow-origin" not in answer.headers


def test_options_of_the_service_and_of_an_unknown_path(running, service):
    with connected(running) as client:
        answer = client.send(request("OPTIONS *")).receive()
    assert answer.status == 204
    assert answer.headers["allow"] == "get, head, post, options"
    assert service.client.options("/nowhere").status_code == 404


@pytest.mark.parametrize("path", GET)
def test_405_lists_the_allowed_methods(service, path):
    answer = service.client.post(path, content=b"{}", headers=JSON)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.headers["content-type"] == "application/problem+json"


# ----------------------------------------------------------------------------------- caching


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in (*GET, "/nowhere")),
        *((method, path) for path in POST for method in ("GET", "POST", "OPTIONS")),
    ],
)
def test_responses_have_cache_and_sniffing_headers(service, method, path):
    answer = service.client.request(method, path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    documents = {*GET} - {"/health/live", "/health/ready", "/metrics", "/usage"}
    expected = "no-cache" if path in documents else "no-store"
    assert answer.headers.get_list("cache-control") == [expected]


def test_a_prediction_is_not_cached(service, payload):
    answer = service.client.post("/predict", json=payload)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"


def test_an_internal_error_is_not_cached(serve, bundle, payload, monkeypatch):
    engine = Engine(bundle)
    engine.replay_golden()
    client = serve(engine, cors_origins=["https://ehr.example"]).client
    monkeypatch.setattr(engine, "_fusion_inputs", lambda *_: {})
    headers = {"Origin": "https://ehr.example"}
    answer = client.post("/predict", json=payload, headers=headers)
    assert answer.status_code == 500
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["access-control-allow-origin"] == "https://ehr.example"


# ---------------------------------------------------------------------------------- repeated


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


# ---------------------------------------------------------------------------- types and codings


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
    assert is_json(content_type) is accepted


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


# ------------------------------------------------------------------------------- other origins

ORIGIN = "https://ehr.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type, m3h-deadline-ms",
}


def test_another_origin_is_not_allowed_by_default(service):
    answer = service.client.options("/predict", headers=PREFLIGHT)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    answer = service.client.get("/tasks", headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_an_allowed_origin_may_call_the_service(serve, engine, payload):
    client = serve(engine, cors_origins=[ORIGIN]).client
    answer = client.options("/predict", headers=PREFLIGHT)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "M3H-Deadline-Ms" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["x-request-id"]
    for answer in (
        client.post("/predict", json=payload, headers={"Origin": ORIGIN}),
        client.post("/predict", content=b"{", headers=JSON | {"Origin": ORIGIN}),
        client.get("/nowhere", headers={"Origin": ORIGIN}),
    ):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
        assert "traceparent" in answer.headers["access-control-expose-headers"]
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("origin", ["https://other.example", "http://ehr.example", "null"])
def test_an_origin_that_is_not_listed_is_refused(serve, engine, origin):
    client = serve(engine, cors_origins=[ORIGIN]).client
    refused = client.options("/predict", headers=PREFLIGHT | {"Origin": origin})
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"
    assert "access-control-allow-origin" not in refused.headers
    answer = client.get("/tasks", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_all_origins_may_be_allowed_without_credentials(serve, engine):
    client = serve(engine, cors_origins=["*"]).client
    answer = client.options("/predict", headers=PREFLIGHT)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


def test_the_openapi_document_is_json(service):
    assert json.loads(service.client.get("/openapi.json").content)["openapi"].startswith("3.")


# ------------------------------------------------------------------------------------- the host


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST."]
)
def test_on_loopback_the_names_of_the_machine_are_allowed(running, host):
    sent = prediction().replace(b"Host: localhost", f"Host: {host}".encode())
    with connected(running) as client:
        assert client.send(sent).receive().status == 200


@pytest.mark.parametrize(
    ("host", "status", "slug"),
    [
        ("evil.example", 421, "host-not-allowed"),
        ("evil.example:8000", 421, "host-not-allowed"),
        ("localhost.evil.example", 421, "host-not-allowed"),
        ("127.0.0.1.evil.example", 421, "host-not-allowed"),
        ("localhost@evil.example", 400, "invalid-host"),
        ("localhost, evil.example", 400, "invalid-host"),
        ("local host", 400, "invalid-host"),
        ("localhost:x", 400, "invalid-host"),
    ],
)
@pytest.mark.parametrize("line", ["GET /tasks", "POST /predict", "GET /health/live"])
def test_on_loopback_other_names_are_refused(running, line, host, status, slug):
    sent = request(line).replace(b"Host: localhost", f"Host: {host}".encode())
    with connected(running) as client:
        answer = client.send(sent).receive()
    assert (answer.status, answer.json()["type"]) == (status, f"urn:m3h:problem:{slug}")
    assert "evil" not in answer.content.decode()


def test_a_missing_or_repeated_host_is_refused(running):
    missing = b"GET /tasks HTTP/1.1\r\nAccept: */*\r\n\r\n"
    twice = request("GET /tasks", "Host: localhost")
    for sent in (missing, twice):
        with connected(running) as client:
            answer = client.send(sent).receive()
        assert (answer.status, answer.json()["type"]) == (400, "urn:m3h:problem:invalid-host")


def test_an_absolute_target_takes_precedence_over_host(running):
    for target, status in (("http://localhost/tasks", 200), ("http://evil.example/tasks", 421)):
        with connected(running) as client:
            assert client.send(request(f"GET {target}")).receive().status == status


def test_http_1_0_needs_no_host_and_closes_its_connection(running):
    with connected(running) as client:
        answer = client.send(b"GET /health/live HTTP/1.0\r\n\r\n").receive()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.is_closed()
