"""With M3H_CDS_JWT_KEYS, every request under /cds-services needs a token for its URL."""

import asyncio
import io

import pytest
from pydantic import SecretStr

from service.http.cds_hooks.authentication import check_key_file
from service.process.supervisor import Supervisor
from service.settings import Settings
from service.telemetry.logging import make_log
from tests.support.inputs.signed_tokens import Token, public_jwk, write_keys
from tests.support.servers.redis_server import RedisServer
from tests.support.servers.refusals import assert_refused

URL = "https://m3h.example/api"
PATHS = ("", "/m3h-patient-view", "/m3h-patient-view/feedback")


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    return str(write_keys(tmp_path_factory.mktemp("keys") / "keys.json", public_jwk("ES384")))


@pytest.fixture
def guarded(serve, engine, key_file):
    return serve(engine, cds_jwt_keys=key_file, cds_url=URL)


def send(service, path, call, authorization=None):
    headers = {} if authorization is None else {"Authorization": authorization}
    if not path:
        return service.client.get("/cds-services", headers=headers)
    body = {"feedback": [{}]} if path.endswith("/feedback") else call
    return service.client.post(f"/cds-services{path}", json=body, headers=headers)


@pytest.mark.parametrize("path", PATHS)
def test_a_request_without_a_token_is_401(guarded, call, path):
    answer = send(guarded, path, call)
    assert_refused(guarded, answer, 401, ("Authorization", "required"))
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", PATHS)
def test_a_token_is_for_one_endpoint_and_one_request(guarded, call, path):
    authorization = Token(f"{URL}/cds-services{path}").authorization()
    expected = 422 if path.endswith("/feedback") else 200  # the body of the feedback is incomplete
    assert send(guarded, path, call, authorization).status_code == expected
    again = send(guarded, path, call, authorization)
    assert_refused(guarded, again, 401, ("Authorization", "replay"))
    assert again.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    for other in {*PATHS} - {path}:
        token = Token(f"{URL}/cds-services{other}").authorization()
        assert_refused(guarded, send(guarded, path, call, token), 401, ("Authorization", "aud"))


def test_an_unknown_caller_does_not_learn_which_services_exist(guarded, call):
    assert send(guarded, "/unknown", call).status_code == 401
    token = Token(f"{URL}/cds-services/unknown").authorization()
    assert send(guarded, "/unknown", call, token).status_code == 404


def test_other_paths_need_no_token(guarded, payload):
    assert guarded.client.get("/health/ready").status_code == 200
    assert guarded.client.post("/predict", json=payload).status_code == 200


def test_without_the_setting_no_token_is_needed(service, call):
    for path in PATHS:
        assert send(service, path, call, "Bearer x").status_code in (200, 422)


@pytest.fixture
def redis(tmp_path):
    running = RedisServer(tmp_path / "redis.sock")
    running.start()
    yield running
    running.stop()


def test_replicas_with_redis_accept_a_token_once(serve, engine, call, key_file, redis):
    settings = {
        "cds_jwt_keys": key_file,
        "cds_url": URL,
        "redis_url": SecretStr(redis.url),
        "redis_secret": SecretStr("of these tests alone"),
        "redis_ms": 500,
    }
    first, second = serve(engine, **settings), serve(engine, **settings)
    authorization = Token(f"{URL}/cds-services").authorization()
    assert send(first, "", call, authorization).status_code == 200
    answer = send(second, "", call, authorization)
    assert_refused(second, answer, 401, ("Authorization", "replay"))
    redis.stop()
    answer = send(first, "", call, Token(f"{URL}/cds-services").authorization())
    assert_refused(first, answer, 503)
    assert answer.headers["retry-after"]


def test_the_service_does_not_start_with_unusable_keys(bundle_dir, key_file, tmp_path):
    def fault(**values):
        return check_key_file(Settings(bundle=bundle_dir, **values)) or ""

    assert fault() == ""
    assert fault(cds_jwt_keys=key_file, cds_url=URL, workers=1) == ""
    assert "needs M3H_CDS_URL" in fault(cds_jwt_keys=key_file, workers=1)
    assert "M3H_REDIS_URL or M3H_WORKERS=1" in fault(cds_jwt_keys=key_file, cds_url=URL, workers=2)
    missing = str(tmp_path / "missing.json")
    assert "cannot be read" in fault(cds_jwt_keys=missing, cds_url=URL, workers=1)


def test_the_fault_of_a_key_file_is_that_of_the_start(bundle_dir, tmp_path):
    path = tmp_path / "keys.json"
    path.write_text("{}")
    settings = Settings(
        bundle=bundle_dir, cds_jwt_keys=str(path), cds_url=URL, workers=1, device="cpu"
    )
    supervisor = Supervisor(settings, make_log("info", io.StringIO()))
    fault = asyncio.run(supervisor.run(lambda *_: None))
    assert fault is not None
    assert fault.startswith("the file of M3H_CDS_JWT_KEYS issuers")
