"""What a prediction costs: processor time, memory, and what Redis keeps of a patient.

Processor time is the server's own, read of its processes before and after: unlike requests a
second it hardly depends on what else runs on the machine. Reasons by modality are in it, as they
are by default. docs/scale.md reckons with these figures.

    python benchmarks/serving/cost.py --data ../shared/data
"""

import argparse
import math
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

import payloads
import redis
from run import SERVERS, Measured, Server, load, megabytes, running, session

NEW, KEPT = SERVERS[0], SERVERS[1]  # without and with its cache
# What is sent, and to which: a body that is known is answered from the cache.
ASKED = {
    "vitals": (NEW, "vital signs"),
    "notes": (NEW, "all but an X-ray, for the first time"),
    "all": (NEW, "with an X-ray, for the first time"),
    "again": (KEPT, "the same with another vital sign"),
}
# Of a hundred updates of a patient, one brings an X-ray and five a note: a guess, to reckon with.
MIX = {"again": 0.94, "notes": 0.05, "all": 0.01}
PATIENTS = 500  # monitored in a hospital
BUSY = 0.5  # of the processors, so that a replica may be lost and a shift may begin
TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(leader: int) -> float:
    """Of all processes of a session that are there, in their own code and in the kernel."""
    total = 0
    for pid in session(leader):
        with suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            total += int(stat[11]) + int(stat[12])
    return total / TICKS


def cost(url: str, leader: int, bodies: Path, seconds: int) -> tuple[float, Measured]:
    """Processor seconds of one prediction, under a load that keeps all workers busy."""
    load(url, bodies, 16, 3)
    before = processor_seconds(leader)
    found = load(url, bodies, 16, seconds)
    return (processor_seconds(leader) - before) / (found.rate * seconds), found


@contextmanager
def own_redis() -> Iterator[redis.Redis]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/redis.sock"
        command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", ""]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        client = redis.Redis(unix_socket_path=path)
        try:
            while not Path(path).exists():
                time.sleep(0.05)
            yield client
        finally:
            process.terminate()
            process.wait()


def kept(client: redis.Redis, url: str, bodies: Path) -> tuple[int, float]:
    """Entries, and bytes of Redis, for each patient of `bodies`, sent once."""
    client.flushall()
    empty = client.info("memory")["used_memory"]
    paths = sorted(bodies.glob("*.json"))
    for path in paths:
        request = urllib.request.Request(
            url, path.read_bytes(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request).close()
    time.sleep(1)  # Redis is written to some time later
    entries, full = client.dbsize(), client.info("memory")["used_memory"]
    return round(entries / len(paths), 2), (full - empty) / len(paths)


def reckoned(seconds: dict[str, float]) -> None:
    """Processors for hospitals whose patients are sent anew so many times an hour."""
    mixed = sum(share * seconds[kind] for kind, share in MIX.items())
    print(f"\na mixed update: {1000 * mixed:.2f} ms, {mixed * 1e6 / 3600:.1f} h of a million\n")
    print("| hospitals | updates an hour | requests/s | processors |\n|---|---|---|---|")
    for hospitals, updates in product((1, 10, 100), (1, 12, 60)):
        rate = hospitals * PATIENTS * updates / 3600
        needed = math.ceil(rate * mixed / BUSY)
        print(f"| {hospitals} | {updates} | {rate:.1f} | {needed} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    made = tempfile.TemporaryDirectory()
    bodies = Path(made.name)
    payloads.make(options.data, bodies)

    def started(server: Server) -> AbstractContextManager[tuple[str, int]]:
        return running(server, options.workers, options.bundle, Path())

    seconds: dict[str, float] = {}
    print("| request | processor ms | requests/s | p99, ms | MB |\n|---|---|---|---|---|")
    for kind, (server, meaning) in ASKED.items():
        begin = time.monotonic()
        with started(server) as (url, leader):
            ready = time.monotonic() - begin
            took, found = cost(url, leader, bodies / kind, options.seconds)
            seconds[kind] = took
            megabyte = megabytes(leader)
            cells = (f"{1000 * took:.2f}", f"{found.rate:.0f}", f"{found.p99:.0f}")
            print(f"| {meaning} | {' | '.join(cells)} | {megabyte:.0f} |", flush=True)
    reckoned(seconds)
    print(f"\nready after {ready:.1f} s\n\n| request | entries in Redis | bytes |\n|---|---|---|")
    with own_redis() as client:
        path = client.connection_pool.connection_kwargs["path"]
        redis = {"M3H_REDIS_URL": f"unix://{path}", "M3H_REDIS_SECRET": "of this benchmark"}
        shared = replace(KEPT, environment=redis)
        with started(shared) as (url, _):
            for kind in ("series", "notes", "all"):
                entries, size = kept(client, url, bodies / kind)
                print(f"| {kind} | {entries:g} | {size:.0f} |", flush=True)


if __name__ == "__main__":
    main()
