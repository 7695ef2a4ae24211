"""What becomes of answers while Redis fails, bundles change and the service ends, under load.

Callers ask without a pause, and compare each answer with what the bundle says of that body.

    python benchmarks/serving/harm.py --data ../shared/data
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import payloads
import redis
from kernel import Model

CALLERS = 8
TOLERANCE = 1e-5


def numbers(answer: dict[str, Any]) -> list[float]:
    found: list[float] = []
    for one in answer["predictions"]:
        found += [one[name] for name in ("probability", "value") if name in one]
        found += one.get("probabilities", {}).values()
    return found


@dataclass
class Seen:
    """What callers saw during one event."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    wrong: int = 0
    turned_away: int = 0


class Callers:
    def __init__(self, port: int, bodies: Sequence[bytes], expected: Sequence[list[float]]) -> None:
        self.port, self.bodies, self.expected = port, bodies, expected
        self.seen = Seen()
        self.ending = False
        self.threads = [threading.Thread(target=self._call, args=(k,)) for k in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def _call(self, number: int) -> None:
        connection, let_in = HTTPConnection("127.0.0.1", self.port, timeout=30), False
        while True:
            number = (number + 1) % len(self.bodies)
            began = time.perf_counter()
            try:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", "/predict", self.bodies[number], headers)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, HTTPException) as error:
                if not self.ending or let_in:
                    self.seen.failed.append(type(error).__name__)
                if self.ending:
                    self.seen.turned_away += 1
                    return
                connection.close()
                continue
            if answer.status != 200:
                self.seen.failed.append(f"{answer.status} {content[:80]!r}")
                continue
            self.seen.seconds.append(time.perf_counter() - began)
            found = numbers(json.loads(content))
            if not np.allclose(found, self.expected[number], atol=TOLERANCE, rtol=0):
                self.seen.wrong += 1
            let_in = answer.getheader("Connection") != "close"

    @contextmanager
    def during(self, event: str) -> Iterator[None]:
        self.seen = seen = Seen()
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        times = 1000 * np.quantile(seen.seconds or [0.0], (0.5, 0.99, 1))
        cells = [event, f"{seconds:.0f}", str(len(seen.seconds)), str(len(seen.failed))]
        cells += [str(seen.wrong), *(f"{ms:.0f}" for ms in times)]
        print(f"| {' | '.join(cells)} |", flush=True)
        for fault in set(seen.failed):
            print(f"  failed: {fault}", file=sys.stderr)


class Redis:
    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def tell(self, *command: str) -> None:
        redis.Redis(unix_socket_path=str(self.socket)).execute_command(*command)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def another(bundle: Path, folder: Path) -> Path:
    """The same bundle under another version."""
    made = folder / "another"
    shutil.copytree(bundle, made)
    manifest = json.loads((made / "manifest.json").read_bytes())
    manifest["version"] += "+another"
    (made / "manifest.json").write_text(json.dumps(manifest))
    return made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    parser.add_argument("--kind", choices=payloads.KINDS, default="all")
    parser.add_argument("--seconds", type=float, default=5, help="of each event")
    parser.add_argument("--reloads", type=int, default=50)
    options = parser.parse_args()
    os.environ["M3H_BUNDLE"] = str(options.bundle.resolve())
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        payloads.make(options.data, folder / "bodies")
        files = sorted((folder / "bodies" / options.kind).glob("*.json"))
        bodies = [file.read_bytes() for file in files]
        model = Model()
        expected = [numbers(json.loads(model.answer(body))) for body in bodies]
        bundles = [options.bundle.resolve(), another(options.bundle, folder)]
        store = Redis(folder)
        port, admin = free_port(), free_port()
        given = {"log-level": "error", "port": port, "admin-port": admin}
        # So little memory that Redis is asked again and again.
        given |= {"redis-url": f"unix://{store.socket}", "cache-bytes": 20_000}
        command = [Path(sys.executable).parent / "m3h-serve"]
        service = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in given.items())],
            stdout=subprocess.PIPE,
        )
        assert service.stdout is not None
        service.stdout.readline()

        def reload(number: int) -> None:
            content = json.dumps({"bundle": str(bundles[number % 2])}).encode()
            request = urllib.request.Request(
                f"http://127.0.0.1:{admin}/admin/reload",
                content,
                {"Content-Type": "application/json"},
            )
            urllib.request.urlopen(request, timeout=120).read()

        def reloads() -> None:
            for number in range(1, options.reloads + 1):
                reload(number)

        events: dict[str, Callable[[], object]] = {
            "nothing": lambda: None,
            "Redis killed": store.kill,
            "Redis back, empty": store.start,
            "Redis halts": lambda: store.process.send_signal(signal.SIGSTOP),
            "Redis goes on": lambda: store.process.send_signal(signal.SIGCONT),
            "Redis full": lambda: store.tell("CONFIG", "SET", "maxmemory", "1"),
            "Redis emptied": lambda: store.tell("FLUSHALL"),
            f"{options.reloads} reloads": reloads,
        }
        callers = Callers(port, bodies, expected)
        print("| event | s | answers | failed | wrong | p50, ms | p99, ms | longest, ms |")
        print("|---|---|---|---|---|---|---|---|")
        for name, event in events.items():
            with callers.during(name):
                event()
                time.sleep(options.seconds)
        with callers.during("SIGTERM"):
            callers.ending = True
            service.send_signal(signal.SIGTERM)
            for thread in callers.threads:
                thread.join()
        print(f"\nexit {service.wait()}; {callers.seen.turned_away} callers turned away at the end")
        store.kill()


if __name__ == "__main__":
    main()
