"""The admin API: commands, and protection from web pages on the same machine."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.process.admin import create_admin
from service.process.messages import WorkerReply
from service.settings import Settings
from tests.support.servers.http_client import JSON

OTHER_PAGE = {"Origin": "http://evil.example"}


class Admin:
    """The admin app of a service that accepts every bundle."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.bundles: list[Path | None] = []
        app = create_admin(self._reload, Settings(admin_host=host))
        self.client = TestClient(app, base_url="http://localhost:8001")

    async def _reload(self, bundle: Path | None) -> WorkerReply:
        self.bundles.append(bundle)
        return WorkerReply("m3h-open 1.0.0", "0" * 64)


@pytest.mark.parametrize(
    ("body", "bundle"),
    [(b"", None), (b"{}", None), (b'{"bundle": null}', None), (b'{"bundle": "b"}', Path("b"))],
)
def test_a_json_command_is_executed(body, bundle):
    admin = Admin()
    answer = admin.client.post("/admin/reload", content=body, headers=JSON)
    assert (answer.status_code, admin.bundles) == (200, [bundle])
    assert answer.json() == {"model": "m3h-open 1.0.0", "digest": "0" * 64}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, b"", 415),  # a page may send this without a CORS preflight
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"", 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"", 415),
        (JSON | OTHER_PAGE, b"{}", 403),
        (JSON | {"Origin": "null"}, b"{}", 403),
        (JSON | {"Origin": "http://localhost:3000"}, b"{}", 403),
        (JSON | {"Host": "evil.example:8001"}, b"{}", 421),
        (JSON | {"Host": "localhost.evil.example"}, b"{}", 421),
        (JSON | {"Host": ""}, b"{}", 421),
        (JSON | {"Host": "[::1"}, b"{}", 400),
        (JSON | {"Host": "10.0.0.1"}, b"{}", 421),
        (JSON, b'{"bundle": "' + b"x" * 5000 + b'"}', 422),
        (JSON, b'{"bundle": "' + b"x" * 100_000 + b'"}', 413),
        (JSON, b'{"bundel": "x"}', 422),
        (JSON, b"[", 422),
    ],
)
def test_other_requests_are_refused_before_a_bundle_is_loaded(headers, body, status):
    admin = Admin()
    answer = admin.client.post("/admin/reload", content=body, headers=headers)
    assert (answer.status_code, admin.bundles) == (status, [])
    assert answer.headers["content-type"] == "application/problem+json"
    assert "evil" not in answer.text
    assert "xxxx" not in answer.text


def test_a_body_of_unknown_length_is_refused():
    admin = Admin()
    answer = admin.client.post("/admin/reload", content=iter([b"{}"]), headers=JSON)
    assert (answer.status_code, admin.bundles) == (411, [])


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "LOCALHOST:8001"),
        ("127.0.0.1", "localhost.:8001"),
        ("127.0.0.1", "127.0.0.1:8001"),
        ("0.0.0.0", "localhost:8001"),
        ("127.0.0.1", "[::1]:8001"),
        ("m3h.internal", "M3H.internal:8001"),
    ],
)
def test_the_names_of_this_machine_are_accepted(address, host):
    admin = Admin(address)
    answer = admin.client.post("/admin/reload", json={}, headers={"Host": host})
    assert answer.status_code == 200
    same_page = {"Host": host, "Origin": f"http://{host}"}
    assert admin.client.post("/admin/reload", json={}, headers=same_page).status_code == 200
