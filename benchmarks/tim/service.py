"""Latency of `GET /tim` over a persistent connection.

python benchmarks/tim/service.py --bundle bundles/m3h-open
"""

import argparse
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np


def milliseconds(
    connection: HTTPConnection, path: str, headers: dict[str, str], count: int
) -> tuple[list[float], int, str | None]:
    """The latency of each response, and the size and the ETag of the last."""
    latencies, size, etag = [], 0, None
    for _ in range(count):
        start = time.perf_counter()
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        size = len(answer.read())
        latencies.append(1000 * (time.perf_counter() - start))
        if answer.status not in (200, 304):
            raise SystemExit(f"GET {path}: {answer.status}")
        etag = answer.getheader("ETag")
    return latencies, size, etag


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    serve = Path(sys.executable).parent / "m3h-serve"
    command = [serve, "--bundle", options.bundle, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as service:
        assert service.stdout is not None
        address = urlsplit(service.stdout.readline().rpartition(" at ")[2].strip())
        connection = HTTPConnection(str(address.hostname), address.port)
        _, _, etag = milliseconds(connection, "/tim", {}, 100)
        requests = {
            "the whole matrix": ("/tim", {}),
            "unchanged (304)": ("/tim", {"If-None-Match": str(etag)}),
            "the five largest of a task": ("/tim?source=sepsis&top=5", {}),
            "CSV": ("/tim", {"Accept": "text/csv"}),
        }
        print("| request | bytes | median, ms | 99th percentile, ms |\n|---|---|---|---|")
        for name, (path, headers) in requests.items():
            latencies, size, _ = milliseconds(connection, path, headers, options.requests)
            median, tail = np.quantile(latencies, [0.5, 0.99])
            print(f"| {name} | {size} | {median:.2f} | {tail:.2f} |")
        service.terminate()


if __name__ == "__main__":
    main()
