"""Workers that die, hang or cannot start, and signals."""

import http.client
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from schemas.manifest import read_manifest
from service.process.child_process import Backoff
from tests.support.servers.processes import admin_url, logged, serving, until, workers_of
from tests.support.servers.prometheus import scraped


def test_the_backoff_doubles_up_to_30_seconds_and_resets():
    backoff = Backoff()
    assert [backoff.next(1.0) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert [backoff.next(seconds) for seconds in (60.0, 1.0)] == [1, 2]
    backoff.reset()
    assert backoff.next(1.0) == 1


def test_a_worker_that_dies_repeatedly_is_restarted_with_backoff(started):
    process, url = started(M3H_WORKERS="1")
    waits = []
    for _ in range(3):
        (worker,) = until(lambda: workers_of(process))
        os.kill(worker, signal.SIGKILL)  # while it serves or loads
        waits += until(lambda: [x["again_in"] for x in logged(process) if "again_in" in x])
    assert waits == [1, 2, 4]
    until(lambda: workers_of(process))
    until(lambda: httpx.get(f"{url}/health/ready", timeout=60).status_code == 200)


def test_requests_wait_for_the_worker_that_replaces_a_dead_one(started, payload):
    process, url = started(M3H_WORKERS="1", M3H_DEADLINE_MS="60000")
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGKILL)
    until(lambda: worker not in workers_of(process))
    with ThreadPoolExecutor(8) as pool:
        answers = [
            pool.submit(httpx.post, f"{url}/predict", json=payload, timeout=90) for _ in range(16)
        ]
    assert {answer.result().status_code for answer in answers} == {200}


def test_requests_get_503_once_no_worker_has_served_for_the_deadline(started, other_version):
    bundle = other_version("2.0.0")
    process, url = started(bundle, M3H_WORKERS="1", M3H_DEADLINE_MS="3000")
    shutil.rmtree(bundle)  # no other worker can start
    (worker,) = workers_of(process)
    died = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    until(lambda: worker not in workers_of(process))
    first, second = (httpx.get(f"{url}/health/ready", timeout=60) for _ in range(2))
    assert (first.status_code, second.status_code) == (503, 503)
    assert time.monotonic() - died >= 3
    assert first.elapsed > second.elapsed  # the second one does not wait again


def test_a_service_without_workers_answers_503(started, payload, other_version):
    bundle = other_version("2.0.0")
    process, url = started(bundle, M3H_WORKERS="1", M3H_DEADLINE_MS="1000")
    admin = admin_url(process)
    shutil.rmtree(bundle)  # no other worker can start
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGKILL)
    for answer in (
        httpx.get(f"{url}/health/ready", timeout=60),
        httpx.post(f"{url}/predict", content=b" " * 2**20, timeout=60),
    ):
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:m3h:problem:not-ready")
        assert answer.headers["retry-after"] == "5"
    reloaded = httpx.post(admin, json={"bundle": str(other_version("3.0.0"))}, timeout=120)
    assert reloaded.status_code == 200, reloaded.text
    until(lambda: httpx.get(f"{url}/health/ready", timeout=60).status_code == 200)
    assert httpx.post(f"{url}/predict", json=payload).json()["model"]["version"] == "3.0.0"


def test_more_workers_than_threads_of_a_pool_start(started, other_version, payload):
    count = min(32, (os.cpu_count() or 1) + 4) + 1 if (os.cpu_count() or 1) <= 4 else 8
    process, url = started(other_version("2.0.0"), M3H_WORKERS=str(count))
    admin = admin_url(process)
    assert serving(url) == {"2.0.0": count}
    answer = httpx.post(admin, json={"bundle": str(other_version("3.0.0"))}, timeout=300)
    assert answer.status_code == 200, answer.text
    assert serving(url) == {"2.0.0": 0, "3.0.0": count}
    process.terminate()
    assert process.wait(120) == 0
    assert {line["event"] for line in logged(process)} <= {"bundle served", "request"}


def test_counters_survive_a_worker_and_use_no_files(started, payload, tmp_path, bundle_dir):
    version = read_manifest(bundle_dir)[0].version
    folder = tmp_path / "temporary"
    folder.mkdir()
    process, url = started(M3H_WORKERS="1", TMPDIR=str(folder))
    counted = 'm3h_requests_total{route="/predict",status="200"}'
    for round_ in range(1, 4):
        for _ in range(3):
            answer = httpx.post(f"{url}/predict", json=payload, timeout=60)
            assert answer.status_code == 200
        text = httpx.get(f"{url}/metrics", timeout=60).text
        assert scraped(text, counted) == 3 * round_
        assert serving(url) == {version: 1}
        (worker,) = workers_of(process)
        maps = Path(f"/proc/{worker}/maps").read_text()
        assert str(folder) not in maps
        assert [*folder.iterdir()] == []
        os.kill(worker, signal.SIGKILL)
        until(lambda worker=worker: set(workers_of(process)) - {worker})


@pytest.mark.parametrize(
    ("number", "graphs"),
    [
        (signal.SIGTERM, "own"),
        (signal.SIGINT, "own"),
        (signal.SIGQUIT, "own"),
        (signal.SIGHUP, "shared"),
    ],
)
def test_a_terminating_signal_leaves_no_process_and_no_file(started, tmp_path, number, graphs):
    folder = tmp_path / "temporary"
    folder.mkdir()
    process, url = started(
        M3H_WORKERS="1", M3H_GRAPHS=graphs, M3H_DRAIN_SECONDS="0", TMPDIR=str(folder)
    )
    children = workers_of(process)
    ignored = {"SIGUSR1", "SIGUSR2"}
    for name in ignored:
        process.send_signal(signal.Signals[name])
    signals: set[str] = set()
    until(
        lambda: (
            signals.update(line.get("signal", "") for line in logged(process)) or ignored <= signals
        )
    )
    assert httpx.get(f"{url}/health/live").status_code == 200
    for child in children:  # as a terminal sends a signal to its process group
        if number != signal.SIGTERM:
            os.kill(child, number)
    process.send_signal(number)
    assert process.wait(60) == 0
    assert [*folder.iterdir()] == []
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    logged(process)  # every line is JSON


def test_a_request_that_outlasts_the_shutdown_is_503(started, payload):
    process, url = started(M3H_WORKERS="1", M3H_DRAIN_SECONDS="0", M3H_SHUTDOWN_SECONDS="1")
    body = json.dumps(payload).encode()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:100])
    assert httpx.get(f"{url}/health/ready").status_code == 200
    process.terminate()
    answer = connection.getresponse()
    problem = json.loads(answer.read())
    assert (answer.status, problem["type"]) == (503, "urn:m3h:problem:not-ready")
    assert "M3H_SHUTDOWN_SECONDS" in problem["detail"]
    assert answer.headers["Retry-After"]
    assert process.wait(60) == 0
    lines = logged(process)
    (line,) = [x for x in lines if x["event"] == "request" and x["route"] == "/predict"]
    assert line["status"] == 503
    assert not [x for x in lines if "Exception" in x["event"]]


def test_a_supervisor_without_file_descriptors_recovers(started):
    process, url = started(M3H_WORKERS="2")
    limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    (first, _) = workers_of(process)
    open_files = [int(file.name) for file in Path(f"/proc/{process.pid}/fd").iterdir()]
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (max(open_files) + 1, limits[1]))
    os.kill(first, signal.SIGKILL)
    lines: list[dict[str, Any]] = []

    def refused() -> bool:
        lines.extend(logged(process))
        return any("Too many open files" in line.get("fault", "") for line in lines)

    until(refused)
    assert process.poll() is None
    assert httpx.get(f"{url}/health/ready", timeout=60).status_code == 200
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
    until(lambda: len(workers_of(process)) == 2)


def test_an_uncaught_exception_of_a_child_is_logged_in_one_line():
    program = """
import sys
from multiprocessing import get_context
from service.telemetry.logging import make_log, run_child
def fail(): raise ValueError("Jane Doe")
def child(): run_child(make_log("info", sys.stderr), fail)
if __name__ == "__main__":
    process = get_context("fork").Process(target=child)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    line = json.loads(done.stderr)
    assert (line["event"], line["thread"], line["error"]) == ("uncaught", "main", "ValueError")
    assert "Jane" not in done.stderr


def test_an_uncaught_exception_of_a_task_is_logged_without_its_message():
    program = """
import asyncio, gc, sys
from service.telemetry.logging import log_uncaught_in, make_log
async def fail(): raise ValueError("Jane Doe")
async def main():
    log_uncaught_in(asyncio.get_running_loop(), make_log("info", sys.stderr))
    task = asyncio.create_task(fail())
    await asyncio.wait({task})
    del task
    gc.collect()
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    line = json.loads(done.stderr)
    assert (line["event"], line["error"]) == ("uncaught", "ValueError")
    assert "Jane" not in done.stderr


def test_a_full_log_disk_fails_no_request(bundle_dir, payload):
    """/dev/full behaves like a full disk."""
    command = [sys.executable, "-c", "from service.cli import app; app()"]
    options = ["--bundle", str(bundle_dir), "--port", "0", "--admin-port", "0", "--workers", "1"]
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device, not a file
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=full, text=True
        )
    try:
        url = process.stdout.readline().rpartition(" at ")[2].strip()
        assert httpx.post(f"{url}/predict", json=payload).status_code == 200
        assert httpx.post(f"{url}/predict", content=b"[").status_code == 415
    finally:
        process.terminate()
        assert process.wait(60) == 0
