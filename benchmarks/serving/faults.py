"""Answers under load while Redis fails, bundles are reloaded and the service ends.

Clients send requests without a pause and compare each answer with the expected answer to that body.

    python benchmarks/serving/faults.py --data ../shared/data
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import payloads
import redis
from reference_model import Model
from run import free_port

CLIENTS = 8
TOLERANCE = 1e-5
HEAD = """| event | s | answers | failed | wrong | p50, ms | p99, ms | longest, ms |
|---|---|---|---|---|---|---|---|"""


def predicted_numbers(answer: dict[str, Any]) -> list[float]:
    numbers: list[float] = []
    for prediction in answer["predictions"]:
        numbers += [prediction[name] for name in ("probability", "value") if name in prediction]
        numbers += prediction.get("probabilities", {}).values()
    return numbers


@dataclass
class Outcomes:
    """What the clients observed during one event."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    wrong: int = 0
    rejected_at_end: int = 0


class Clients:
    """Threads that send the bodies in turn. `ending`: the service has got SIGTERM."""

    def __init__(self, port: int, bodies: Sequence[bytes], expected: Sequence[list[float]]) -> None:
        self.port, self.bodies, self.expected = port, bodies, expected
        self.outcomes = Outcomes()
        self.ending = False
        self.threads = [threading.Thread(target=self._run, args=(k,)) for k in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def _run(self, number: int) -> None:
        connection, keep_alive = HTTPConnection("127.0.0.1", self.port, timeout=30), False
        while True:
            number = (number + 1) % len(self.bodies)
            start = time.perf_counter()
            try:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", "/predict", self.bodies[number], headers)
                response = connection.getresponse()
                content = response.read()
            except (OSError, HTTPException) as error:
                # After SIGTERM, only a connection that the service promised to keep may not fail.
                if not self.ending or keep_alive:
                    self.outcomes.failed.append(type(error).__name__)
                if self.ending:
                    self.outcomes.rejected_at_end += 1
                    return
                connection.close()
                continue
            if response.status != 200:
                self.outcomes.failed.append(f"{response.status} {content[:80]!r}")
                continue
            self.outcomes.seconds.append(time.perf_counter() - start)
            numbers = predicted_numbers(json.loads(content))
            if not np.allclose(numbers, self.expected[number], atol=TOLERANCE, rtol=0):
                self.outcomes.wrong += 1
            keep_alive = response.getheader("Connection") != "close"

    @contextmanager
    def during(self, event: str) -> Iterator[None]:
        """Prints a row with the outcomes of the requests within the context."""
        self.outcomes = outcomes = Outcomes()
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        times = 1000 * np.quantile(outcomes.seconds or [0.0], (0.5, 0.99, 1))
        counts = (len(outcomes.seconds), len(outcomes.failed), outcomes.wrong)
        cells = [event, f"{seconds:.0f}", *map(str, counts), *(f"{ms:.0f}" for ms in times)]
        print(f"| {' | '.join(cells)} |", flush=True)
        for fault in set(outcomes.failed):
            print(f"  failed: {fault}", file=sys.stderr)


class Redis:
    """A Redis process on a Unix socket."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def execute(self, *command: str) -> None:
        redis.Redis(unix_socket_path=str(self.socket)).execute_command(*command)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Service:
    """A service with a small cache, which therefore reads from Redis often."""

    def __init__(self, redis_socket: Path) -> None:
        self.port, self.admin_port = free_port(), free_port()
        options = {
            "log-level": "error",
            "port": self.port,
            "admin-port": self.admin_port,
            "redis-url": f"unix://{redis_socket}",
            "redis-secret": "of this benchmark",
            "cache-bytes": 20_000,
        }
        command = [Path(sys.executable).parent / "m3h-serve"]
        self.process = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in options.items())],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def reload(self, bundles: Sequence[Path], count: int) -> None:
        """Reloads `count` times, with the bundles in turn, starting with the second."""
        for number in range(1, count + 1):
            content = json.dumps({"bundle": str(bundles[number % len(bundles)])}).encode()
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.admin_port}/admin/reload",
                content,
                {"Content-Type": "application/json"},
            )
            urllib.request.urlopen(request, timeout=120).read()


def copy_with_other_version(bundle: Path, folder: Path) -> Path:
    copy = folder / "another"
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_bytes())
    manifest["version"] += "+another"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def events(
    store: Redis, service: Service, bundles: Sequence[Path], reloads: int
) -> dict[str, Callable[[], object]]:
    return {
        "none": lambda: None,
        "Redis killed": store.kill,
        "Redis restarted, empty": store.start,
        "Redis suspended": lambda: store.process.send_signal(signal.SIGSTOP),
        "Redis resumed": lambda: store.process.send_signal(signal.SIGCONT),
        "Redis full": lambda: store.execute("CONFIG", "SET", "maxmemory", "1"),
        "Redis flushed": lambda: store.execute("FLUSHALL"),
        f"{reloads} reloads": partial(service.reload, bundles, reloads),
    }


def run(options: argparse.Namespace, folder: Path) -> None:
    payloads.write(options.data, folder / "bodies")
    files = sorted((folder / "bodies" / options.kind).glob("*.json"))
    bodies = [file.read_bytes() for file in files]
    model = Model()
    expected = [predicted_numbers(json.loads(model.answer(body))) for body in bodies]
    bundles = [options.bundle.resolve(), copy_with_other_version(options.bundle, folder)]
    store = Redis(folder)
    service = Service(store.socket)
    clients = Clients(service.port, bodies, expected)
    print(HEAD)
    for name, event in events(store, service, bundles, options.reloads).items():
        with clients.during(name):
            event()
            time.sleep(options.seconds)
    with clients.during("SIGTERM"):
        clients.ending = True
        service.process.send_signal(signal.SIGTERM)
        for thread in clients.threads:
            thread.join()
    code, rejected = service.process.wait(), clients.outcomes.rejected_at_end
    print(f"\nexit code {code}; {rejected} clients rejected at the end")
    store.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    parser.add_argument("--kind", choices=payloads.KINDS, default="all")
    parser.add_argument("--seconds", type=float, default=5, help="duration of each event")
    parser.add_argument("--reloads", type=int, default=50)
    options = parser.parse_args()
    os.environ["M3H_BUNDLE"] = str(options.bundle.resolve())
    with tempfile.TemporaryDirectory() as folder:
        run(options, Path(folder))


if __name__ == "__main__":
    main()
