"""The Host header of a request (RFC 9112)."""

import pytest

from tests.support.servers.http_client import connected, prediction, request


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST."]
)
def test_on_loopback_the_names_of_the_machine_are_allowed(running, host):
    sent = prediction().replace(b"Host: localhost", f"Host: {host}".encode())
    with connected(running) as client:
        assert client.send(sent).receive().status == 200


@pytest.mark.parametrize(
    ("host", "status", "slug"),
    [
        ("evil.example", 421, "host-not-allowed"),
        ("evil.example:8000", 421, "host-not-allowed"),
        ("localhost.evil.example", 421, "host-not-allowed"),
        ("127.0.0.1.evil.example", 421, "host-not-allowed"),
        ("localhost@evil.example", 400, "invalid-host"),
        ("localhost, evil.example", 400, "invalid-host"),
        ("local host", 400, "invalid-host"),
        ("localhost:x", 400, "invalid-host"),
    ],
)
@pytest.mark.parametrize("line", ["GET /tasks", "POST /predict", "GET /health/live"])
def test_on_loopback_other_names_are_refused(running, line, host, status, slug):
    sent = request(line).replace(b"Host: localhost", f"Host: {host}".encode())
    with connected(running) as client:
        answer = client.send(sent).receive()
    assert (answer.status, answer.json()["type"]) == (status, f"urn:m3h:problem:{slug}")
    assert "evil" not in answer.content.decode()


def test_a_missing_or_repeated_host_is_refused(running):
    missing = b"GET /tasks HTTP/1.1\r\nAccept: */*\r\n\r\n"
    twice = request("GET /tasks", "Host: localhost")
    for sent in (missing, twice):
        with connected(running) as client:
            answer = client.send(sent).receive()
        assert (answer.status, answer.json()["type"]) == (400, "urn:m3h:problem:invalid-host")


def test_an_absolute_target_takes_precedence_over_host(running):
    for target, status in (("http://localhost/tasks", 200), ("http://evil.example/tasks", 421)):
        with connected(running) as client:
            assert client.send(request(f"GET {target}")).receive().status == status


def test_http_1_0_needs_no_host_and_closes_its_connection(running):
    with connected(running) as client:
        answer = client.send(b"GET /health/live HTTP/1.0\r\n\r\n").receive()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.is_closed()
