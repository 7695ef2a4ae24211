"""An upgrade is ignored, and the body of its request is read (RFC 9110, section 7.8)."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.servers.http_client import PATIENT, chunked, connected, prediction, request

UPGRADES = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAI"),
    "h2c in other case": ("CONNECTION: keep-alive,upgrade", "UPGRADE: H2C"),
    "two lines": ("Connection: Upgrade", "Connection: HTTP2-Settings", "Upgrade: h2c"),
    "websocket": ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "TLS": ("Upgrade: TLS/1.0, HTTP/2.0", "Connection: upgrade"),
}


@pytest.mark.parametrize("kind", UPGRADES)
@pytest.mark.parametrize("packets", ["one packet", "head and body", "bytes"])
def test_the_body_of_an_upgrade_request_is_read(running, kind, packets):
    sent = prediction(*UPGRADES[kind])
    match packets:
        case "one packet":
            parts = [sent]
        case "head and body":
            parts = [sent.removesuffix(PATIENT), PATIENT]
        case _:
            parts = [sent[at : at + 1] for at in range(len(sent))]
    with connected(running) as client:
        assert client.send(*parts).receive().json()["predictions"]
        assert client.send(request("GET /health/live")).receive().status == 200


def test_a_chunked_body_of_an_upgrade_request_is_read(running):
    head = request(
        "POST /predict?explain=none",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
        *UPGRADES["h2c"],
    )
    with connected(running) as client:
        client.send(head + chunked(PATIENT) + request("GET /health/live"))
        assert client.receive().json()["predictions"]
        assert client.receive().json() == {"status": "live"}


def test_an_upgrade_request_without_a_body_is_answered(running):
    for offered in UPGRADES.values():
        for method in ("GET", "POST"):
            with connected(running) as client:
                client.send(request(f"{method} /health/live", *offered))
                assert client.receive().status == (200 if method == "GET" else 405)
                assert client.send(request("GET /health/live")).receive().status == 200


def test_requests_after_an_upgrade_request_are_answered_in_order(running):
    with connected(running) as client:
        client.send(prediction(*UPGRADES["h2c"]) + request("GET /nowhere") + prediction())
        assert client.receive().json()["predictions"]
        assert client.receive().status == 404
        assert client.receive().json()["predictions"]


def test_100_continue_works_for_an_upgrade_request(running):
    sent = prediction("Expect: 100-continue", *UPGRADES["h2c"])
    with connected(running) as client:
        client.send(sent.removesuffix(PATIENT))
        assert client.receive().status == 100
        assert client.send(PATIENT).receive().json()["predictions"]


def test_connection_close_works_for_an_upgrade_request(running):
    with connected(running) as client:
        client.send(prediction("Connection: close, Upgrade", "Upgrade: h2c"))
        assert client.receive().headers["connection"] == "close"
        assert client.is_closed()


def test_connect_is_refused_with_a_problem(running):
    with connected(running) as client:
        answer = client.send(request("CONNECT example.org:443")).receive()
        assert answer.status == 405
        assert answer.headers["content-type"] == "application/problem+json"


JAVA = """
import java.net.URI;
import java.net.http.*;
import java.nio.file.*;

public class Post {
  public static void main(String[] args) throws Exception {
    var client = HttpClient.newHttpClient();
    for (int sent = 0; sent < 3; sent++) {
      var request = HttpRequest.newBuilder(URI.create(args[0] + "/predict?explain=none"))
          .header("Content-Type", "application/json")
          .POST(HttpRequest.BodyPublishers.ofFile(Path.of(args[1])))
          .build();
      System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
    }
  }
}
"""


@pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed")
def test_the_http_client_of_java_gets_its_prediction(running, tmp_path: Path):
    (tmp_path / "Post.java").write_text(JAVA)
    (tmp_path / "patient.json").write_bytes(PATIENT)
    command = ["java", str(tmp_path / "Post.java"), running, str(tmp_path / "patient.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["200"] * 3, done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_with_http2_gets_its_prediction(running):
    command = ["curl", "-sS", "--http2", "-w", "%{http_code}", "-o", "/dev/null"]
    sent = ["-H", "Content-Type: application/json", "-d", PATIENT.decode(), f"{running}/predict"]
    done = subprocess.run([*command, *sent], capture_output=True, text=True, check=False)
    assert done.stdout == "200", done.stderr
