"""Redis servers for tests: a real one, and one that sends arbitrary replies."""

import socketserver
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Self

import pytest
import redis
from pydantic import SecretStr


@dataclass
class RedisServer:
    """A redis-server process on a Unix socket."""

    socket: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket)]
        self.process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
        )
        for _ in range(200):
            try:
                self.client.ping()
            except redis.RedisError:
                time.sleep(0.02)
            else:
                return
        pytest.fail("redis-server does not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def entries(self, count: int) -> list[bytes]:
        """The keys, once `count` of them are written, which happens after the answers."""
        for _ in range(200):
            if len(keys := self.client.keys()) >= count:
                return keys
            time.sleep(0.02)
        pytest.fail("nothing was written")


class OddRedis(socketserver.ThreadingTCPServer):
    """Sends `reply` for each command, then `rest` again and again while the client reads it."""

    daemon_threads = allow_reuse_address = True

    def __init__(self, reply: bytes, rest: bytes = b"") -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.reply, self.rest, self.sent = reply, rest, 0

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"redis://127.0.0.1:{self.server_address[1]}/0")


class _Answering(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with suppress(OSError):
            while received := self.request.recv(65_536):
                for _ in range(received.count(b"*")):
                    if not self.server.reply:
                        return
                    self._send(self.server.reply)
                    while self.server.rest:
                        self._send(self.server.rest)

    def _send(self, content: bytes) -> None:
        self.request.sendall(content)
        self.server.sent += len(content)
