"""What tests do with the processes of a running `m3h-serve`."""

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
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, *_ = status.read_text().split(maxsplit=1)
            parent = status.read_text().rpartition(")")[2].split()[1]
            command = (status.parent / "cmdline").read_text()
            if int(parent) == process.pid and "spawn_main" in command:
                found.append(int(pid))
    return found


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.05)
    pytest.fail("it did not come to be")


def admin_url(process: subprocess.Popen[str]) -> str:
    for line in process.stderr:
        told = json.loads(line)
        if told["event"] == "admin":
            return f"http://127.0.0.1:{told['port']}/admin/reload"
    pytest.fail("it never says where its admin port is")


def versions(url: str, payload: dict[str, Any], times: int = 8) -> set[str]:
    """Over connections of their own, so that all workers are asked."""
    answers = [httpx.post(f"{url}/predict", json=payload).json() for _ in range(times)]
    return {answer["model"]["version"] for answer in answers}


def numbers(answer: dict[str, Any]) -> list[float]:
    """Every probability of an answer, and the days, by their ratio to a month."""
    found = []
    for task in answer["predictions"]:
        found += [task["probability"]] if "probability" in task else []
        found += task.get("probabilities", {}).values()
        found += [task["value"] / 30] if "value" in task else []
    return found


@dataclass
class Load:
    """Callers who ask for one patient again and again, each over a connection that stays open."""

    url: str
    payload: dict[str, Any]
    answers: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ending: Event = field(default_factory=Event)
    over: Event = field(default_factory=Event)

    @contextmanager
    def from_callers(self, count: int) -> Iterator[None]:
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
            let_in = False
            while not self.over.is_set():
                try:
                    answer = client.post(f"{self.url}/predict", json=self.payload)
                except httpx.HTTPError as error:
                    # To be let in by nobody is no failure once the service ends.
                    if let_in or not self.ending.is_set():
                        self.failed.append(type(error).__name__)
                    return
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                    return
                self.answers.append(answer.json())
                let_in = answer.headers.get("connection") != "close"

    def probabilities(self) -> list[list[float]]:
        return [
            [p["probability"] for p in answer["predictions"] if "probability" in p]
            for answer in self.answers
        ]


def logged(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What it has logged since it was last asked. Every line is JSON, whatever went wrong."""
    return [json.loads(line) for line in process.stderr]


def serving(url: str) -> dict[str, float]:
    """How many workers serve each version."""
    text = httpx.get(f"{url}/metrics", timeout=30).text
    found = re.findall(r'm3h_bundle_info\{.*version="(.*?)"\} (\S+)', text)
    return {version: float(count) for version, count in found}
