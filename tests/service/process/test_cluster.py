"""What a replica owes the proxy before it; `benchmarks/cluster` shows what becomes of several."""

import http.client
import signal
import time
from urllib.parse import urlsplit

import httpx

from tests.support import service_process


def test_a_replica_that_ends_lets_new_callers_in_until_the_drain_is_over(
    bundle_dir, tmp_path, payload
):
    process, url = service_process.start(bundle_dir, tmp_path / "log", M3H_DRAIN_SECONDS="6")
    try:
        process.send_signal(signal.SIGTERM)  # while nobody is in
        told = time.monotonic()
        while time.monotonic() < told + 1:
            assert httpx.post(f"{url}/predict", json=payload).status_code == 200
        assert httpx.get(f"{url}/health/ready").status_code == 503
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_connection_stays_while_nothing_is_asked_on_it(bundle_dir, tmp_path):
    """What closes before the proxy's pool does, loses the request that is on its way by then."""
    process, url = service_process.start(bundle_dir, tmp_path / "log")
    try:
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        connection.auto_open = 0
        connection.connect()
        for _ in range(2):
            connection.request("GET", "/health/live")
            assert connection.getresponse().read()
            time.sleep(6)
    finally:
        process.kill()
        process.communicate()
