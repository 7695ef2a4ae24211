"""Liveness, readiness and the canary."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from tests.support.servers.processes import until
from tests.support.servers.prometheus import scraped


def test_it_is_live_at_once_and_ready_after_the_golden_requests(serve, bundle, payload):
    client = serve(Engine(bundle)).client
    assert client.get("/health/live").json() == {"status": "live"}
    early = client.post("/predict", json=payload)
    assert early.status_code == 503
    assert early.json()["type"] == "urn:m3h:problem:not-ready"
    assert "retry-after" in early.headers
    assert client.get("/health/ready").json() == {"status": "ready"}
    assert client.post("/predict", json=payload).status_code == 200


def test_a_model_with_wrong_golden_answers_is_never_ready(serve, changed_bundle):
    client = serve(Engine(Bundle.load(changed_bundle(other_golden), "cpu"))).client
    for _ in range(2):
        answer = client.get("/health/ready")
        assert answer.status_code == 503
        assert "length_of_stay differs" in answer.json()["detail"]


def test_a_model_that_died_is_not_ready_until_it_answers_again(serve, bundle, payload, monkeypatch):
    engine = Engine(bundle)
    engine.replay_golden()
    client = serve(engine).client
    with monkeypatch.context() as broken:
        broken.setattr(engine, "_fusion_inputs", lambda *_: ({}, {}))
        assert client.post("/predict", json=payload).status_code == 500
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 200


def test_drifting_answers_make_it_not_ready_without_leaking_numbers(serve, bundle, payload):
    engine = Engine(bundle)
    engine.replay_golden()
    client = serve(engine, golden_seconds=0.3).client
    assert client.get("/health/ready").status_code == 200
    manifest = bundle.manifest.model_copy(update={"golden_tolerance": -1.0})
    engine.bundle = replace(bundle, manifest=manifest)  # as if all outputs had drifted
    until(lambda: not engine.verified)
    assert client.get("/health/ready").status_code == 503
    assert client.post("/predict", json=payload).status_code == 503
    engine.bundle = bundle
    until(lambda: client.get("/health/ready").status_code == 200)
    until(lambda: client.post("/predict", json=payload).status_code == 200)


def test_a_model_that_hangs_is_not_ready_until_it_answers(serve, bundle, payload, monkeypatch):
    engine, released = Engine(bundle), Event()
    engine.replay_golden()
    run = engine.run
    monkeypatch.setattr(engine, "run", lambda *arguments: released.wait(60) and run(*arguments))
    client = serve(engine, golden_seconds=0.1).client
    until(lambda: engine.hanging)
    assert client.get("/health/ready").status_code == 503
    released.set()
    until(lambda: not engine.hanging)
    assert client.get("/health/ready").status_code == 200


def canaries(client: Any) -> tuple[dict[str, float], float]:
    """The number of golden requests by result, and the difference of the latest."""
    text = client.get("/metrics").text
    samples = re.findall(r'^m3h_canaries_total\{result="(\w+)"\} (\S+)$', text, re.MULTILINE)
    counts = {result: float(count) for result, count in samples}
    assert counts.keys() == {"passed", "failed", "no_answer"}  # from the start
    return counts, float(re.search(r"^m3h_canary_difference (\S+)$", text, re.MULTILINE)[1])


def test_canaries_are_counted_by_result(serve, bundle, monkeypatch):
    engine = Engine(bundle)
    engine.replay_golden()
    client = serve(engine, golden_seconds=0.3).client
    until(lambda: canaries(client)[0]["passed"] > 1)
    counts, difference = canaries(client)
    assert 0 <= difference <= bundle.manifest.golden_tolerance
    assert counts["failed"] == counts["no_answer"] == 0
    run = engine.run

    def drifted(*arguments: Any) -> Any:
        outputs = run(*arguments)
        outputs[0].fusion["length_of_stay"][:] = 2 * outputs[0].fusion["length_of_stay"] + 1
        return outputs

    with monkeypatch.context() as broken:
        broken.setattr(engine, "run", drifted)
        until(lambda: canaries(client)[0]["failed"] == 1)
        assert canaries(client)[1] >= 0.5
        # The readiness probe then replays the golden requests and counts failures.
        assert client.get("/health/ready").status_code == 503
        assert canaries(client)[0]["failed"] == 2
    assert client.get("/health/ready").status_code == 200
    until(lambda: canaries(client)[0]["passed"] > counts["passed"] + 1)
    assert canaries(client)[1] <= bundle.manifest.golden_tolerance
    assert canaries(client)[0]["failed"] == 2


def test_canaries_continue_after_one_without_an_answer(serve, bundle, payload, monkeypatch):
    engine = Engine(bundle)
    engine.replay_golden()
    run, slow = engine.run, Event()
    slow.set()
    monkeypatch.setattr(
        engine, "run", lambda *arguments: (slow.is_set() and time.sleep(0.3)) or run(*arguments)
    )
    client = serve(engine, golden_seconds=0.1).client
    # Once the time of a request is known, a canary is refused, because it would be late.
    assert client.post("/predict", json=payload).status_code == 200
    until(lambda: canaries(client)[0]["no_answer"] > 2)
    assert engine.hanging
    assert canaries(client)[0]["failed"] == 0
    slow.clear()
    for _ in range(60):
        client.post("/predict", json=payload)
    until(lambda: canaries(client)[0]["passed"] > 1 and not engine.hanging)


def other_golden(_: dict[str, Any], path: Path) -> None:
    first, *others = (path / "golden.jsonl").read_text().splitlines()
    golden = json.loads(first)
    golden["outputs"]["length_of_stay"][0] += 0.5
    (path / "golden.jsonl").write_text("\n".join([json.dumps(golden), *others]))


def test_requests_are_served_while_readiness_replays_golden_requests(bundle):
    seen = []

    class RecordingEngine(Engine):
        def run(self, *arguments: Any) -> Any:
            seen.append(self.verified)
            return super().run(*arguments)

    engine = RecordingEngine(bundle)
    engine.replay_golden()
    assert not any(seen)
    seen.clear()
    engine.replay_golden()
    assert seen
    assert all(seen)


def test_canaries_continue_after_an_internal_error(bundle, serve):
    class FailingEngine(Engine):
        def replay(self, number: int) -> None:
            if self.verified:
                raise ZeroDivisionError("Jane Doe")
            super().replay(number)

    engine = FailingEngine(bundle)
    engine.replay_golden()
    service = serve(engine, golden_seconds=0.05)

    def failed() -> float:
        return scraped(service.client.get("/metrics").text, 'm3h_canaries_total{result="failed"}')

    until(lambda: failed() > 1)
    assert "ZeroDivisionError" in service.log.getvalue()
    assert "Jane" not in service.log.getvalue()
