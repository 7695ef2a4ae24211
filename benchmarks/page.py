"""Load time and transfer size of each view of the dashboard, from localhost.

    python benchmarks/page.py

Starts the service with the shipped bundle and opens each view in Chromium with an empty cache.
Prints the median time until the main content is shown, and the compressed size of the responses.
"""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
# The views, each with a selector of its main content.
VIEWS = {
    "patient": "textarea",
    "tim": "td[data-source]",
    "network": "main h1",
    "model": "main svg",
}
ROUNDS = 7


@contextmanager
def run_service() -> Iterator[str]:
    """Yields the URL of the service."""
    command = [Path(sys.executable).parent / "m3h-serve", "--bundle", "bundles/m3h-open"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--admin-port", "0", "--log-level", "error"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().rpartition(" at ")[2].strip()
    process.terminate()
    process.wait(timeout=30)


def main() -> None:
    print(
        f"| view | ms until it is shown, median of {ROUNDS} | kB transferred, compressed |",
        "|---|---|---|",
        sep="\n",
    )
    with run_service() as url, sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for view, content in VIEWS.items():
            times, size = [], 0.0
            for _ in range(ROUNDS):
                context = browser.new_context()
                page = context.new_page()
                started = time.perf_counter()
                page.goto(f"{url}/#{view}")
                page.wait_for_selector(content)
                times.append(1000 * (time.perf_counter() - started))
                size = page.evaluate(
                    "performance.getEntriesByType('resource')"
                    ".reduce((sum, entry) => sum + entry.encodedBodySize, 0)"
                )
                context.close()
            print(f"| {view} | {statistics.median(times):.0f} | {size / 1000:.0f} |")


if __name__ == "__main__":
    main()
