"""The processes of `m3h-serve`: how they begin, live together and end."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from service.settings import available_cpus
from tests.scraped import scraped


def test_the_first_command_that_it_shows_works(started):
    process, _ = started()
    lines = [process.stdout.readline().strip() for _ in range(4)]
    assert lines[0].startswith("Open it in a browser")
    if shutil.which("curl") is None:
        pytest.skip("curl is not there")
    root = Path(__file__).parents[2]
    predict, tasks, card = (
        subprocess.run(line, shell=True, cwd=root, capture_output=True, text=True, check=True)
        for line in lines[1:]
    )
    assert len(json.loads(predict.stdout)["predictions"]) == 44
    assert len(json.loads(tasks.stdout)["tasks"]) == 44
    assert card.stdout.startswith("# m3h-open")


def test_sigterm_lets_a_running_request_finish(started, payload):
    process, url = started()
    body = json.dumps(payload).encode()
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:100])
    # The half request is being read once another connection, made after it, is answered.
    other = http.client.HTTPConnection(urlsplit(url).netloc)
    other.request("GET", "/health/ready")
    assert other.getresponse().read() == b'{"status":"ready"}'
    process.send_signal(signal.SIGTERM)
    connection.send(body[100:])
    assert len(json.loads(connection.getresponse().read())["predictions"]) > 0
    assert process.wait(20) == 0
    lines = process.stderr.read().splitlines()
    assert all(json.loads(line)["event"] for line in lines), lines


def test_a_body_over_the_limit_is_refused_while_it_is_still_coming(started):
    _, url = started(M3H_MAX_BODY_BYTES="1000")
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    chunks = (b" " * 400 for _ in range(10))
    connection.request("POST", "/predict", chunks, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 413


def test_no_more_processors_are_used_than_are_there():
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


def test_a_caller_who_hangs_up_is_counted_and_not_answered(started, payload):
    _, url = started()
    host, _, port = url.removeprefix("http://").partition(":")
    body = json.dumps({"items": [payload] * 64}).encode()
    head = f"POST /predict/batch HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.02)
    name = 'm3h_requests_total{route="/predict/batch",status="499"}'
    for _ in range(100):
        text = httpx.get(f"{url}/metrics").text
        if scraped(text, name):
            break
        time.sleep(0.05)
    assert scraped(text, name) == 1
    # Of 64 patients those are answered that were computed before.
    assert scraped(text, 'm3h_stage_seconds_count{stage="respond"}') < 64


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


def until(true: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.05)
    pytest.fail("it did not come to be")


def test_a_worker_that_dies_is_replaced_and_what_it_counted_stays(started, payload):
    process, url = started(M3H_WORKERS="2")
    for _ in range(6):  # over connections of their own, so that both workers have some
        assert httpx.post(f"{url}/predict", json=payload).status_code == 200
    counted = 'm3h_requests_total{route="/predict",status="200"}'
    assert scraped(httpx.get(f"{url}/metrics").text, counted) == 6
    first, second = workers_of(process)
    os.kill(first, signal.SIGKILL)
    until(lambda: len(workers_of(process)) == 2 and first not in workers_of(process))
    assert second in workers_of(process)
    for _ in range(6):
        assert httpx.post(f"{url}/predict", json=payload).status_code == 200
    assert scraped(httpx.get(f"{url}/metrics").text, counted) == 12


def test_shared_graphs_say_what_own_ones_say_and_are_replaced_when_their_process_dies(
    started, service, payload
):
    def probabilities() -> list[float] | None:
        answer = httpx.post(f"{url}/predict", json=payload)
        if answer.status_code != 200:  # while there is no process that holds the graphs
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            return None
        return [p["probability"] for p in answer.json()["predictions"] if "probability" in p]

    expected = [p["probability"] for p in service.predict(payload)["predictions"][:40]]
    process, url = started(M3H_WORKERS="2", M3H_GRAPHS="shared")
    graphs, *workers = sorted(workers_of(process))
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: probabilities(), range(24)):
            np.testing.assert_allclose(found[:40], expected, atol=1e-5)
    os.kill(graphs, signal.SIGKILL)
    until(lambda: all(probabilities() for _ in range(8)))
    assert set(workers) < set(workers_of(process))
    assert httpx.get(f"{url}/health/ready").status_code == 200


def test_canaries_of_all_workers_are_counted_and_fail_while_no_process_has_the_graphs(started):
    process, url = started(M3H_WORKERS="2", M3H_GRAPHS="shared", M3H_GOLDEN_SECONDS="0.2")

    def count(result: str) -> float:
        return scraped(httpx.get(f"{url}/metrics").text, f'm3h_canaries_total{{result="{result}"}}')

    until(lambda: count("passed") > 3)
    assert count("failed") == 0
    assert 0 <= scraped(httpx.get(f"{url}/metrics").text, "m3h_canary_difference") < 1e-3
    os.kill(min(workers_of(process)), signal.SIGKILL)  # the graphs; workers are started after them
    until(lambda: count("failed") > 0)
    before = count("passed")
    until(lambda: count("passed") > before)


def test_callers_who_come_at_once_are_shared_by_the_workers(started):
    process, url = started(M3H_WORKERS="2")
    host, _, port = url.removeprefix("http://").partition(":")

    def open_sockets() -> list[int]:
        folders = [Path(f"/proc/{pid}/fd") for pid in workers_of(process)]
        return [sum("socket" in str(f.readlink()) for f in folder.iterdir()) for folder in folders]

    before = open_sockets()
    with ExitStack() as callers:
        for _ in range(32):
            callers.enter_context(socket.create_connection((host, int(port))))
        until(lambda: sum(open_sockets()) == sum(before) + 32)
        taken = [now - then for now, then in zip(open_sockets(), before, strict=True)]
    assert min(taken) >= 4


@pytest.mark.parametrize("graphs", ["own", "shared"])
def test_workers_do_not_outlive_their_supervisor(started, graphs):
    process, url = started(M3H_WORKERS="2", M3H_GRAPHS=graphs)
    workers = workers_of(process)
    assert len(workers) == 2 + (graphs == "shared")
    process.kill()
    process.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health/live")


def test_what_nobody_caught_ends_the_process_and_is_logged_without_a_word_of_a_patient():
    program = """
import sys, threading, time
from service.log import make_log, quote_nothing_uncaught
quote_nothing_uncaught(make_log("info", sys.stderr))
def fail(): raise ValueError("Jane Doe")
threading.Thread(target=fail, name="m3h-kernel").start()
time.sleep(20)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=15
    )
    assert done.returncode == 1
    line = json.loads(done.stderr)
    assert (line["event"], line["thread"], line["error"]) == (
        "uncaught",
        "m3h-kernel",
        "ValueError",
    )
    assert "Jane" not in done.stderr


# ------------------------------------------------------------------------------- under load


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


@pytest.fixture
def other_version(changed_bundle) -> Callable[[str], Path]:
    def made(version: str) -> Path:
        def edit(manifest: dict[str, Any], _: Path) -> None:
            manifest["version"] = version

        return changed_bundle(edit)

    return made


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


@pytest.mark.parametrize(("workers", "cache"), [("1", "100000000"), ("4", "0")])
def test_an_answer_does_not_depend_on_who_else_asks_on_what_is_kept_or_on_the_worker(
    started, serve, engine, payload, workers, cache
):
    alone = serve(engine, cache_bytes=0)
    payloads = [payload] + [{k: v for k, v in payload.items() if k != left} for left in payload]
    payloads = [one for one in payloads if "as_of" in one]
    expected = [numbers(alone.predict(one)) for one in payloads]
    # None is refused, however slow the machine is.
    _, url = started(M3H_WORKERS=workers, M3H_CACHE_BYTES=cache, M3H_QUEUE_MS="60000")

    def differs(number: int) -> float:
        which = number % len(payloads)
        answer = httpx.post(f"{url}/predict", json=payloads[which]).json()
        return np.abs(np.array(numbers(answer)) - expected[which]).max()

    with ThreadPoolExecutor(16) as pool:
        assert max(pool.map(differs, range(20 * len(payloads)))) < 1e-5
    rows = scraped(httpx.get(f"{url}/metrics").text, "m3h_batch_rows_sum")
    assert scraped(httpx.get(f"{url}/metrics").text, "m3h_batch_rows_count") < rows


def numbers(answer: dict[str, Any]) -> list[float]:
    """Every probability of an answer, and the days, by their ratio to a month."""
    found = []
    for task in answer["predictions"]:
        found += [task["probability"]] if "probability" in task else []
        found += task.get("probabilities", {}).values()
        found += [task["value"] / 30] if "value" in task else []
    return found


@pytest.mark.parametrize("graphs", ["own", "shared"])
def test_bundles_are_changed_under_load_without_a_failed_or_a_wrong_answer(
    started, other_version, payload, graphs
):
    one, other = other_version("2.0.0"), other_version("3.0.0")
    process, url = started(one, M3H_WORKERS="2", M3H_GRAPHS=graphs)
    admin = admin_url(process)
    load = Load(url, payload)
    with load.from_callers(4):
        for bundle, version in ((other, "3.0.0"), (one, "2.0.0")) * 2:
            told = httpx.post(admin, json={"bundle": str(bundle)}, timeout=60)
            assert told.status_code == 200, told.text
            assert version in told.json()["model"]
            assert versions(url, payload) == {version}
    assert load.failed == []
    assert {answer["model"]["version"] for answer in load.answers} == {"2.0.0", "3.0.0"}
    found = load.probabilities()
    np.testing.assert_allclose(found, [found[0]] * len(found), atol=1e-5)
    text = httpx.get(f"{url}/metrics").text
    serving = re.findall(r'm3h_bundle_info\{.*version="(.*?)"\} (\S+)', text)
    assert dict(serving) == {"2.0.0": "2.0", "3.0.0": "0.0"}


def test_a_bundle_that_fails_is_refused_and_the_old_one_goes_on(
    started, other_version, payload, changed_bundle
):
    def spoil(manifest: dict[str, Any], path: Path) -> None:
        manifest["version"] = "spoilt"
        text = (path / "golden.jsonl").read_text().replace("0.0", "0.9", 10)
        (path / "golden.jsonl").write_text(text)

    process, url = started(other_version("2.0.0"), M3H_WORKERS="2")
    admin = admin_url(process)
    for bundle in (changed_bundle(spoil), Path("/nowhere")):
        told = httpx.post(admin, json={"bundle": str(bundle)}, timeout=60)
        assert told.status_code == 422
        assert told.json()["type"] == "urn:m3h:problem:bundle-refused"
        assert told.json()["detail"]
        assert versions(url, payload) == {"2.0.0"}
    assert httpx.get(f"{url}/admin/reload").status_code == 404  # not where patients are asked for


def test_a_bundle_that_changes_on_disk_is_not_served_before_it_is_reloaded(
    started, other_version, payload
):
    bundle, later = other_version("2.0.0"), other_version("3.0.0")
    process, url = started(bundle, M3H_WORKERS="2")
    admin = admin_url(process)
    shutil.copytree(later, bundle, dirs_exist_ok=True)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    time.sleep(4)  # long enough for a worker to begin
    assert versions(url, payload) == {"2.0.0"}
    until(lambda: httpx.post(admin, json={}, timeout=60).status_code == 200)
    assert versions(url, payload) == {"3.0.0"}
    until(lambda: len(workers_of(process)) == 2)


@pytest.mark.parametrize("graphs", ["own", "shared"])
def test_sigterm_under_load_loses_no_request(started, payload, graphs):
    process, url = started(M3H_WORKERS="2", M3H_DRAIN_SECONDS="0.5", M3H_GRAPHS=graphs)
    load = Load(url, payload)
    with load.from_callers(4):
        load.ending.set()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert load.failed == []
