"""The service below a path prefix, behind HAProxy, which keeps or removes the prefix."""

import shutil
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.servers import service_process

ROOT = Path(__file__).parents[2]
CONFIG = """
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend proxy
  bind "fd@{listener}"
  {rewrite}
  default_backend service
backend service
  server worker {service}
"""
REWRITES = {
    "kept": "",
    "removed": r"http-request replace-path ^/m3h(/|$)(.*) /\2",
}


@pytest.fixture(scope="module")
def direct(evaluated_bundle, tmp_path_factory):
    """The URL of a service with the path prefix `/m3h`, without a proxy."""
    log = tmp_path_factory.mktemp("prefix") / "log.jsonl"
    process, url = service_process.start(
        evaluated_bundle, log, M3H_WORKERS="1", M3H_ROOT_PATH="/m3h"
    )
    yield url.replace("localhost", "127.0.0.1")
    process.kill()
    process.communicate()


@pytest.fixture(scope="module", params=REWRITES)
def proxy(request, direct, tmp_path_factory):
    """The URL of a proxy in front of the service."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = tmp_path_factory.mktemp("proxy") / "haproxy.cfg"
        service = direct.removeprefix("http://")
        rewrite = REWRITES[request.param]
        config.write_text(
            CONFIG.format(listener=listener.fileno(), rewrite=rewrite, service=service)
        )
        command = ["haproxy", "-db", "-f", str(config)]
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as process:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            process.terminate()


def test_all_routes_work_below_the_prefix(proxy):
    for path in (
        "/m3h",
        "/m3h/",
        "/m3h/docs",
        "/m3h/page/app.js",
        "/m3h/tasks",
        "/m3h/health/ready",
    ):
        assert httpx.get(proxy + path).status_code == 200, path
    body = (ROOT / "examples" / "vitals_only.json").read_bytes()
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{proxy}/m3h/predict?explain=none", content=body, headers=headers)
    assert len(answer.json()["predictions"]) == 44
    openapi = httpx.get(f"{proxy}/m3h/openapi.json").json()
    assert openapi["servers"] == [{"url": "/m3h"}]
    assert "/predict" in openapi["paths"]
    assert httpx.get(f"{proxy}/m3h2").status_code == 404


def test_probes_reach_the_service_with_and_without_the_prefix(direct):
    assert httpx.get(f"{direct}/health/ready").status_code == 200
    assert httpx.get(f"{direct}/m3h/health/ready").status_code == 200


@pytest.mark.parametrize("path", ["/m3h", "/m3h/"])
def test_the_dashboard_works_below_the_prefix(proxy, browser, path):
    page = browser.new_page()
    failed = []

    def check_status(response):
        if response.status >= 400:
            failed.append(response.url)

    page.on("response", check_status)
    page.goto(f"{proxy}{path}#model")
    page.locator(".dot-table").first.wait_for()
    licences = page.locator("a", has_text="Licences").get_attribute("href")
    assert licences == f"{proxy}/m3h/page/licenses.txt"
    assert failed == []
    page.close()
