"""The running service that the documentation's commands call."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT


@pytest.fixture(scope="session")
def urls() -> Iterator[dict[str, str]]:
    """The service as `make run` starts it, on free ports: documented address to actual address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        admin_port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "m3h-serve", "--bundle", "bundles/m3h-open"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--admin-port", str(admin_port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    url = process.stdout.readline().rpartition(" at ")[2].strip()
    yield {
        "http://localhost:8000": url,
        "http://localhost:8001": f"http://127.0.0.1:{admin_port}",
    }
    process.terminate()
    process.wait(60)
