"""The cost of a prediction: CPU time, memory, and the size of a patient's entries in Redis.

CPU time is that of the server's processes. Unlike throughput, it hardly depends on other load of
the machine. Predictions include the default explanation by modality. docs/scale.md uses these
figures.

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
from run import SERVERS, LoadResult, Server, load, megabytes, running, session

WITHOUT_CACHE, WITH_CACHE = SERVERS[0], SERVERS[1]
# The server and the description of each kind of request.
REQUESTS = {
    "vitals": (WITHOUT_CACHE, "vital signs"),
    "notes": (WITHOUT_CACHE, "without X-ray, first request"),
    "all": (WITHOUT_CACHE, "with X-ray, first request"),
    "again": (WITH_CACHE, "with X-ray, again with another vital sign"),
}
# Assumption: of 100 updates of a patient, one has a new X-ray and five have a new note.
MIX = {"again": 0.94, "notes": 0.05, "all": 0.01}
PATIENTS = 500  # monitored patients per hospital
UTILIZATION = 0.5  # target CPU utilization: a reserve for a lost replica and load peaks
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(leader: int) -> float:
    """Returns the user and system CPU time of all processes of a session."""
    total = 0
    for pid in session(leader):
        with suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            total += int(stat[11]) + int(stat[12])
    return total / TICKS


def cost(url: str, leader: int, bodies: Path, seconds: int) -> tuple[float, LoadResult]:
    """Returns the CPU seconds per prediction under a load that keeps all workers busy."""
    load(url, bodies, 16, 3)
    before = cpu_seconds(leader)
    result = load(url, bodies, 16, seconds)
    return (cpu_seconds(leader) - before) / (result.rate * seconds), result


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


def redis_cost(client: redis.Redis, url: str, bodies: Path) -> tuple[int, float]:
    """Returns the entries and the bytes in Redis per patient, after sending each body once."""
    client.flushall()
    empty = client.info("memory")["used_memory"]
    paths = sorted(bodies.glob("*.json"))
    for path in paths:
        request = urllib.request.Request(
            url, path.read_bytes(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request).close()
    time.sleep(1)  # the service writes to Redis after the answer
    entries, full = client.dbsize(), client.info("memory")["used_memory"]
    return round(entries / len(paths), 2), (full - empty) / len(paths)


def print_required_cpus(seconds: dict[str, float]) -> None:
    """Prints the CPUs for a number of hospitals and hourly updates per patient."""
    mixed = sum(share * seconds[kind] for kind, share in MIX.items())
    print(f"\nmean update: {1000 * mixed:.2f} CPU ms, {mixed * 1e6 / 3600:.1f} CPU h per million\n")
    print("| hospitals | updates/h | requests/s | CPUs |\n|---|---|---|---|")
    for hospitals, updates in product((1, 10, 100), (1, 12, 60)):
        rate = hospitals * PATIENTS * updates / 3600
        needed = math.ceil(rate * mixed / UTILIZATION)
        print(f"| {hospitals} | {updates} | {rate:.1f} | {needed} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    folder = tempfile.TemporaryDirectory()
    bodies = Path(folder.name)
    payloads.write(options.data, bodies)

    def started(server: Server) -> AbstractContextManager[tuple[str, int]]:
        return running(server, options.workers, options.bundle, Path())

    seconds: dict[str, float] = {}
    print("| request | CPU ms | requests/s | p99, ms | MB |\n|---|---|---|---|---|")
    for kind, (server, description) in REQUESTS.items():
        start = time.monotonic()
        with started(server) as (url, leader):
            ready = time.monotonic() - start
            seconds[kind], result = cost(url, leader, bodies / kind, options.seconds)
            cells = (f"{1000 * seconds[kind]:.2f}", f"{result.rate:.0f}", f"{result.p99:.0f}")
            print(f"| {description} | {' | '.join(cells)} | {megabytes(leader):.0f} |", flush=True)
    print_required_cpus(seconds)
    print(f"\nready after {ready:.1f} s\n\n| request | entries in Redis | bytes |\n|---|---|---|")
    with own_redis() as client:
        path = client.connection_pool.connection_kwargs["path"]
        environment = {"M3H_REDIS_URL": f"unix://{path}", "M3H_REDIS_SECRET": "of this benchmark"}
        shared = replace(WITH_CACHE, environment=environment)
        with started(shared) as (url, _):
            for kind in ("series", "notes", "all"):
                entries, size = redis_cost(client, url, bodies / kind)
                print(f"| {kind} | {entries:g} | {size:.0f} |", flush=True)


if __name__ == "__main__":
    main()
