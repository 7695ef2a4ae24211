"""What a connection may send, how long it may take, and what the others notice of it."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support import service_process
from tests.support.http_client import PATIENT, Client, chunked, connected, prediction, request
from tests.support.prometheus import scraped

HEAD_SECONDS, BODY_SECONDS, WRITE_SECONDS, CONNECTIONS = 1.0, 1.5, 1.0, 40
SHORT = {
    "M3H_WORKERS": "1",
    "M3H_DRAIN_SECONDS": "0",
    "M3H_HEAD_SECONDS": str(HEAD_SECONDS),
    "M3H_BODY_SECONDS": str(BODY_SECONDS),
    "M3H_WRITE_SECONDS": str(WRITE_SECONDS),
    "M3H_MAX_CONNECTIONS": str(CONNECTIONS),
}


@dataclass
class Running:
    """A service as a process of its own."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def refused(self, reason: str) -> float:
        text = httpx.get(f"{self.url}/metrics").text
        return scraped(text, f'm3h_connections_refused_total{{reason="{reason}"}}')

    def logged(self) -> list[str]:
        """Reasons in the log, in order."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line["reason"] for line in lines if line["event"] == "connections refused"]

    def memory(self) -> int:
        """Resident bytes of all its processes together."""
        table = subprocess.run(
            ["ps", "-e", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True
        )
        rows = [tuple(map(int, line.split())) for line in table.stdout.splitlines()]
        return 1024 * sum(size for pid, parent, size in rows if self.process.pid in (pid, parent))


@pytest.fixture(scope="module")
def limited(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("limited") / "log.jsonl"
    process, url = service_process.start(bundle_dir, log, **SHORT)
    yield Running(process, url, log)
    process.terminate()
    process.communicate()


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)


def is_a_problem(answer, status, slug):
    assert answer.status == status, answer.content
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"]
    assert answer.json()["type"] == f"urn:m3h:problem:{slug}"
    assert answer.json()["status"] == status


# ------------------------------------------------------------------------------- limits of size


LONG = "x" * 40_000
TOO_LARGE = {
    "a long header": request("GET /tasks", f"X-Long: {LONG}"),
    "a long name": request("GET /tasks", f"X-{LONG}: 1"),
    "many headers": request("GET /tasks", *(f"X-{n}: 1" for n in range(200))),
    "many headers of one name": request("GET /tasks", *["Cookie: a"] * 200),
    "headers of 33 KiB together": request("GET /tasks", *[f"X-Part: {'x' * 1000}"] * 33),
    "a long header of a prediction": prediction(f"X-Long: {LONG}"),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_head_that_is_too_large_is_refused(running, case):
    with connected(running) as client:
        is_a_problem(client.send(TOO_LARGE[case]).receive(), 431, "headers-too-large")
        assert client.is_closed()


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_head_that_is_too_large_is_refused_also_if_it_comes_in_pieces(running, case):
    sent = TOO_LARGE[case]
    with connected(running) as client:
        client.send(*(sent[at : at + 500] for at in range(0, len(sent), 500)))
        is_a_problem(client.receive(), 431, "headers-too-large")


def test_a_long_target_is_refused(running):
    for target in (f"/{'x' * 9000}", f"/tasks?{'x' * 9000}", f"http://localhost/{'x' * 300_000}"):
        with connected(running) as client:
            is_a_problem(client.send(request(f"GET {target}")).receive(), 414, "target-too-long")


def test_a_head_within_the_limits_is_answered(running):
    heads = [
        request("GET /tasks", f"X-Long: {'x' * 30_000}"),
        request("GET /tasks", *(f"X-{n}: 1" for n in range(99))),
        request(f"GET /tasks?{'x' * 8000}"),
    ]
    with connected(running) as client:
        for sent in heads:
            assert client.send(sent).receive().status == 200


ENDLESS = {
    "a header": (b"GET /tasks HTTP/1.1\r\nHost: localhost\r\nX-Long: ", b"x" * 2**16),
    "headers": (b"GET /tasks HTTP/1.1\r\nHost: localhost\r\n", b"X: 1\r\n" * 2**13),
    "a target": (b"GET /", b"x" * 2**16),
    "a method": (b"", b"G" * 2**16),
    "empty lines": (b"", b"\r\n" * 2**15),
    "a chunk extension": (
        b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"x" * 2**16,
    ),
    "a trailer": (
        b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"x" * 2**16,
    ),
    "trailers": (
        b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X: 1\r\n" * 2**13,
    ),
    "a body that nobody reads": (
        b"GET /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        b"x" * 2**16,
    ),
    "pipelined requests": (b"", request("GET /health/live") * 2**10),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_what_has_no_end_costs_little_memory(running_process, case):
    """100 MB of it, or as much as the service takes."""
    process, url = running_process
    memory = Running(process, url, Path()).memory
    first, more = ENDLESS[case]
    before, most = memory(), 0
    with connected(url) as client:
        client.socket.settimeout(0.5)
        try:
            client.send(first)
            for _ in range(10 * 2**20 // len(more)):
                client.send(more, more, more, more, more, more, more, more, more, more)
                most = max(most, memory() - before)
        except OSError:  # it is closed, or nothing more is read
            most = max(most, memory() - before)
    assert most < 30 * 2**20
    assert httpx.get(f"{url}/health/live").status_code == 200


def test_pipelined_requests_are_answered_in_order(running):
    with connected(running) as client:
        paths = ["/health/live", "/nowhere", "/tasks", "/model-card"] * 50
        client.send(b"".join(request(f"GET {path}") for path in paths))
        found = [client.receive().status for _ in paths]
    assert found == [200, 404, 200, 200] * 50


def test_pipelined_predictions_are_answered_in_whatever_pieces_they_come(running):
    whole = (prediction() + request("GET /health/live")) * 3
    for size in (1, 7, 100, 1000, len(whole)):
        with connected(running) as client:
            client.send(*(whole[at : at + size] for at in range(0, len(whole), size)))
            for _ in range(3):
                assert client.receive().json()["predictions"]
                assert client.receive().json() == {"status": "live"}


def test_trailers_are_not_taken_for_headers(running):
    head = request(
        "POST /predict?explain=none",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
    )
    body = chunked(PATIENT).removesuffix(b"\r\n") + b"M3H-Deadline-Ms: none\r\n\r\n"
    with connected(running) as client:
        assert client.send(head + body).receive().json()["predictions"]
        assert client.send(request("GET /health/live")).receive().status == 200


# ------------------------------------------------------------------------------ what is malformed

MALFORMED = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /tasks\r\nHost: localhost\r\n\r\n",
    "a space before the colon": request("GET /tasks", "X : 1"),
    "a control character": request("GET /tasks", "X: \x00"),
    "a folded line": b"GET /tasks HTTP/1.1\r\nHost: localhost\r\nX: 1\r\n 2\r\n\r\n",
    "no such method": request("GETT /tasks"),
    "two lengths": request("POST /predict", "Content-Length: 1", "Content-Length: 2"),
    "one length twice": request("POST /predict", "Content-Length: 2", "Content-Length: 2"),
    "a length and chunks": request(
        "POST /predict", "Content-Length: 2", "Transfer-Encoding: chunked"
    ),
    "a negative length": request("POST /predict", "Content-Length: -1"),
    "a length that is no number": request("POST /predict", "Content-Length: 1x"),
    "a huge length": request("POST /predict", f"Content-Length: {'9' * 40}"),
    "a list of lengths": request("POST /predict", "Content-Length: 2, 2"),
    "a chunk without a size": request("POST /predict", "Transfer-Encoding: chunked") + b"x\r\n",
    "chunked twice": request("POST /predict", "Transfer-Encoding: chunked, chunked"),
    "chunked, then gzip": request("POST /predict", "Transfer-Encoding: chunked, gzip"),
    "gzip, then chunked": request("POST /predict", "Transfer-Encoding: gzip, chunked"),
    "chunked and an upgrade": request(
        "POST /predict",
        "Connection: upgrade",
        "Upgrade: h2c",
        "Content-Length: 1",
        "Transfer-Encoding: chunked",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_malformed_is_refused_by_a_problem(running, case):
    with connected(running) as client:
        answer = client.send(MALFORMED[case]).receive()
        assert 400 <= answer.status < 600
        is_a_problem(answer, answer.status, answer.json()["type"].rpartition(":")[2])
        assert answer.status in (400, 405, 501, 505)
        assert client.is_closed()


def test_what_is_malformed_behind_a_request_is_refused_after_its_answer(running):
    with connected(running) as client:
        client.send(prediction() + b"nonsense\r\n\r\n")
        assert client.receive().json()["predictions"]
        is_a_problem(client.receive(), 400, "malformed-request")


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
def test_a_head_that_trickles_is_refused(limited, first, more):
    with connected(limited.url) as client:
        trickles(client, first, more + b"y" * 1000)


def test_empty_lines_that_trickle_are_no_request(limited):
    with connected(limited.url) as client:
        trickles(client, b"\r\n", b"\r\n" * 500)


def test_a_second_head_that_trickles_is_refused(limited):
    with connected(limited.url) as client:
        assert client.send(request("GET /tasks")).receive().status == 200
        trickles(client, b"GET /tasks HTTP/1.1\r\nX: ", b"y" * 1000)


def trickles(client, first, more):
    """A byte now and then, until the connection is refused."""
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
        is_a_problem(answer, 408, "too-slow")
        break
    assert time.monotonic() - began > HEAD_SECONDS / 2


@pytest.mark.parametrize("sent", ["nothing", "a part", "a chunk", "after 100"])
def test_a_body_that_does_not_come_is_refused_whatever_its_deadline(limited, sent):
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
        is_a_problem(client.receive(), 408, "too-slow")
        assert client.is_closed()
    assert limited.refused("body_too_slow") == before + 1


def test_a_deadline_goes_on_while_a_body_does_not_come(limited):
    with connected(limited.url) as client:
        client.send(prediction("M3H-Deadline-Ms: 200").removesuffix(PATIENT))
        answer = client.receive()
    assert (answer.status, answer.json()["type"]) == (504, "urn:m3h:problem:late")


def test_a_body_that_nobody_waits_for_has_its_time_too(limited):
    with connected(limited.url) as client:
        client.send(request("GET /tasks", "Content-Length: 100"))
        assert client.receive().status == 200
        assert client.is_closed()


def test_a_body_that_comes_after_its_refusal_leaves_the_connection_open(limited):
    with connected(limited.url) as client:
        sent = request("POST /predict", "Content-Type: text/plain", body=PATIENT)
        client.send(sent.removesuffix(PATIENT))
        assert client.receive().status == 415
        assert client.send(PATIENT + prediction()).receive().json()["predictions"]


def test_a_client_that_is_refused_before_its_body_is_not_asked_for_it(running):
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


def test_who_does_not_read_the_answer_is_cut(limited):
    before, memory = limited.refused("answer_not_read"), limited.memory()
    asked = request("GET /page/app.js") * 200
    clients = [Client(limited.url, receive_buffer=4096) for _ in range(10)]
    for client in clients:
        client.socket.setblocking(False)
        client.socket.send(asked)
    until(lambda: limited.refused("answer_not_read") == before + len(clients))
    assert limited.memory() - memory < 50 * 2**20
    assert "answer_not_read" in limited.logged()
    for client in clients:
        client.socket.close()


def test_who_reads_the_answer_slowly_gets_it(limited):
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
def test_300_connections_that_wait_do_not_delay_a_small_request(running, kind):
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
def test_beyond_the_limit_connections_that_ask_nothing_make_room(limited, sent):
    clients = [Client(limited.url).send(sent) for _ in range(CONNECTIONS + 50)]
    try:
        until(lambda: _answers(limited.url))
        for _ in range(5):
            assert seconds_of_a_small_request(limited.url) < 5
    finally:
        for client in clients:
            client.socket.close()


def _answers(url: str) -> bool:
    """A prediction is made. New connections that send nothing are left alone for a second."""
    with connected(url) as client:
        return client.send(prediction()).receive().status == 200


def test_beyond_the_limit_health_is_answered_and_all_else_is_refused(bundle_dir, tmp_path):
    short = SHORT | {"M3H_BODY_SECONDS": "60", "M3H_MAX_CONNECTIONS": "10"}
    process, url = service_process.start(bundle_dir, tmp_path / "log.jsonl", **short)
    head = prediction("M3H-Deadline-Ms: 600000", "Expect: 100-continue").removesuffix(PATIENT)
    clients = [Client(url).send(head) for _ in range(10)]
    try:
        assert [client.receive().status for client in clients] == [100] * 10
        with connected(url) as client:
            is_a_problem(client.send(prediction()).receive(), 503, "too-many-connections")
        for path in ("/health/live", "/health/ready"):
            with connected(url) as client:
                assert client.send(request(f"GET {path}")).receive().status == 200
        for client in clients:
            client.socket.close()
        until(lambda: _answers(url))
    finally:
        process.terminate()
        process.communicate()


def test_with_few_files_it_answers_and_says_so(bundle_dir, tmp_path):
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
        (line,) = [one for one in lines if one["event"].startswith("fewer connections than M3H")]
        assert 1 < line["connections"] < line["files"] == 64
    finally:
        for client in clients:
            client.socket.close()
        process.terminate()
        process.communicate()
