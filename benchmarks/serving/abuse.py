"""Measures attacks (`attacks.py`): memory, event loop, other clients, work after the deadline.

Each attack targets a newly started service with the chart's settings. Meanwhile, probes request
`GET /health/live` on open connections, and a small prediction on new connections.

    python benchmarks/serving/abuse.py
    python benchmarks/serving/abuse.py --attacks "300 idle bodies" "unknown variables, 33 MB"
"""

import argparse
import asyncio
import math
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from attacks import ATTACKS, Attack, request
from run import EXAMPLE, SERVERS, megabytes, running, session

CHART = {"M3H_QUEUE_BYTES": str(256 * 2**20), "M3H_DRAIN_SECONDS": "0"}
WORKERS = 2
PROBES = 8  # connections; enough that each worker has some
SAMPLE_SECONDS = 0.02  # interval between samples of memory and CPU time
BUSY_CPUS = 0.3  # more CPUs than usual in use: the service computes
QUIET_SECONDS = 1.0  # the work of an attack has ended after this time without work

# The guarantees of docs/reliability.md.
MAX_MEGABYTES, MAX_GAP_MS, MAX_SMALL_MS, MAX_OVERTIME = 1536.0, 200.0, 1000.0, 1.0


# --------------------------------------------------------------- probes, in a process of their own


@dataclass(frozen=True)
class ProbeResult:
    """Longest latencies in ms. `failed`: number of small requests without a 200."""

    longest_gap: float
    longest_small: float
    failed: int


def run_probes(port: int, stop: Connection) -> None:
    stop.send(None)  # ready
    stop.send(asyncio.run(_probe(port, stop)))


async def _probe(port: int, stop: Connection) -> ProbeResult:
    ending = asyncio.Event()
    asyncio.get_running_loop().add_reader(stop.fileno(), ending.set)
    gaps: list[float] = [0.0]
    small: list[float] = [0.0]
    failed: list[str] = []
    probing = [asyncio.ensure_future(_probe_health(port, ending, gaps)) for _ in range(PROBES)]
    probing.append(asyncio.ensure_future(_probe_prediction(port, ending, small, failed)))
    await asyncio.gather(*probing)
    return ProbeResult(1000 * max(gaps), 1000 * max(small), len(failed))


async def _probe_health(port: int, ending: asyncio.Event, gaps: list[float]) -> None:
    request_bytes = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    while not ending.is_set():
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while not ending.is_set():
                start = time.perf_counter()
                writer.write(request_bytes)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length:")[1].split()[0]))
                gaps.append(time.perf_counter() - start)
                await asyncio.sleep(0.02)
            writer.close()


async def _probe_prediction(
    port: int, ending: asyncio.Event, small: list[float], failed: list[str]
) -> None:
    request_bytes = request(EXAMPLE.read_bytes(), deadline_ms=60_000)
    while not ending.is_set():
        start = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_bytes)
            answer = await reader.read()
            writer.close()
            if not answer.startswith(b"HTTP/1.1 200"):
                failed.append("status")
        except OSError:
            failed.append("closed")
        small.append(time.perf_counter() - start)
        await asyncio.sleep(0.1)


@contextmanager
def probing(port: int) -> Iterator[list[ProbeResult]]:
    """Probes the service during the context. Appends the result to the yielded list at the end."""
    results: list[ProbeResult] = []
    parent, child = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run_probes, args=(port, child))
    process.start()
    child.close()
    parent.recv()  # the imports of the new process can take seconds
    try:
        yield results
    finally:
        parent.send(None)
        results.append(parent.recv())
        process.join()


# --------------------------------------------------------------------------------- memory, CPU time


class Monitor:
    """Samples the processes of a service: their peak memory, and when they last computed."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self._base = megabytes(leader) - self._anonymous()
        self.peak = 0.0
        self.last_busy = 0.0
        self._usual = math.inf  # CPUs that the probes alone use
        self.reset()

    def reset(self) -> None:
        self._ticks, self._sampled_at = self._cpu_seconds(), time.monotonic()

    def start_attack(self) -> None:
        """Takes the CPU use so far as usual: any excess from now on is work of the attack."""
        self._usual = self._rate()

    def _rate(self) -> float:
        """Returns the mean number of CPUs in use since the last sample."""
        ticks, now = self._cpu_seconds(), time.monotonic()
        rate = (ticks - self._ticks) / (now - self._sampled_at)
        self._ticks, self._sampled_at = ticks, now
        return rate

    async def wait_until_quiet(self, since: float) -> None:
        """Returns after QUIET_SECONDS without work of the attack."""
        while time.monotonic() - max(self.last_busy, since) < QUIET_SECONDS:  # noqa: ASYNC110 - must poll
            await asyncio.sleep(SAMPLE_SECONDS)

    def _anonymous(self) -> float:
        """Returns the anonymous and shared memory in MB, which is cheaper to read than PSS."""
        total = 0
        for pid in session(self._leader):
            with suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                total += sum(int(x.split()[1]) for x in lines if x.startswith(("RssAnon", "RssSh")))
        return total / 1024

    def _cpu_seconds(self) -> float:
        """Returns the total CPU time."""
        total = 0
        for pid in session(self._leader):
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    async def run(self) -> None:
        while True:
            self.peak = max(self.peak, self._base + self._anonymous())
            under_attack = math.isfinite(self._usual)
            if (
                under_attack
                and time.monotonic() - self._sampled_at >= 0.25
                and self._rate() > self._usual + BUSY_CPUS
            ):
                self.last_busy = time.monotonic()
            await asyncio.sleep(SAMPLE_SECONDS)


# ------------------------------------------------------------------------------------ each attack


@dataclass(frozen=True)
class Result:
    outcomes: Counter[str]
    megabytes: float
    overtime: float | None  # seconds of computing after the deadline
    probes: ProbeResult

    @property
    def violations(self) -> list[str]:
        """Returns the names of the broken guarantees."""
        limits = {
            "memory": (self.megabytes, MAX_MEGABYTES),
            "event loop": (self.probes.longest_gap, MAX_GAP_MS),
            "small request": (self.probes.longest_small, MAX_SMALL_MS),
            "deadline": (self.overtime or 0.0, MAX_OVERTIME),
            "small request failed": (self.probes.failed, 0),
            "500": (self.outcomes["500"], 0),
        }
        return [name for name, (value, limit) in limits.items() if value > limit]


async def measure(attack: Attack, port: int, leader: int) -> Result:
    monitor = Monitor(leader)
    sampling = asyncio.ensure_future(monitor.run())
    with probing(port) as probes:
        await asyncio.sleep(1)
        monitor.reset()
        await asyncio.sleep(2)  # the probes alone
        start = time.monotonic()
        monitor.start_attack()
        outcomes = Counter(await attack.run(port))
        await monitor.wait_until_quiet(start)
    sampling.cancel()
    overtime = None
    if attack.deadline_ms is not None:
        overtime = max(0.0, monitor.last_busy - start - attack.deadline_ms / 1000)
    return Result(outcomes, monitor.peak, overtime, probes[0])


def row(attack: Attack, result: Result) -> str:
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(result.outcomes.items()))
    probes = result.probes
    cells = [
        attack.name,
        outcomes,
        f"{result.megabytes:.0f}",
        f"{probes.longest_gap:.0f}",
        f"{probes.longest_small:.0f} ({probes.failed})",
        "" if result.overtime is None else f"{result.overtime:.1f}",
        ", ".join(result.violations) or "kept",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    parser.add_argument("--attacks", nargs="+", choices=[attack.name for attack in ATTACKS])
    options = parser.parse_args()
    server = replace(SERVERS[1], environment=CHART)
    print(
        "| attack | outcomes | peak memory, MB | longest gap of the event loop, ms "
        "| longest small request, ms (failed) | computing after the deadline, s | guarantees |"
    )
    print("|---|---|---|---|---|---|---|")
    violated = 0
    for attack in ATTACKS:
        if options.attacks and attack.name not in options.attacks:
            continue
        with running(server, WORKERS, options.bundle, Path()) as (url, leader):
            port = int(url.split(":")[2].split("/")[0])
            result = asyncio.run(measure(attack, port, leader))
        violated += bool(result.violations)
        print(row(attack, result), flush=True)
    raise SystemExit(f"{violated} attacks broke a guarantee" if violated else 0)


if __name__ == "__main__":
    main()
