"""The API documentation at `/docs`: it works without a network, under the service's own policy."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.support.servers import service_process


@pytest.fixture(scope="module")
def url(bundle_dir, tmp_path_factory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("docs") / "log.jsonl"
    process, url = service_process.start(bundle_dir, log, M3H_WORKERS="1")
    yield url.replace("localhost", "127.0.0.1")
    process.kill()
    process.communicate()


def test_the_documentation_shows_every_operation_and_loads_only_own_files(url, browser: Browser):
    page = browser.new_page()
    errors, hosts = [], set()
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.add_init_script(
        "document.addEventListener('securitypolicyviolation',"
        " violation => console.error('CSP', violation.violatedDirective, violation.blockedURI))"
    )
    page.goto(f"{url}/docs")
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    operations = page.locator(".opblock")
    expect(operations).to_have_count(sum(len(methods) for methods in paths.values()))
    shown = page.locator(".opblock-summary-path").evaluate_all(
        "found => found.map(path => path.dataset.path)"
    )
    assert set(shown) == set(paths)

    operations.filter(has_text="/health/live").first.click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text("200")

    assert errors == []
    assert hosts <= {urlsplit(url).netloc, ""}
    page.close()
