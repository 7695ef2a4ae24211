"""One process that holds the graphs for all workers."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np

from tests.scraped import scraped
from tests.service.processes import until, workers_of


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
