"""How a replica behaves behind a proxy. `benchmarks/cluster` tests several replicas."""

import http.client
import signal
import time
from urllib.parse import urlsplit

import httpx

from tests.support.servers import service_process


def test_a_draining_replica_accepts_new_connections(bundle_dir, tmp_path, payload):
    process, url = service_process.start(bundle_dir, tmp_path / "log", M3H_DRAIN_SECONDS="6")
    try:
        process.send_signal(signal.SIGTERM)  # while no connection is open
        started = time.monotonic()
        while time.monotonic() < started + 1:
            assert httpx.post(f"{url}/predict", json=payload).status_code == 200
        assert httpx.get(f"{url}/health/ready").status_code == 503
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_an_idle_connection_stays_open(bundle_dir, tmp_path):
    """Otherwise a request that the proxy sends at that moment would be lost."""
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
