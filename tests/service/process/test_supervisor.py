"""The processes of `m3h-serve`: start, cooperation and shutdown."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from service.settings import available_cpus
from tests.support.servers.processes import Load, numbers, until, workers_of
from tests.support.servers.prometheus import scraped


def test_the_printed_example_commands_work(started):
    process, _ = started()
    lines = [process.stdout.readline().strip() for _ in range(4)]
    assert lines[0].startswith("Open this address in a browser")
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    root = Path(__file__).parents[3]
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
    # Once a later connection is answered, the first half of this request has been read.
    other = http.client.HTTPConnection(urlsplit(url).netloc)
    other.request("GET", "/health/ready")
    assert other.getresponse().read() == b'{"status":"ready"}'
    process.send_signal(signal.SIGTERM)
    connection.send(body[100:])
    assert len(json.loads(connection.getresponse().read())["predictions"]) > 0
    assert process.wait(60) == 0
    lines = process.stderr.read().splitlines()
    assert all(json.loads(line)["event"] for line in lines), lines


def test_a_body_above_the_limit_is_refused_while_it_arrives(started):
    _, url = started(M3H_MAX_BODY_BYTES="1000")
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    chunks = (b" " * 400 for _ in range(10))
    connection.request("POST", "/predict", chunks, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 413


def test_available_cpus_are_at_most_those_of_the_machine():
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


def test_a_disconnected_client_is_counted_and_its_items_are_dropped(started, payload):
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
    # Only the items before the disconnection are computed.
    assert scraped(text, 'm3h_stage_seconds_count{stage="respond"}') < 64


def test_a_dead_worker_is_replaced_and_its_counters_remain(started, payload):
    process, url = started(M3H_WORKERS="2")
    for _ in range(6):  # each over its own connection, so that both workers get some
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


def test_simultaneous_connections_are_spread_over_the_workers(started):
    process, url = started(M3H_WORKERS="2")
    host, _, port = url.removeprefix("http://").partition(":")

    def open_sockets() -> list[int]:
        folders = [Path(f"/proc/{pid}/fd") for pid in workers_of(process)]
        return [sum("socket" in str(f.readlink()) for f in folder.iterdir()) for folder in folders]

    before = open_sockets()
    with ExitStack() as clients:
        for _ in range(32):
            clients.enter_context(socket.create_connection((host, int(port))))
        until(lambda: sum(open_sockets()) == sum(before) + 32)
        added = [now - then for now, then in zip(open_sockets(), before, strict=True)]
    assert min(added) >= 4


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


def test_an_uncaught_exception_in_a_thread_ends_the_process_and_is_logged_without_its_message():
    program = """
import sys, threading, time
from service.telemetry.logging import make_log, log_uncaught
log_uncaught(make_log("info", sys.stderr))
def fail(): raise ValueError("Jane Doe")
threading.Thread(target=fail, name="m3h-kernel").start()
time.sleep(600)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    line = json.loads(done.stderr)
    assert (line["event"], line["thread"], line["error"]) == (
        "uncaught",
        "m3h-kernel",
        "ValueError",
    )
    assert "Jane" not in done.stderr


@pytest.mark.parametrize(("workers", "cache"), [("1", "100000000"), ("4", "0")])
def test_an_answer_does_not_depend_on_other_requests_the_cache_or_the_worker(
    started, serve, engine, payload, workers, cache
):
    alone = serve(engine, cache_bytes=0)
    payloads = [payload] + [
        {k: v for k, v in payload.items() if k != omitted} for omitted in payload
    ]
    payloads = [p for p in payloads if "as_of" in p]
    expected = [numbers(alone.predict(p)) for p in payloads]
    # A long queue, so that a slow machine refuses no request.
    _, url = started(M3H_WORKERS=workers, M3H_CACHE_BYTES=cache, M3H_QUEUE_MS="60000")

    def differs(number: int) -> float:
        which = number % len(payloads)
        answer = httpx.post(f"{url}/predict", json=payloads[which]).json()
        return np.abs(np.array(numbers(answer)) - expected[which]).max()

    with ThreadPoolExecutor(16) as pool:
        assert max(pool.map(differs, range(20 * len(payloads)))) < 1e-5
    if workers == "1":  # several workers may have no batch with two rows
        text = httpx.get(f"{url}/metrics").text
        assert scraped(text, "m3h_batch_rows_count") < scraped(text, "m3h_batch_rows_sum")


@pytest.mark.parametrize("graphs", ["own", "shared"])
def test_sigterm_under_load_loses_no_request(started, payload, graphs):
    process, url = started(M3H_WORKERS="2", M3H_DRAIN_SECONDS="0.5", M3H_GRAPHS=graphs)
    load = Load(url, payload)
    with load.from_clients(4):
        load.ending.set()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert load.failed == []
