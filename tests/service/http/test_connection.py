"""Limits of the size of a request, and malformed requests."""

from pathlib import Path

import httpx
import pytest

from tests.support.servers.http_client import PATIENT, chunked, connected, prediction, request
from tests.support.servers.running_service import ServiceProcess, assert_problem

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
def test_a_large_head_is_refused(running, case):
    with connected(running) as client:
        assert_problem(client.send(TOO_LARGE[case]).receive(), 431, "headers-too-large")
        assert client.is_closed()


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_large_head_in_pieces_is_refused(running, case):
    sent = TOO_LARGE[case]
    with connected(running) as client:
        client.send(*(sent[at : at + 500] for at in range(0, len(sent), 500)))
        assert_problem(client.receive(), 431, "headers-too-large")


def test_a_long_target_is_refused(running):
    for target in (f"/{'x' * 9000}", f"/tasks?{'x' * 9000}", f"http://localhost/{'x' * 300_000}"):
        with connected(running) as client:
            assert_problem(client.send(request(f"GET {target}")).receive(), 414, "target-too-long")


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
    "an unneeded body": (
        b"GET /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        b"x" * 2**16,
    ),
    "pipelined requests": (b"", request("GET /health/live") * 2**10),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_endless_input_uses_little_memory(running_process, case):
    """Sends up to 100 MB."""
    process, url = running_process
    memory = ServiceProcess(process, url, Path()).memory
    first, more = ENDLESS[case]
    before, most = memory(), 0
    with connected(url) as client:
        client.socket.settimeout(0.5)
        try:
            client.send(first)
            for _ in range(10 * 2**20 // len(more)):
                client.send(more, more, more, more, more, more, more, more, more, more)
                most = max(most, memory() - before)
        except OSError:  # the service closed the connection or stopped reading
            most = max(most, memory() - before)
    assert most < 30 * 2**20
    assert httpx.get(f"{url}/health/live").status_code == 200


def test_pipelined_requests_are_answered_in_order(running):
    with connected(running) as client:
        paths = ["/health/live", "/nowhere", "/tasks", "/model-card"] * 50
        client.send(b"".join(request(f"GET {path}") for path in paths))
        statuses = [client.receive().status for _ in paths]
    assert statuses == [200, 404, 200, 200] * 50


def test_pipelined_predictions_may_arrive_in_any_pieces(running):
    whole = (prediction() + request("GET /health/live")) * 3
    for size in (1, 7, 100, 1000, len(whole)):
        with connected(running) as client:
            client.send(*(whole[at : at + size] for at in range(0, len(whole), size)))
            for _ in range(3):
                assert client.receive().json()["predictions"]
                assert client.receive().json() == {"status": "live"}


def test_trailers_are_ignored(running):
    head = request(
        "POST /predict?explain=none",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
    )
    body = chunked(PATIENT).removesuffix(b"\r\n") + b"M3H-Deadline-Ms: none\r\n\r\n"
    with connected(running) as client:
        assert client.send(head + body).receive().json()["predictions"]
        assert client.send(request("GET /health/live")).receive().status == 200


# ---------------------------------------------------------------------------- malformed requests

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
def test_a_malformed_request_is_refused_with_a_problem(running, case):
    with connected(running) as client:
        answer = client.send(MALFORMED[case]).receive()
        assert 400 <= answer.status < 600
        assert_problem(answer, answer.status, answer.json()["type"].rpartition(":")[2])
        assert answer.status in (400, 405, 501, 505)
        assert client.is_closed()


def test_a_malformed_pipelined_request_is_refused_after_the_first_response(running):
    with connected(running) as client:
        client.send(prediction() + b"nonsense\r\n\r\n")
        assert client.receive().json()["predictions"]
        assert_problem(client.receive(), 400, "malformed-request")
