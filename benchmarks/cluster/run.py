"""Requests while replicas start, end and die, and while Redis is unreachable or lost.

Three replicas of the service run behind HAProxy with a Redis, all on this machine. They are probed,
updated and ended as the chart specifies. Clients send requests at a constant rate and compare each
answer with that of the same bundle, served alone.

    python benchmarks/cluster/run.py

Prints a Markdown table. Exits with 1 if a guarantee is broken: only requests in a killed process
fail; no answer is wrong; a replica that ends regularly refuses no connection. Needs HAProxy and
Redis (Debian: haproxy, redis-server).
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import clients
import httpx
import numpy as np
from clients import Answer, Clients, Request
from cluster import Cluster, Replica
from processes import ConditionTimeoutError, serving, wait_until

from export.recalibrate import recalibrate
from model.cohorts import labels, synthetic
from model.cohorts.store import write
from service.runtime.bundle import Bundle

ROOT = Path(__file__).parents[2]
REPLICAS = 3
LOCAL_PATIENTS = 60  # for the recalibration of the second bundle
CUT_SECONDS = 6.0
ANSWERS_AFTER = 10  # answers of a new replica before an event is over
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "longest": 1.0}
MAX_LISTED = 10  # violations of each kind

# ---- events --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """A bundle and its answers to all bodies."""

    bundle: Path
    answers: list[Answer]

    @property
    def digest(self) -> str:
        return str(self.answers[0]["model"]["digest"])


async def scale_down(cluster: Cluster) -> None:
    await cluster.end(cluster.replicas[-1])


async def scale_up(cluster: Cluster) -> None:
    new = await cluster.start_replica(cluster.redis_url)
    cluster.replicas.append(new)
    await wait_for_answers(cluster, new)


async def update(load: Clients, version: Version, cluster: Cluster) -> None:
    """Updates like the chart's strategy: an old replica ends once a new one is ready."""
    before = [*load.expected]
    load.expected[version.digest] = version.answers
    cluster.bundle = version.bundle
    ending = []
    for index, old in enumerate([*cluster.replicas]):
        new = await cluster.start_replica(old.redis)
        cluster.replicas.insert(index, new)
        ending.append(asyncio.create_task(cluster.end(old)))
    await asyncio.gather(*ending)
    for digest in before:
        del load.expected[digest]
    for new in cluster.replicas:
        await wait_for_answers(cluster, new)


async def kill_replica(cluster: Cluster) -> None:
    lost = cluster.replicas[1]
    await cluster.kill(lost, lost.processes())
    new, _ = await asyncio.gather(cluster.start_replica(lost.redis), cluster.remove_dead(lost))
    cluster.replicas.insert(1, new)
    await wait_for_answers(cluster, new)


async def kill_worker(cluster: Cluster) -> None:
    """Kills the worker of a replica, which starts another. Requests wait, at most for 10 s."""
    replica = cluster.replicas[1]
    workers = replica.workers()
    await cluster.kill(replica, workers)

    async def replaced() -> bool:
        return replica.workers() not in ([], workers)

    await wait_until(replaced, f"{replica.name} has another worker")
    await wait_for_answers(cluster, replica)


async def cut_redis(cluster: Cluster) -> None:
    """Resets the connections of one replica to Redis and refuses new ones."""
    async with without_redis(cluster):
        cluster.relay.kill()
        await asyncio.sleep(CUT_SECONDS)
        await cluster.start_relay()


async def silence_redis(cluster: Cluster) -> None:
    """Accepts the connections of one replica to Redis without any response."""
    async with without_redis(cluster):
        cluster.relay.send_signal(signal.SIGSTOP)
        await asyncio.sleep(CUT_SECONDS)
        cluster.relay.send_signal(signal.SIGCONT)


async def lose_redis(cluster: Cluster) -> None:
    cluster.redis.kill()
    await asyncio.sleep(CUT_SECONDS)
    await cluster.start_redis()
    for replica in cluster.replicas:
        await wait_for_redis_reads(cluster, replica)


@asynccontextmanager
async def without_redis(cluster: Cluster) -> AsyncIterator[None]:
    """Checks that the replica misses Redis, passes each probe, and later reads from Redis again."""
    (replica,) = (r for r in cluster.replicas if r.redis == cluster.relay_url)
    await wait_for_redis_reads(cluster, replica)
    failures = await cluster.metric(replica, "m3h_redis_failures_total")
    probes_failed = (await cluster.proxy_statistics(replica))["chkfail"]
    yield
    if await cluster.metric(replica, "m3h_redis_failures_total") <= failures:
        raise ConditionTimeoutError(f"{replica.name} misses Redis")
    await wait_for_redis_reads(cluster, replica)
    if (await cluster.proxy_statistics(replica))["chkfail"] != probes_failed:
        raise ConditionTimeoutError(f"{replica.name} passes each probe without Redis")


async def wait_for_answers(cluster: Cluster, replica: Replica) -> None:
    """Waits for ANSWERS_AFTER more answers of a replica."""

    async def answered() -> int:
        return int((await cluster.proxy_statistics(replica))["hrsp_2xx"])

    before = await answered()

    async def enough() -> bool:
        return await answered() >= before + ANSWERS_AFTER

    await wait_until(enough, f"{replica.name} answers")


async def wait_for_redis_reads(cluster: Cluster, replica: Replica) -> None:
    """Waits until a replica reads another entry from Redis."""

    async def reads() -> float:
        return await cluster.metric(replica, "m3h_embeddings_total", origin="redis")

    before = await reads()

    async def more() -> bool:
        return await reads() > before

    await wait_until(more, f"{replica.name} reads from Redis")


# ---- results -------------------------------------------------------------------------------------


class Outcomes:
    """The outcomes of the requests in a window.

    `in_flight`: number of failed requests that a killed process had received; `failed`: the other
    failures; `retried`: number of requests that one replica refused and another received.
    """

    def __init__(self, requests: Sequence[Request], cluster: Cluster) -> None:
        routes = cluster.routes()
        self.count, self.in_flight, self.retried = len(requests), 0, 0
        self.failed: list[str] = []
        self.wrong = [f"{request.id} {request.wrong}" for request in requests if request.wrong]
        self.seconds = [request.seconds for request in requests if not request.fault]
        for request in requests:
            replica, refused = routes.get(request.id, ("", False))
            self.retried += refused
            if request.fault and request.due <= cluster.killed.get(replica, 0.0):
                self.in_flight += 1
            elif request.fault:
                self.failed.append(f"{request.id} {request.fault}")

    def milliseconds(self) -> list[float]:
        quantiles: list[float] = (1000 * np.quantile(self.seconds, [*QUANTILES.values()])).tolist()
        return quantiles

    def violations(self, *, killed: bool) -> list[str]:
        """Returns the broken guarantees. `killed`: a killed process may refuse connections."""
        result = [f"wrong: {text}" for text in self.wrong[:MAX_LISTED]]
        result += [f"failed: {text}" for text in self.failed[:MAX_LISTED]]
        if self.retried and not killed:
            result.append(f"{self.retried} connections refused")
        return result


def row(event: str, seconds: float, before: Outcomes, now: Outcomes) -> str:
    failed = len(now.failed) + now.in_flight
    counts = (now.count, failed, now.in_flight, now.retried, len(now.wrong))
    times = zip(before.milliseconds(), now.milliseconds(), strict=True)
    cells = [event, f"{seconds:.0f}", *map(str, counts)]
    cells += [f"{a:.0f} → {b:.0f} ({b / a:.1f})" for a, b in times]
    return f"| {' | '.join(cells)} |"


async def run_events(
    cluster: Cluster, load: Clients, second: Version, quiet_seconds: float
) -> bool:
    """Runs the events, prints a row and the broken guarantees of each; returns whether all hold."""
    events: dict[str, Callable[[Cluster], Awaitable[None]]] = {
        "scaled down, 3 to 2": scale_down,
        "scaled up, 2 to 3": scale_up,
        "updated to another bundle": partial(update, load, second),
        "replica killed and replaced": kill_replica,
        "worker killed": kill_worker,
        "Redis refuses one replica": cut_redis,
        "Redis silent to one replica": silence_redis,
        "Redis lost, an empty one started": lose_redis,
    }
    head = ["event", "s", "requests", "failed", "in flight", "retried", "wrong"]
    head += [f"{name}, ms" for name in QUANTILES]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    passed, count = True, 0
    for name, event in events.items():
        await asyncio.sleep(quiet_seconds)
        # Requests without an answer yet belong to the event.
        during = [request for request in load.window if not request.done()]
        quiet = [request for request in load.window if request.done()]
        load.window = during
        killed, start = {**cluster.killed}, time.monotonic()
        await event(cluster)
        seconds, load.window = time.monotonic() - start, []
        before = Outcomes(await asyncio.gather(*quiet), cluster)
        now = Outcomes(await asyncio.gather(*during), cluster)
        print(row(name, seconds, before, now), flush=True)
        count += before.count + now.count
        broken = [f"before {name}: {text}" for text in before.violations(killed=False)]
        broken += [f"{name}: {text}" for text in now.violations(killed=cluster.killed != killed)]
        for text in broken:
            print(text, file=sys.stderr, flush=True)
        passed = passed and not broken
    print(f"\n{count} requests, including those before the events; {load.rate:g}/s", flush=True)
    return passed


# ---- bundles and expected answers ----------------------------------------------------------------


def recalibrated_bundle(bundle: Path, folder: Path) -> Path:
    """Returns a bundle of the same model, recalibrated for another hospital."""
    spec = Bundle.load(bundle, "cpu", threads=1).manifest.spec
    patients, cohort = synthetic.patients(LOCAL_PATIENTS, seed=3), folder / "cohort"
    modules = (synthetic, labels)
    for _ in write(
        patients, cohort, name="elsewhere", source=synthetic.SOURCE, made_by=modules, spec=spec
    ):
        pass
    recalibrate(bundle, cohort, folder / "another")
    return folder / "another"


async def reference_answers(bundle: Path, bodies: Sequence[bytes], log: Path) -> Version:
    """Returns the answers of a single replica without cache, one request at a time."""
    headers = {"Content-Type": "application/json"}
    async with (
        serving(log, M3H_BUNDLE=str(bundle), M3H_CACHE_BYTES="0") as (_, url),
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as client,
    ):
        answers = [await client.post("/predict", content=body) for body in bodies]
    return Version(
        bundle, [clients.reproducible_part(answer.raise_for_status().json()) for answer in answers]
    )


def check_distinct(versions: Sequence[Version]) -> None:
    """Raises ValueError: if two requests, or two bundles, have the same answer."""
    answers = [answer for version in versions for answer in version.answers]
    numbers = np.array(
        [[p["probability"] for p in a["predictions"] if "probability" in p] for a in answers]
    )
    for index, probabilities in enumerate(numbers[:-1]):
        if np.abs(numbers[index + 1 :] - probabilities).max(axis=1).min() < 10 * clients.TOLERANCE:
            raise ValueError("two requests or two bundles have the same answer")


async def run(options: argparse.Namespace) -> bool:
    """Returns whether all guarantees hold."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with AsyncExitStack() as stack:
        folder = options.logs
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="m3h-cluster-")))
        else:
            folder.mkdir(parents=True)
        bodies = clients.bodies(ROOT / "examples")
        bundles = (options.bundle, recalibrated_bundle(options.bundle, folder))
        log = folder / "alone.log"
        first, second = [await reference_answers(bundle, bodies, log) for bundle in bundles]
        check_distinct((first, second))
        cluster = await stack.enter_async_context(Cluster.of(REPLICAS, first.bundle, folder))
        load = Clients(cluster.url, bodies, {first.digest: first.answers}, options.rate)
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(load.run())
            passed = await run_events(cluster, load, second, options.quiet)
            sending.cancel()
        return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundles" / "m3h-open")
    parser.add_argument("--rate", type=float, default=20, help="requests per second")
    parser.add_argument("--quiet", type=float, default=8, help="seconds before each event")
    parser.add_argument("--logs", type=Path, help="new folder for the logs of all processes")
    options = parser.parse_args()
    for program in ("haproxy", "redis-server", "setpriv"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is not installed")
    options.bundle = options.bundle.resolve()
    passed = False
    try:
        passed = asyncio.run(run(options))
    except* ConditionTimeoutError as raised:
        for error in raised.exceptions:
            print(f"expected, but did not happen: {error}", file=sys.stderr)
    except* asyncio.CancelledError:
        print("stopped", file=sys.stderr)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
