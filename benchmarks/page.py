"""How long the dashboard takes to be there, from localhost, and how much of it is sent.

    python benchmarks/page.py

Starts the service with the shipped bundle, opens each view in Chromium with an empty cache, and
tells the median of the times until its main part is there, and the bytes that came, compressed.
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
VIEWS = {
    "patient": "textarea",
    "tim": "td[data-source]",
    "network": "main h1",
    "model": "main svg",
}
ROUNDS = 7


@contextmanager
def served() -> Iterator[str]:
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
        "| view | ms until it is there, median of 7 | kB sent, compressed |",
        "|---|---|---|",
        sep="\n",
    )
    with served() as url, sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for view, there in VIEWS.items():
            times, sent = [], 0.0
            for _ in range(ROUNDS):
                context = browser.new_context()
                page = context.new_page()
                started = time.perf_counter()
                page.goto(f"{url}/#{view}")
                page.wait_for_selector(there)
                times.append(1000 * (time.perf_counter() - started))
                sent = page.evaluate(
                    "performance.getEntriesByType('resource')"
                    ".reduce((sum, one) => sum + one.encodedBodySize, 0)"
                )
                context.close()
            print(f"| {view} | {statistics.median(times):.0f} | {sent / 1000:.0f} |")


if __name__ == "__main__":
    main()
