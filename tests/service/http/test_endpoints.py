"""What the service says of itself: its model, its health, its work."""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from service.prediction import batcher
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from tests.support.processes import until
from tests.support.prometheus import scraped

# ------------------------------------------------------------------------------------ the model


def test_tasks_are_the_bundles_own(service, bundle):
    tasks = service.client.get("/tasks").json()["tasks"]
    assert [t["name"] for t in tasks] == [f.task.name for f in bundle.manifest.tasks]
    assert all(t["means"] and t["department"] for t in tasks)
    assert "eicu_pattern" not in tasks[0]


def test_variables_say_which_units_are_accepted(service, bundle):
    found = service.client.get("/variables").json()
    creatinine = next(v for v in found["variables"] if v["name"] == "creatinine")
    assert creatinine["units"][0] == "mg/dL"
    assert "umol/L" in creatinine["units"]
    assert "2160-0" in creatinine["loinc"]
    assert len(creatinine["plausible"]) == 2
    assert {t["name"] for t in found["treatments"]} == {
        t.name for t in bundle.manifest.spec.treatments
    }
    assert found["categories"]["sex"] == ["female", "male"]


def test_every_accepted_unit_is_accepted(service, payload):
    """What `GET /variables` says is what `POST /predict` takes."""
    found = service.client.get("/variables").json()
    time = payload["as_of"]
    payload["series"] = [
        {"variable": v["name"], "unit": unit, "times": [time], "values": [1]}
        for v in found["variables"]
        for unit in v["units"]
    ]
    service.predict(payload)


def test_the_model_in_figures_is_that_of_the_manifest(service, bundle):
    told = service.client.get("/model").json()
    assert (told["name"], told["digest"]) == (bundle.manifest.name, bundle.digest)
    assert told["evaluation"] == bundle.manifest.evaluation
    assert [c["name"] for c in told["cohorts"]] == [c.name for c in bundle.manifest.cohorts]
    assert "recalibration" not in told


DOCUMENTS = {"tim.json": "/tim", "MODEL_CARD.md": "/model-card"}


def test_the_model_card_is_served_as_it_lies_in_the_bundle(service, bundle_dir):
    answer = service.client.get("/model-card")
    assert answer.text == (bundle_dir / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    again = service.client.get("/model-card", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_a_bundle_without_them_says_so(serve, changed_bundle):
    def leave_out(manifest: dict[str, Any], path: Path) -> None:
        for name in DOCUMENTS:
            (path / name).unlink(missing_ok=True)
            manifest["files"].pop(name, None)

    client = serve(Engine(Bundle.load(changed_bundle(leave_out), "cpu"))).client
    for path, what in (("/tim", "TIM"), ("/model-card", "model card")):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"] == f"the bundle that is served carries no {what}"


@pytest.mark.parametrize("path", ["/tasks", "/variables", "/model"])
def test_what_does_not_change_is_sent_once(service, path):
    tag = service.client.get(path).headers["etag"]
    again = service.client.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
    assert again.status_code == 304
    assert again.content == b""
    assert service.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


# ----------------------------------------------------------------------------------- the health


def test_it_is_live_at_once_and_ready_after_its_golden_answers(serve, bundle, payload):
    client = serve(Engine(bundle)).client
    assert client.get("/health/live").json() == {"status": "live"}
    early = client.post("/predict", json=payload)
    assert early.status_code == 503
    assert early.json()["type"] == "urn:m3h:problem:not-ready"
    assert "retry-after" in early.headers
    assert client.get("/health/ready").json() == {"status": "ready"}
    assert client.post("/predict", json=payload).status_code == 200


def test_a_model_that_answers_otherwise_than_it_was_made_is_never_ready(serve, changed_bundle):
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
        broken.setattr(engine, "_inputs", lambda *_: {})
        assert client.post("/predict", json=payload).status_code == 500
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 200


# ------------------------------------------------------------------------------------- the queue


@pytest.fixture
def busy(serve, engine, payload, monkeypatch) -> Iterator[Any]:
    """A service with place for four of the payload, one of which is computed to the test's end."""
    entered, leave = Event(), Event()
    run = engine.run

    def blocked(*asked: Any) -> Any:
        entered.set()
        assert leave.wait(60)
        return run(*asked)

    monkeypatch.setattr(engine, "run", blocked)
    service = serve(engine, queue_bytes=4 * len(json.dumps(payload)))
    # In the thread, or nobody could be refused meanwhile.
    monkeypatch.setattr(batcher, "INLINE_BYTES", 0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(service.client.post, "/predict", json=payload)
        assert entered.wait(60)
        yield service
        leave.set()
        assert first.result().status_code == 200


def test_a_request_beyond_the_queue_is_told_when_to_come_again(busy, payload):
    payload["notes"][0]["text"] += 4 * json.dumps(payload)
    answer = busy.client.post("/predict", json=payload)
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:m3h:problem:busy"
    assert int(answer.headers["retry-after"]) >= 1


def test_a_deadline_is_kept(busy, payload):
    headers = {"M3H-Priority": "bulk", "M3H-Deadline-Ms": "50"}
    answer = busy.client.post("/predict", json=payload, headers=headers)
    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:m3h:problem:late"
    batch = busy.client.post("/predict/batch", json={"items": [payload] * 2}, headers=headers)
    assert batch.status_code == 200
    assert [item["status"] for item in batch.json()["items"]] == [504, 504]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("M3H-Priority", "soon", "must be one of 'urgent' or 'bulk'"),
        ("M3H-Deadline-Ms", "0", "must be 1 or more"),
        ("M3H-Deadline-Ms", "987654321", "must be 600000 or less"),
        ("M3H-Deadline-Ms", "12345x", "must be a whole number"),
    ],
)
def test_a_header_that_cannot_be_kept_is_refused_by_name(service, payload, name, value, allowed):
    answer = service.client.post("/predict", json=payload, headers={name: value})
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert (fault["parameter"], fault["detail"]) == (name, allowed)


def test_an_answer_that_drifts_makes_it_not_ready_and_no_number_is_given(serve, bundle, payload):
    engine = Engine(bundle)
    engine.replay_golden()
    client = serve(engine, golden_seconds=0.3).client
    assert client.get("/health/ready").status_code == 200
    manifest = bundle.manifest.model_copy(update={"golden_tolerance": -1.0})
    engine.bundle = replace(bundle, manifest=manifest)  # as if all numbers had moved
    until(lambda: not engine.verified)
    assert client.get("/health/ready").status_code == 503
    assert client.post("/predict", json=payload).status_code == 503
    engine.bundle = bundle
    until(lambda: client.get("/health/ready").status_code == 200)
    until(lambda: client.post("/predict", json=payload).status_code == 200)


def test_a_model_that_hangs_is_not_ready_until_it_answers(serve, bundle, payload, monkeypatch):
    engine, leave = Engine(bundle), Event()
    engine.replay_golden()
    run = engine.run
    monkeypatch.setattr(engine, "run", lambda *asked: leave.wait(60) and run(*asked))
    client = serve(engine, golden_seconds=0.1).client
    until(lambda: engine.hanging)
    assert client.get("/health/ready").status_code == 503
    leave.set()
    until(lambda: not engine.hanging)
    assert client.get("/health/ready").status_code == 200


def canaries(client: Any) -> tuple[dict[str, float], float]:
    """How many golden requests there were, by what became of them; the difference of the latest."""
    text = client.get("/metrics").text
    found = re.findall(r'^m3h_canaries_total\{result="(\w+)"\} (\S+)$', text, re.MULTILINE)
    counts = {result: float(count) for result, count in found}
    assert counts.keys() == {"passed", "failed", "no_answer"}  # from the start
    return counts, float(re.search(r"^m3h_canary_difference (\S+)$", text, re.MULTILINE)[1])


def test_canaries_are_counted_by_what_became_of_them(serve, bundle, monkeypatch):
    engine = Engine(bundle)
    engine.replay_golden()
    client = serve(engine, golden_seconds=0.3).client
    until(lambda: canaries(client)[0]["passed"] > 1)
    counts, difference = canaries(client)
    assert 0 <= difference <= bundle.manifest.golden_tolerance
    assert counts["failed"] == counts["no_answer"] == 0
    run = engine.run

    def otherwise(*asked: Any) -> Any:
        found = run(*asked)
        found[0].fusion["length_of_stay"][:] = 2 * found[0].fusion["length_of_stay"] + 1
        return found

    with monkeypatch.context() as broken:
        broken.setattr(engine, "run", otherwise)
        until(lambda: canaries(client)[0]["failed"] == 1)
        assert canaries(client)[1] >= 0.5
        # Readiness replays them from then on, and counts those that fail.
        assert client.get("/health/ready").status_code == 503
        assert canaries(client)[0]["failed"] == 2
    assert client.get("/health/ready").status_code == 200
    until(lambda: canaries(client)[0]["passed"] > counts["passed"] + 1)
    assert canaries(client)[1] <= bundle.manifest.golden_tolerance
    assert canaries(client)[0]["failed"] == 2


def test_canaries_go_on_after_one_that_had_no_answer(serve, bundle, payload, monkeypatch):
    engine = Engine(bundle)
    engine.replay_golden()
    run, slow = engine.run, Event()
    slow.set()
    monkeypatch.setattr(
        engine, "run", lambda *asked: (slow.is_set() and time.sleep(0.3)) or run(*asked)
    )
    client = serve(engine, golden_seconds=0.1).client
    # Once it is known how long a request takes, a canary is refused: it cannot be in time.
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


# ---------------------------------------------------------------------------- metrics and the log


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("POST", "/predict", "/predict", 200),
        ("GET", "/predict", "/predict", 405),
        ("GET", "/tasks", "/tasks", 200),
        ("GET", "/openapi.json", "/openapi.json", 200),
        ("GET", "/docs", "other", 404),
        ("GET", "/no/such/path", "other", 404),
    ],
)
def test_a_request_is_counted_once_by_its_route(service, payload, method, path, route, status):
    name = f'm3h_requests_total{{route="{route}",status="{status}"}}'
    before = service.client.get("/metrics").text
    service.client.request(method, path, json=payload if method == "POST" else None)
    after = service.client.get("/metrics").text
    assert scraped(after, name) - scraped(before, name) == 1
    seconds = f'm3h_request_seconds_count{{route="{route}"}}'
    assert scraped(after, seconds) - scraped(before, seconds) == 1


def test_predictions_are_counted_by_stage_modality_and_reason(service, payload):
    del payload["notes"]
    payload["tabular"]["sex"] = "unheard of"
    before = service.client.get("/metrics").text
    service.predict(payload)

    def more(name: str) -> float:
        return scraped(service.client.get("/metrics").text, name) - scraped(before, name)

    # They are counted once the answer has left.
    until(lambda: more("m3h_attention_entropy_count") == 1)
    after = service.client.get("/metrics").text

    for stage in ("parse", "features", "model", "respond"):
        assert more(f'm3h_stage_seconds_count{{stage="{stage}"}}') == 1
    assert more('m3h_modality_present_total{modality="image"}') == 1
    assert more('m3h_modality_present_total{modality="notes"}') == 0
    assert more('m3h_input_unusual_count{modality="image"}') == 1
    assert more('m3h_input_unusual_count{modality="notes"}') == 0
    assert more('m3h_input_ignored_total{reason="unknown_category"}') == 1
    assert more("m3h_predictions_total") == 1
    assert more('m3h_variable_present_total{variable="heart_rate"}') == 1
    assert 'm3h_variable_present_total{variable="lactate"}' in after  # though nobody sent one
    assert more('m3h_variable_present_total{variable="lactate"}') == 0
    assert more("m3h_attention_entropy_count") == 1
    assert 0 < more("m3h_attention_entropy_sum") <= 1


def test_usage_counts_as_the_metrics_do(service, payload, bundle):
    del payload["notes"]
    payload["tabular"]["sex"] = "unheard of"
    before = service.client.get("/usage").json()
    service.predict(payload)
    predictions = before["predictions"] + 1
    until(lambda: service.client.get("/usage").json()["predictions"] == predictions)
    after = service.client.get("/usage").json()
    assert set(after["variables"]) == {v.name for v in bundle.manifest.spec.variables}

    def more(group: str) -> dict[str, int]:
        found = {name: n - before[group].get(name, 0) for name, n in after[group].items()}
        return {name: n for name, n in found.items() if n}

    assert more("modalities") == {"tabular": 1, "series": 1, "image": 1}
    assert more("variables").items() >= {("heart_rate", 1), ("creatinine", 1)}
    assert more("ignored")["unknown_category"] == 1
    assert more("requests")["200"] >= 2
    assert set(after["modalities"]) == {"tabular", "series", "notes", "image"}


def test_metrics_name_the_bundle(service, bundle):
    text = service.client.get("/metrics").text
    assert f'digest="{bundle.digest}"' in text
    assert service.client.get("/metrics").headers["content-type"].startswith("text/plain")


def test_ids_are_taken_and_given_back(service):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sent = {"X-Request-ID": "ward-7.42", "traceparent": trace}
    answer = service.client.get("/tasks", headers=sent)
    assert answer.headers["x-request-id"] == "ward-7.42"
    assert answer.headers["traceparent"] == trace


@pytest.mark.parametrize("sent", [{}, {"X-Request-ID": "a b", "traceparent": f"00-{'0' * 32}-1"}])
def test_ids_that_are_absent_or_unsafe_are_made(service, sent):
    answers = [service.client.get("/no/such/path", headers=sent) for _ in range(2)]
    assert len({a.headers["x-request-id"] for a in answers}) == 2
    for answer in answers:
        assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-request-id"])
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", answer.headers["traceparent"])


def test_the_log_has_one_json_line_for_a_request_and_no_query(service, payload):
    sent = {"X-Request-ID": "one-line"}
    service.client.post("/predict?explain=full", json=payload, headers=sent)
    lines = [json.loads(line) for line in service.log.getvalue().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "one-line"]
    assert line["route"] == "/predict"
    assert line["status"] == 200
    assert line["ms"] > 0
    assert "explain" not in json.dumps(line)


# ---------------------------------------------------------------------------- the documentation


def test_openapi_documents_the_bodies_and_the_problems(service):
    document = service.client.get("/openapi.json").json()
    operation = document["paths"]["/predict"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Payload"}
    ok = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert ok == {"$ref": "#/components/schemas/Answer"}
    for status in ("400", "408", "413", "415", "422", "503", "504"):
        problem = operation["responses"][status]["content"]
        assert problem == {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        }
    names = {"explain", "task", "strict", "M3H-Priority", "M3H-Deadline-Ms"}
    assert {p["name"] for p in operation["parameters"]} == names
    assert set(document["paths"]) == {
        "/predict",
        "/predict/batch",
        "/usage",
        "/tasks",
        "/model",
        "/variables",
        "/tim",
        "/model-card",
        "/health/live",
        "/health/ready",
        "/metrics",
    }


def test_openapi_says_how_much_a_request_may_hold(service, settings):
    schemas = service.client.get("/openapi.json").json()["components"]["schemas"]
    batch = schemas["Batch"]["properties"]["items"]
    assert (batch["minItems"], batch["maxItems"]) == (1, settings.max_batch)
    series = schemas["Series"]["properties"]
    assert series["times"]["minItems"] == series["values"]["minItems"] == 1
    assert series["times"]["items"]["format"] == "date-time"
    assert {"type": "number"} in series["values"]["items"]["anyOf"]
    for part in ("series", "treatments", "notes"):
        assert schemas["Payload"]["properties"][part]["maxItems"] == 100_000


def test_openapi_says_how_often_an_interval_and_a_set_hold(service):
    schemas = service.client.get("/openapi.json").json()["components"]["schemas"]
    fields = schemas["Prediction"]["properties"]
    for name in ("interval", "set"):
        assert "90 %" in fields[name]["description"]
    assert fields["no_set"]["description"].startswith("Why there is no `set`")


def test_every_reference_of_openapi_leads_somewhere(service):
    document = service.client.get("/openapi.json").json()
    references = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)))
    assert {"Payload", "Series", "Answer", "Problem", "Batch"} <= references
    assert references <= document["components"]["schemas"].keys()


def test_readiness_that_looks_again_does_not_refuse_requests_meanwhile(bundle):
    seen = []

    class Watched(Engine):
        def run(self, *given: Any) -> Any:
            seen.append(self.verified)
            return super().run(*given)

    engine = Watched(bundle)
    engine.replay_golden()
    assert not any(seen)
    seen.clear()
    engine.replay_golden()
    assert seen
    assert all(seen)


def test_a_canary_that_fails_unexpectedly_is_counted_and_goes_on(bundle, serve):
    class Broken(Engine):
        def replay(self, number: int) -> None:
            if self.verified:
                raise ZeroDivisionError("Jane Doe")
            super().replay(number)

    engine = Broken(bundle)
    engine.replay_golden()
    service = serve(engine, golden_seconds=0.05)

    def failed() -> float:
        return scraped(service.client.get("/metrics").text, 'm3h_canaries_total{result="failed"}')

    until(lambda: failed() > 1)
    assert "ZeroDivisionError" in service.log.getvalue()
    assert "Jane" not in service.log.getvalue()
