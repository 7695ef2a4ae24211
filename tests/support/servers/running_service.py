"""A service in its own process, as tests of its connections see it."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.servers.http_client import Received
from tests.support.servers.prometheus import scraped


@dataclass
class ServiceProcess:
    """A service that runs in its own process."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def refused(self, reason: str) -> float:
        text = httpx.get(f"{self.url}/metrics").text
        return scraped(text, f'm3h_connections_refused_total{{reason="{reason}"}}')

    def logged(self) -> list[str]:
        """Reasons in the log, in order."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line["reason"] for line in lines if line["event"] == "connections refused"]

    def memory(self) -> int:
        """Resident memory of all its processes, in bytes."""
        table = subprocess.run(
            ["ps", "-e", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True
        )
        rows = [tuple(map(int, line.split())) for line in table.stdout.splitlines()]
        return 1024 * sum(size for pid, parent, size in rows if self.process.pid in (pid, parent))


def assert_problem(answer: Received, status: int, slug: str) -> None:
    """Asserts a problem document that closes the connection."""
    assert answer.status == status, answer.content
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"]
    assert answer.json()["type"] == f"urn:m3h:problem:{slug}"
    assert answer.json()["status"] == status
