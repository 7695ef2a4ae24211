"""The service below a path, behind a real proxy that leaves the path as it is or takes it away."""

import shutil
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support import service_process

ROOT = Path(__file__).parents[2]
CONFIG = """
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend door
  bind "fd@{door}"
  {rewrite}
  default_backend service
backend service
  server one {service}
"""
REWRITES = {
    "as it is": "",
    "taken away": r"http-request replace-path ^/m3h(/|$)(.*) /\2",
}


@pytest.fixture(scope="module")
def direct(bundle_dir, tmp_path_factory):
    """The URL of a service that knows its path."""
    log = tmp_path_factory.mktemp("prefix") / "log.jsonl"
    process, url = service_process.start(bundle_dir, log, M3H_WORKERS="1", M3H_ROOT_PATH="/m3h")
    yield url.replace("localhost", "127.0.0.1")
    process.kill()
    process.communicate()


@pytest.fixture(scope="module", params=REWRITES)
def site(request, direct, tmp_path_factory):
    """The URL of the proxy before it."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not there")
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = tmp_path_factory.mktemp("proxy") / "haproxy.cfg"
        service = direct.removeprefix("http://")
        rewrite = REWRITES[request.param]
        config.write_text(CONFIG.format(door=door.fileno(), rewrite=rewrite, service=service))
        command = ["haproxy", "-db", "-f", str(config)]
        with subprocess.Popen(command, pass_fds=[door.fileno()]) as proxy:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
            proxy.terminate()


def test_everything_is_answered_below_the_path(site):
    for path in ("/m3h", "/m3h/", "/m3h/page/app.js", "/m3h/tasks", "/m3h/health/ready"):
        assert httpx.get(site + path).status_code == 200, path
    body = (ROOT / "examples" / "vitals_only.json").read_bytes()
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{site}/m3h/predict?explain=none", content=body, headers=headers)
    assert len(answer.json()["predictions"]) == 44
    document = httpx.get(f"{site}/m3h/openapi.json").json()
    assert document["servers"] == [{"url": "/m3h"}]
    assert "/predict" in document["paths"]
    assert httpx.get(f"{site}/m3h2").status_code == 404


def test_probes_reach_the_service_without_the_path(direct):
    assert httpx.get(f"{direct}/health/ready").status_code == 200
    assert httpx.get(f"{direct}/m3h/health/ready").status_code == 200


@pytest.mark.parametrize("address", ["/m3h", "/m3h/"])
def test_the_dashboard_works_below_the_path(site, browser, address):
    page = browser.new_page()
    failed = []
    page.on("response", lambda got: failed.append(got.url) if got.status >= 400 else None)
    page.goto(f"{site}{address}#model")
    page.locator(".dot-table").first.wait_for()
    licences = page.locator("a", has_text="Licences").get_attribute("href")
    assert licences == f"{site}/m3h/page/licenses.txt"
    assert failed == []
    page.close()
