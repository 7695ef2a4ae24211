"""Headers of responses: caching and protection against content sniffing."""

import pytest

from service.runtime.engine import Engine
from tests.support.servers.http_client import GET, POST


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
