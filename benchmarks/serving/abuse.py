"""What attacks by single callers do to a service with the chart's settings: memory, event loop,
other callers, and work that goes on after a deadline.

Each attack (`attacks.py`) meets a service that was just started. Beside it, probes ask for
`GET /health/live` on connections that they keep, and a small patient is predicted on new ones.

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
PROBES = 8  # connections; so many that each worker has some
LOOK_SECONDS = 0.02  # from one look at memory and processor time to the next
BUSY = 0.3  # of a processor: the service computes
QUIET_SECONDS = 1.0  # so long without work, and it has ended

# What issue and documentation promise.
MOST_MEGABYTES, MOST_GAP_MS, MOST_SMALL_MS, MOST_BEYOND = 1536.0, 200.0, 1000.0, 1.0


# ------------------------------------------------------------------------- in a process of its own


@dataclass(frozen=True)
class Probed:
    """Milliseconds. `failed`: small requests without a 200."""

    longest_gap: float
    longest_small: float
    failed: int


def probe(port: int, stop: Connection) -> None:
    stop.send(asyncio.run(_probe(port, stop)))


async def _probe(port: int, stop: Connection) -> Probed:
    ending = asyncio.Event()
    asyncio.get_running_loop().add_reader(stop.fileno(), ending.set)
    gaps: list[float] = [0.0]
    small: list[float] = [0.0]
    failed: list[str] = []
    probing = [asyncio.ensure_future(_ask_health(port, ending, gaps)) for _ in range(PROBES)]
    probing.append(asyncio.ensure_future(_ask_small(port, ending, small, failed)))
    await asyncio.gather(*probing)
    return Probed(1000 * max(gaps), 1000 * max(small), len(failed))


async def _ask_health(port: int, ending: asyncio.Event, gaps: list[float]) -> None:
    asked = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    while not ending.is_set():
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while not ending.is_set():
                began = time.perf_counter()
                writer.write(asked)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length:")[1].split()[0]))
                gaps.append(time.perf_counter() - began)
                await asyncio.sleep(0.02)
            writer.close()


async def _ask_small(
    port: int, ending: asyncio.Event, small: list[float], failed: list[str]
) -> None:
    asked = request(EXAMPLE.read_bytes(), deadline_ms=60_000)
    while not ending.is_set():
        began = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(asked)
            answer = await reader.read()
            writer.close()
            if not answer.startswith(b"HTTP/1.1 200"):
                failed.append("status")
        except OSError:
            failed.append("closed")
        small.append(time.perf_counter() - began)
        await asyncio.sleep(0.1)


@contextmanager
def probing(port: int) -> Iterator[list[Probed]]:
    """Fills the list at its end."""
    found: list[Probed] = []
    ours, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=probe, args=(port, its))
    process.start()
    its.close()
    try:
        yield found
    finally:
        ours.send(None)
        found.append(ours.recv())
        process.join()


# ------------------------------------------------------------------------------- memory, processor


class Watch:
    """The processes of a service: their memory at most, and when they last computed."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self._base = megabytes(leader) - self._own()
        self.peak = 0.0
        self.last_busy = 0.0
        self._usual = math.inf  # processors that the probes alone take
        self.begin()

    def begin(self) -> None:
        self._ticks, self._looked = self._processor(), time.monotonic()

    def attacked(self) -> None:
        """From now on, what is computed beyond the usual is work of the attack."""
        self._usual = self._rate()

    def _rate(self) -> float:
        """Processors that they took since the last look."""
        ticks, now = self._processor(), time.monotonic()
        rate = (ticks - self._ticks) / (now - self._looked)
        self._ticks, self._looked = ticks, now
        return rate

    async def quiet(self, since: float) -> None:
        """Returns once they have computed nothing unusual for QUIET_SECONDS."""
        while time.monotonic() - max(self.last_busy, since) < QUIET_SECONDS:  # noqa: ASYNC110 - only looks tell
            await asyncio.sleep(LOOK_SECONDS)

    def _own(self) -> float:
        """MB that belong to no file: cheap to read, where the whole (PSS) is not."""
        total = 0
        for pid in session(self._leader):
            with suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                total += sum(int(x.split()[1]) for x in lines if x.startswith(("RssAnon", "RssSh")))
        return total / 1024

    def _processor(self) -> float:
        """Seconds that they have computed."""
        total = 0
        for pid in session(self._leader):
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    async def run(self) -> None:
        while True:
            self.peak = max(self.peak, self._base + self._own())
            attacked = math.isfinite(self._usual)
            if (
                attacked
                and time.monotonic() - self._looked >= 0.25
                and self._rate() > self._usual + BUSY
            ):
                self.last_busy = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)


# ------------------------------------------------------------------------------------ each attack


@dataclass(frozen=True)
class Result:
    outcomes: Counter[str]
    megabytes: float
    beyond: float | None  # seconds of computing after the deadline
    probed: Probed

    @property
    def missed(self) -> list[str]:
        """Which promises were not kept."""
        limits = {
            "memory": (self.megabytes, MOST_MEGABYTES),
            "event loop": (self.probed.longest_gap, MOST_GAP_MS),
            "small request": (self.probed.longest_small, MOST_SMALL_MS),
            "deadline": (self.beyond or 0.0, MOST_BEYOND),
            "small request failed": (self.probed.failed, 0),
            "500": (self.outcomes["500"], 0),
        }
        return [name for name, (found, most) in limits.items() if found > most]


async def meet(attack: Attack, port: int, leader: int) -> Result:
    watch = Watch(leader)
    watching = asyncio.ensure_future(watch.run())
    with probing(port) as probed:
        await asyncio.sleep(1)
        watch.begin()
        await asyncio.sleep(2)  # the probes alone
        began = time.monotonic()
        watch.attacked()
        outcomes = Counter(await attack.run(port))
        await watch.quiet(began)
    watching.cancel()
    beyond = None
    if attack.deadline_ms is not None:
        beyond = max(0.0, watch.last_busy - began - attack.deadline_ms / 1000)
    return Result(outcomes, watch.peak, beyond, probed[0])


def row(attack: Attack, found: Result) -> str:
    outcomes = ", ".join(f"{count} {what}" for what, count in sorted(found.outcomes.items()))
    probed = found.probed
    cells = [
        attack.name,
        outcomes,
        f"{found.megabytes:.0f}",
        f"{probed.longest_gap:.0f}",
        f"{probed.longest_small:.0f} ({probed.failed})",
        "" if found.beyond is None else f"{found.beyond:.1f}",
        ", ".join(found.missed) or "kept",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    parser.add_argument("--attacks", nargs="+", choices=[attack.name for attack in ATTACKS])
    options = parser.parse_args()
    server = replace(SERVERS[1], environment=CHART)
    print(
        "| attack | outcomes | memory at most, MB | longest gap of the event loop, ms "
        "| longest small request, ms (failed) | computing beyond the deadline, s | promises |"
    )
    print("|---|---|---|---|---|---|---|")
    missed = 0
    for attack in ATTACKS:
        if options.attacks and attack.name not in options.attacks:
            continue
        with running(server, WORKERS, options.bundle, Path()) as (url, leader):
            port = int(url.split(":")[2].split("/")[0])
            found = asyncio.run(meet(attack, port, leader))
        missed += bool(found.missed)
        print(row(attack, found), flush=True)
    raise SystemExit(f"{missed} attacks with a promise that was not kept" if missed else 0)


if __name__ == "__main__":
    main()
