"""The MLLP listener: framing, limits, TLS, shutdown; the answers are those of HTTP."""

import json
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.inputs.hl7_messages import NAME, OBR, errors_of, message, named, obx, visit
from tests.support.servers import service_process

MESSAGE = message(visit(), OBR, obx("112"))
START, END = b"\x0b", b"\x1c\r"
MAX_BODY = 100_000


class Client:
    """An MLLP client."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket = raw if context is None else context.wrap_socket(raw, server_hostname="m3h")

    def send(self, text: str | bytes) -> str:
        content = text.encode() if isinstance(text, str) else text
        self.socket.sendall(START + content + END)
        return self.receive()

    def receive(self) -> str:
        """The next answer; empty if the service closes the connection."""
        received = b""
        while not received.endswith(END):
            part = self.socket.recv(65_536)
            if not part:
                return ""
            received += part
        assert received.startswith(START)
        return received[1:-2].decode()

    def is_closed(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


Started = tuple[subprocess.Popen[str], str, int]


@pytest.fixture(scope="module")
def serve_mllp(
    bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Started]]:
    """Starts `m3h-serve` with MLLP. Returns the process, its URL and the port of MLLP."""
    processes = []

    def start(**environment: str) -> Started:
        log = tmp_path_factory.mktemp("mllp") / "log.jsonl"
        common = {
            "M3H_WORKERS": "1",
            "M3H_DRAIN_SECONDS": "0",
            "M3H_MLLP_PORT": "0",
            "M3H_MAX_BODY_BYTES": str(MAX_BODY),
        }
        process, url = service_process.start(bundle_dir, log, **common | environment)
        processes.append(process)
        events = [json.loads(line) for line in log.read_text().splitlines() if line[:1] == "{"]
        port = next(event["port"] for event in events if event["event"] == "mllp")
        return process, url, port

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def mllp(serve_mllp: Callable[..., Started]) -> Started:
    return serve_mllp(M3H_MLLP_CONNECTIONS="3", M3H_BODY_SECONDS="2")


def without_ids(answer: str) -> list[list[str]]:
    """The segments after MSH, whose time and control ID differ between answers."""
    return [line.split("|") for line in answer.split("\r")[1:]]


def test_a_message_gets_the_acknowledgement_of_http(mllp):
    _, url, port = mllp
    client = Client(port)
    answer = client.send(MESSAGE)
    sent = {"Content-Type": "application/hl7-v2"}
    expected = httpx.post(f"{url}/hl7v2", content=MESSAGE, headers=sent).text
    assert without_ids(answer) == without_ids(expected)
    assert errors_of(client.send(MESSAGE.replace("|112|", "|x|"))) == {("OBX^1^5", "number")}
    assert named(client.send("no message"), "MSA")[0][1] == "AE"
    assert without_ids(client.send(MESSAGE)) == without_ids(expected)


def test_a_frame_may_arrive_in_any_parts(mllp):
    client = Client(mllp[2])
    frame = b"\r\n" + START + MESSAGE.encode() + END
    for at in range(0, len(frame), 40):
        client.socket.sendall(frame[at : at + 40])
        time.sleep(0.001)
    assert named(client.receive(), "MSA")[0][1] == "AA"
    client.socket.sendall(2 * frame)  # pipelined
    assert [named(client.receive(), "MSA")[0][1] for _ in range(2)] == ["AA", "AA"]


def test_a_message_above_the_limit_is_refused(mllp):
    client = Client(mllp[2])
    answer = client.send(MESSAGE + "NTE|1||" + "x" * MAX_BODY)
    assert named(answer, "MSA")[0][1] == "AR"
    assert errors_of(answer) == {("", "body-too-large")}
    assert named(client.send(MESSAGE), "MSA")[0][1] == "AA"  # the frame was skipped
    client.socket.sendall(START + b"x" * 3 * MAX_BODY)
    assert named(client.receive(), "MSA")[0][1] == "AR"
    assert client.is_closed()


def test_bytes_that_are_no_frame_end_the_connection(mllp):
    client = Client(mllp[2])
    client.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert client.is_closed()


def test_a_frame_that_does_not_end_is_refused(mllp):
    client = Client(mllp[2])
    client.socket.sendall(START + MESSAGE.encode())
    began = time.monotonic()
    client.receive()
    assert client.is_closed()
    assert time.monotonic() - began < 10


def test_connections_above_the_limit_are_closed(mllp):
    clients = [Client(mllp[2]) for _ in range(3)]
    assert all(named(client.send(MESSAGE), "MSA") for client in clients)
    assert Client(mllp[2]).is_closed()
    clients[0].socket.close()
    time.sleep(0.3)
    assert named(Client(mllp[2]).send(MESSAGE), "MSA")[0][1] == "AA"
    for client in clients:
        client.socket.close()


def test_messages_are_logged_and_counted_like_requests_without_their_content(mllp):
    process, url, port = mllp
    assert Client(port).send(MESSAGE)
    written = process.stderr.read() + httpx.get(f"{url}/metrics").text
    assert '"route":"/hl7v2"' in written
    assert NAME not in written


def test_tls_is_used_and_the_service_ends_in_time(serve_mllp, tmp_path):
    certificate = tmp_path / "both.pem"
    key = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=m3h",
    ]
    subprocess.run(
        [*key, "-keyout", certificate, "-out", tmp_path / "cert.pem"],
        check=True,
        capture_output=True,
    )
    certificate.write_bytes((tmp_path / "cert.pem").read_bytes() + certificate.read_bytes())
    process, _, port = serve_mllp(M3H_MLLP_CERTIFICATE=str(certificate))
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    context.check_hostname = False
    client = Client(port, context)
    assert named(client.send(MESSAGE), "MSA")[0][1] == "AA"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0  # although the connection is open
    assert client.is_closed()


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        ({"M3H_MLLP_CERTIFICATE": "/absent.pem"}, "M3H_MLLP_CERTIFICATE"),
        ({"M3H_MLLP_CLIENT_CA": "/absent.pem"}, "needs M3H_MLLP_CERTIFICATE"),
    ],
)
def test_an_unusable_certificate_is_named_at_the_start(bundle_dir, environment, fault):
    from service.http.server.sockets import ListenError, listen_for_mllp
    from service.settings import Settings

    values: dict[str, Any] = {k.removeprefix("M3H_").lower(): v for k, v in environment.items()}
    with pytest.raises(ListenError, match=fault):
        listen_for_mllp(Settings(bundle=bundle_dir, mllp_port=0, **values))
