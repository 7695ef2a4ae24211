"""One process that holds the graphs for all workers."""

import asyncio
import io
import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import httpx
import numpy as np

from service.process.graph_supervisor import GraphSupervisor
from service.settings import Settings
from service.telemetry.logging import make_log
from tests.support.servers.processes import logged, until, workers_of
from tests.support.servers.prometheus import scraped


def test_shared_graphs_give_the_answers_of_own_graphs_and_are_replaced_after_a_crash(
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
        for values in pool.map(lambda _: probabilities(), range(24)):
            np.testing.assert_allclose(values[:40], expected, atol=1e-5)
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


def test_a_graph_server_that_hangs_is_replaced_and_requests_are_refused_in_time(started, payload):
    process, url = started(M3H_WORKERS="1", M3H_GRAPHS="shared", M3H_GRAPHS_SECONDS="3")
    graphs = min(workers_of(process))
    os.kill(graphs, signal.SIGSTOP)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.post, f"{url}/predict", json=payload, timeout=60)
        while not waiting.done():
            live = httpx.get(f"{url}/health/live", timeout=60)
            assert live.elapsed.total_seconds() < 5  # probes do not wait for the graphs
    assert waiting.result().status_code in (503, 504)
    assert time.monotonic() - began < 30  # the request has a deadline of 10 s
    until(lambda: httpx.post(f"{url}/predict", json=payload, timeout=60).status_code == 200)
    assert graphs not in workers_of(process)
    died = next(line for line in logged(process) if line["event"] == "graph server died")
    assert died["fault"] == "it did not reply to a ping"


def test_requests_get_503_if_the_bundle_of_the_graph_server_was_removed(
    started, other_version, payload
):
    bundle = other_version("2.0.0")
    process, url = started(bundle, M3H_WORKERS="1", M3H_GRAPHS="shared")
    assert httpx.post(f"{url}/predict", json=payload).status_code == 200
    shutil.rmtree(bundle)
    os.kill(min(workers_of(process)), signal.SIGKILL)

    def refused() -> bool:
        answer = httpx.post(f"{url}/predict", json=payload)
        assert answer.status_code == 503
        return "is not a bundle" in answer.json()["detail"]

    until(refused)  # refused by the restarted server, not because it restarts
    assert httpx.get(f"{url}/health/ready").status_code == 503


def test_a_long_name_of_the_temporary_directory_has_no_effect(started, payload, tmp_path):
    folder = tmp_path / ("t" * 150)
    folder.mkdir()
    process, url = started(M3H_WORKERS="1", M3H_GRAPHS="shared", TMPDIR=str(folder))
    assert httpx.post(f"{url}/predict", json=payload).status_code == 200
    assert [*folder.iterdir()] == []
    process.terminate()
    assert process.wait(60) == 0


def test_a_graph_server_that_cannot_start_is_reported_at_once():
    async def start() -> str:
        log = make_log("info", io.StringIO())
        supervisor = GraphSupervisor(Settings(), log, get_context("spawn"))
        with socket.socket(socket.AF_UNIX) as taken:
            taken.bind(supervisor.address)
            running = asyncio.create_task(supervisor.supervise_graph_server())
            fault = await asyncio.wait_for(supervisor.first_fault, 60)
            await running
        return fault

    assert asyncio.run(start()) == (
        "the graph server did not start: it cannot listen: Address already in use"
    )
