"""Cross-origin requests (CORS)."""

import pytest

from tests.support.servers.http_client import JSON

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
