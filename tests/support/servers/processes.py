"""Functions for tests with the processes of a running `m3h-serve`."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    pids = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, *_ = status.read_text().split(maxsplit=1)
            parent = status.read_text().rpartition(")")[2].split()[1]
            command = (status.parent / "cmdline").read_text()
            if int(parent) == process.pid and "spawn_main" in command:
                pids.append(int(pid))
    return pids


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := true():
            return result
        time.sleep(0.05)
    pytest.fail("the condition did not become true")


def admin_url(process: subprocess.Popen[str]) -> str:
    for line in process.stderr:
        entry = json.loads(line)
        if entry["event"] == "admin":
            return f"http://127.0.0.1:{entry['port']}/admin/reload"
    pytest.fail("the log has no admin port")


def versions(url: str, payload: dict[str, Any], times: int = 8) -> set[str]:
    """The bundle versions in answers. Each request has its own connection, to reach all workers."""
    answers = [httpx.post(f"{url}/predict", json=payload).json() for _ in range(times)]
    return {answer["model"]["version"] for answer in answers}


def numbers(answer: dict[str, Any]) -> list[float]:
    """All probabilities of an answer, and its days divided by 30."""
    values = []
    for task in answer["predictions"]:
        values += [task["probability"]] if "probability" in task else []
        values += task.get("probabilities", {}).values()
        values += [task["value"] / 30] if "value" in task else []
    return values


@dataclass
class Load:
    """Clients that repeat one request, each over its own keep-alive connection."""

    url: str
    payload: dict[str, Any]
    answers: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ending: Event = field(default_factory=Event)
    over: Event = field(default_factory=Event)

    @contextmanager
    def from_clients(self, count: int) -> Iterator[None]:
        with ThreadPoolExecutor(count) as pool:
            for _ in range(count):
                pool.submit(self._call)
            until(lambda: len(self.answers) >= 2 * count or self.failed)
            try:
                yield
            finally:
                self.over.set()

    def _call(self) -> None:
        with httpx.Client(timeout=30) as client:
            accepted = False
            while not self.over.is_set():
                try:
                    answer = client.post(f"{self.url}/predict", json=self.payload)
                except httpx.HTTPError as error:
                    # A refused connection is no failure once the service shuts down.
                    if accepted or not self.ending.is_set():
                        self.failed.append(type(error).__name__)
                    return
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                    return
                self.answers.append(answer.json())
                accepted = answer.headers.get("connection") != "close"

    def probabilities(self) -> list[list[float]]:
        return [
            [p["probability"] for p in answer["predictions"] if "probability" in p]
            for answer in self.answers
        ]


def logged(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """The log entries since the last call. Every line must be JSON."""
    return [json.loads(line) for line in process.stderr]


def serving(url: str) -> dict[str, float]:
    """The number of workers that serve each version."""
    text = httpx.get(f"{url}/metrics", timeout=30).text
    samples = re.findall(r'm3h_bundle_info\{.*version="(.*?)"\} (\S+)', text)
    return {version: float(count) for version, count in samples}
