"""The browser, the service and the pages of the tests of the dashboard."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.servers import service_process

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of the system; the test is skipped without it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=FLAGS)


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    """The folder of the logs of all services that the module starts."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def serve(logs) -> Iterator[Callable[[Path], str]]:
    """`serve(bundle)` starts a service process and returns its URL."""
    processes = []

    def start(bundle: Path) -> str:
        log = logs / f"{len(processes)}.jsonl"
        process, url = service_process.start(bundle, log, M3H_WORKERS="1", M3H_LOG_LEVEL="debug")
        processes.append(process)
        return url.replace("localhost", "127.0.0.1")

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def url(serve, evaluated_bundle) -> str:
    """The URL of a service with the shipped bundle and the figures of a report."""
    return serve(evaluated_bundle)


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[Callable[..., Page]]:
    """`open_page(view=...)` opens a view of the dashboard.

    After the test it asserts that the console has no errors or warnings, and that the page
    contacted only the service. `expected_status` is an HTTP error that the test provokes.
    """
    contexts, faults = [], []
    allowed = {urlsplit(url).netloc}

    def start(at: str = url, view: str = "", expected_status: int = 0, **options: Any) -> Page:
        allowed.add(urlsplit(at).netloc)
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        )
        page = contexts[-1].new_page()

        def check_message(message: Any) -> None:
            expected = expected_status and f"status of {expected_status}" in message.text
            if message.type in ("error", "warning") and not expected:
                faults.append(message.text)

        page.on("console", check_message)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: check_address(request.url))
        page.goto(f"{at}/#{view}")
        expect(page.locator("footer")).to_contain_text("m3h-open")
        return page

    def check_address(address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme != "data" and parts.netloc not in allowed:
            faults.append(address)

    yield start
    for context in contexts:
        context.close()
    assert faults == []
