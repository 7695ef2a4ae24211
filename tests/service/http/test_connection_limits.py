"""Limits of the time and the number of connections."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.servers import service_process
from tests.support.servers.http_client import PATIENT, Client, connected, prediction, request
from tests.support.servers.processes import until
from tests.support.servers.running_service import ServiceProcess, assert_problem

HEAD_SECONDS, BODY_SECONDS, WRITE_SECONDS, CONNECTIONS = 1.0, 1.5, 1.0, 40
SHORT = {
    "M3H_WORKERS": "1",
    "M3H_DRAIN_SECONDS": "0",
    "M3H_HEAD_SECONDS": str(HEAD_SECONDS),
    "M3H_BODY_SECONDS": str(BODY_SECONDS),
    "M3H_WRITE_SECONDS": str(WRITE_SECONDS),
    "M3H_MAX_CONNECTIONS": str(CONNECTIONS),
}


@pytest.fixture(scope="module")
def limited(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    log = tmp_path_factory.mktemp("limited") / "log.jsonl"
    process, url = service_process.start(bundle_dir, log, **SHORT)
    yield ServiceProcess(process, url, log)
    process.terminate()
    process.communicate()


# -------------------------------------------------------------------------------- limits of time


def test_a_silent_connection_is_closed(limited):
    before = limited.refused("head_too_slow")
    with connected(limited.url) as client:
        began = time.monotonic()
        assert client.is_closed()
        assert time.monotonic() - began > HEAD_SECONDS / 2
    assert limited.refused("head_too_slow") == before + 1
    assert "head_too_slow" in limited.logged()


@pytest.mark.parametrize(
    ("first", "more"), [(b"G", b"ET /"), (b"GET /", b""), (b"GET /tasks HTTP/1.1\r\nHost: ", b"")]
)
def test_a_slow_head_is_refused(limited, first, more):
    with connected(limited.url) as client:
        send_slowly(client, first, more + b"y" * 1000)


def test_slow_empty_lines_are_refused(limited):
    with connected(limited.url) as client:
        send_slowly(client, b"\r\n", b"\r\n" * 500)


def test_a_slow_second_head_is_refused(limited):
    with connected(limited.url) as client:
        assert client.send(request("GET /tasks")).receive().status == 200
        send_slowly(client, b"GET /tasks HTTP/1.1\r\nX: ", b"y" * 1000)


def send_slowly(client, first, more):
    """Sends a byte at a time until the connection is refused."""
    client.send(first)
    client.socket.settimeout(0.1)
    began = time.monotonic()
    for byte in more:
        try:
            client.send(bytes([byte]))
            answer = client.receive()
        except TimeoutError:
            assert time.monotonic() - began < 10 * HEAD_SECONDS
            continue
        except ConnectionError:
            break
        assert_problem(answer, 408, "too-slow")
        break
    assert time.monotonic() - began > HEAD_SECONDS / 2


@pytest.mark.parametrize("sent", ["nothing", "a part", "a chunk", "after 100"])
def test_a_missing_body_is_refused_independent_of_its_deadline(limited, sent):
    before = limited.refused("body_too_slow")
    head = prediction("M3H-Deadline-Ms: 600000").removesuffix(PATIENT)
    with connected(limited.url) as client:
        match sent:
            case "nothing":
                client.send(head)
            case "a part":
                client.send(head + PATIENT[:10])
            case "a chunk":
                client.send(head.replace(b"Content-Length: 53", b"Transfer-Encoding: chunked"))
                client.send(b'5\r\n{"as_')
            case "after 100":
                client.send(head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
                assert client.receive().status == 100
        assert_problem(client.receive(), 408, "too-slow")
        assert client.is_closed()
    assert limited.refused("body_too_slow") == before + 1


def test_the_deadline_applies_while_the_body_arrives(limited):
    with connected(limited.url) as client:
        client.send(prediction("M3H-Deadline-Ms: 200").removesuffix(PATIENT))
        answer = client.receive()
    assert (answer.status, answer.json()["type"]) == (504, "urn:m3h:problem:late")


def test_an_unneeded_body_has_a_time_limit(limited):
    with connected(limited.url) as client:
        client.send(request("GET /tasks", "Content-Length: 100"))
        assert client.receive().status == 200
        assert client.is_closed()


def test_a_body_sent_after_the_refusal_keeps_the_connection_open(limited):
    with connected(limited.url) as client:
        sent = request("POST /predict", "Content-Type: text/plain", body=PATIENT)
        client.send(sent.removesuffix(PATIENT))
        assert client.receive().status == 415
        assert client.send(PATIENT + prediction()).receive().json()["predictions"]


def test_a_refused_client_gets_no_100_continue(running):
    with connected(running) as client:
        head = request(
            "POST /predict",
            "Content-Type: application/json",
            "Content-Length: 99999999",
            "Expect: 100-continue",
        )
        answer = client.send(head).receive()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert client.is_closed()


def test_a_client_that_does_not_read_is_disconnected(limited):
    before, memory = limited.refused("answer_not_read"), limited.memory()
    requests = request("GET /page/app.js") * 200
    clients = [Client(limited.url, receive_buffer=4096) for _ in range(10)]
    for client in clients:
        client.socket.setblocking(False)
        client.socket.send(requests)
    until(lambda: limited.refused("answer_not_read") == before + len(clients))
    assert limited.memory() - memory < 50 * 2**20
    assert "answer_not_read" in limited.logged()
    for client in clients:
        client.socket.close()


def test_a_client_that_reads_slowly_gets_the_whole_response(limited):
    with connected(limited.url, receive_buffer=4096) as client:
        client.send(request("GET /page/app.js", "Accept-Encoding: identity"))
        time.sleep(WRITE_SECONDS / 2)
        answer = client.receive()
    assert (answer.status, len(answer.content)) == (200, int(answer.headers["content-length"]))


# ------------------------------------------------------------------------- limits of connections


def seconds_of_a_small_request(url: str) -> float:
    began = time.monotonic()
    with connected(url) as client:
        assert client.send(prediction()).receive().json()["predictions"]
    return time.monotonic() - began


@pytest.mark.parametrize("kind", ["silent", "head", "body", "chunks", "idle"])
def test_300_idle_connections_do_not_delay_a_small_request(running, kind):
    head = prediction("M3H-Deadline-Ms: 600000").removesuffix(PATIENT)
    large = head.replace(b"Content-Length: 53", b"Content-Length: 33554432")
    sent = {
        "silent": b"",
        "head": b"GET /tasks HTTP/1.1\r\n",
        "body": large,
        "chunks": head.replace(b"Content-Length: 53", b"Transfer-Encoding: chunked") + b"5\r\n12",
        "idle": request("GET /health/live"),
    }
    clients = [Client(running) for _ in range(300)]
    try:
        for client in clients:
            client.send(sent[kind])
        assert seconds_of_a_small_request(running) < 1
        assert httpx.get(f"{running}/health/live").status_code == 200
    finally:
        for client in clients:
            client.socket.close()


@pytest.mark.parametrize("sent", [b"", b"GET /t", request("GET /health/live")])
def test_idle_connections_are_closed_above_the_limit(limited, sent):
    clients = [Client(limited.url).send(sent) for _ in range(CONNECTIONS + 50)]
    try:
        until(lambda: _answers(limited.url))
        for _ in range(5):
            assert seconds_of_a_small_request(limited.url) < 5
    finally:
        for client in clients:
            client.socket.close()


def _answers(url: str) -> bool:
    """Whether a prediction is answered. New silent connections stay open for a second."""
    with connected(url) as client:
        return client.send(prediction()).receive().status == 200


def test_above_the_limit_only_health_is_answered(bundle_dir, tmp_path):
    short = SHORT | {"M3H_BODY_SECONDS": "60", "M3H_MAX_CONNECTIONS": "10"}
    process, url = service_process.start(bundle_dir, tmp_path / "log.jsonl", **short)
    head = prediction("M3H-Deadline-Ms: 600000", "Expect: 100-continue").removesuffix(PATIENT)
    clients = [Client(url).send(head) for _ in range(10)]
    try:
        assert [client.receive().status for client in clients] == [100] * 10
        with connected(url) as client:
            assert_problem(client.send(prediction()).receive(), 503, "too-many-connections")
        for path in ("/health/live", "/health/ready"):
            with connected(url) as client:
                assert client.send(request(f"GET {path}")).receive().status == 200
        for client in clients:
            client.socket.close()
        until(lambda: _answers(url))
    finally:
        process.terminate()
        process.communicate()


def test_few_open_files_reduce_the_limit_with_a_warning(bundle_dir, tmp_path):
    log = tmp_path / "log.jsonl"
    process, url = service_process.start(
        bundle_dir, log, files=64, M3H_WORKERS="1", M3H_DRAIN_SECONDS="0"
    )
    clients = [Client(url) for _ in range(100)]
    try:
        until(lambda: _answers(url))
        with connected(url) as client:
            assert client.send(request("GET /health/ready")).receive().status == 200
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        (line,) = [x for x in lines if x["event"].startswith("fewer connections than M3H")]
        assert 1 < line["connections"] < line["files"] == 64
    finally:
        for client in clients:
            client.socket.close()
        process.terminate()
        process.communicate()
