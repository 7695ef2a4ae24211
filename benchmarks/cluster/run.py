"""What becomes of requests while replicas come, go and die, and while Redis is cut off or lost.

Three replicas of the service behind HAProxy, probed, updated and ended as the chart has it, beside
a Redis; all on this machine. Callers come at a rate throughout, and compare each answer with what
the very bundle that it names says of that request when it is served alone.

    python benchmarks/cluster/run.py

Prints a table in Markdown. Exits with 1 if a promise was broken: no request fails but those inside
of what is killed; no answer is wrong; no connection is refused by a replica that ends in an orderly
way. Needs HAProxy and Redis (Debian: haproxy, redis-server).
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

import callers
import httpx
import numpy as np
from callers import Answer, Asked, Callers
from cluster import Cluster, Replica
from processes import DidNotHappen, serving, until

from export.recalibrate import recalibrate
from model.cohorts import labels, synthetic
from model.cohorts.store import write
from service.runtime.bundle import Bundle

ROOT = Path(__file__).parents[2]
REPLICAS = 3
LOCAL_PATIENTS = 60  # by whom the second bundle is corrected
CUT_SECONDS = 6.0
AFTER = 10  # answers of a new replica, until an event is over
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "longest": 1.0}
LISTED = 10  # of each kind of breach

# ---- what happens to the cluster -----------------------------------------------------------------


@dataclass(frozen=True)
class Version:
    """A bundle, and what it says of each body."""

    bundle: Path
    answers: list[Answer]

    @property
    def digest(self) -> str:
        return str(self.answers[0]["model"]["digest"])


async def scale_down(cluster: Cluster) -> None:
    await cluster.end(cluster.replicas[-1])


async def scale_up(cluster: Cluster) -> None:
    new = await cluster.started(cluster.redis_url)
    cluster.replicas.append(new)
    await answering(cluster, new)


async def update(load: Callers, version: Version, cluster: Cluster) -> None:
    """As the chart's strategy has it: one more is started; once it is ready, one ends."""
    before = [*load.right]
    load.right[version.digest] = version.answers
    cluster.bundle = version.bundle
    ending = []
    for place, old in enumerate([*cluster.replicas]):
        new = await cluster.started(old.redis)
        cluster.replicas.insert(place, new)
        ending.append(asyncio.create_task(cluster.end(old)))
    await asyncio.gather(*ending)
    for digest in before:
        del load.right[digest]
    for new in cluster.replicas:
        await answering(cluster, new)


async def lose_replica(cluster: Cluster) -> None:
    lost = cluster.replicas[1]
    await cluster.kill(lost, lost.processes())
    new, _ = await asyncio.gather(cluster.started(lost.redis), cluster.gone(lost))
    cluster.replicas.insert(1, new)
    await answering(cluster, new)


async def lose_worker(cluster: Cluster) -> None:
    """Its replica starts another; who comes meanwhile waits at the door."""
    replica = cluster.replicas[1]
    workers = replica.workers()
    await cluster.kill(replica, workers)

    async def anew() -> bool:
        return replica.workers() not in ([], workers)

    await until(anew, f"{replica.name} has another worker")
    await answering(cluster, replica)


async def cut_redis(cluster: Cluster) -> None:
    """Connections of one replica to Redis are reset, and new ones refused."""
    async with without_redis(cluster):
        cluster.relay.kill()
        await asyncio.sleep(CUT_SECONDS)
        await cluster.start_relay()


async def silence_redis(cluster: Cluster) -> None:
    """Connections of one replica to Redis are accepted, and nothing is said on them."""
    async with without_redis(cluster):
        cluster.relay.send_signal(signal.SIGSTOP)
        await asyncio.sleep(CUT_SECONDS)
        cluster.relay.send_signal(signal.SIGCONT)


async def lose_redis(cluster: Cluster) -> None:
    cluster.redis.kill()
    await asyncio.sleep(CUT_SECONDS)
    await cluster.start_redis()
    for replica in cluster.replicas:
        await reading(cluster, replica)


@asynccontextmanager
async def without_redis(cluster: Cluster) -> AsyncIterator[None]:
    """Around a cut: the replica misses Redis, passes each probe, and reads from Redis again."""
    (replica,) = (one for one in cluster.replicas if one.redis == cluster.relay_url)
    await reading(cluster, replica)
    missed = await cluster.counted(replica, "m3h_redis_failures_total")
    probes_failed = (await cluster.seen(replica))["chkfail"]
    yield
    if await cluster.counted(replica, "m3h_redis_failures_total") <= missed:
        raise DidNotHappen(f"{replica.name} misses Redis")
    await reading(cluster, replica)
    if (await cluster.seen(replica))["chkfail"] != probes_failed:
        raise DidNotHappen(f"{replica.name} passes each probe without Redis")


async def answering(cluster: Cluster, replica: Replica) -> None:
    """Returns after some answers of it, from now on."""

    async def answered() -> int:
        return int((await cluster.seen(replica))["hrsp_2xx"])

    before = await answered()

    async def some() -> bool:
        return await answered() >= before + AFTER

    await until(some, f"{replica.name} answers")


async def reading(cluster: Cluster, replica: Replica) -> None:
    """Returns once it has found something in Redis, from now on."""

    async def found() -> float:
        return await cluster.counted(replica, "m3h_embeddings_total", origin="redis")

    before = await found()

    async def more() -> bool:
        return await found() > before

    await until(more, f"{replica.name} finds something in Redis")


# ---- what became of the requests -----------------------------------------------------------------


class Seen:
    """What callers saw in a window.

    `inside`: how many failed that were inside of what was killed; `failed`: the others; `sent_on`:
    how many had a connection refused, and went to another replica.
    """

    def __init__(self, asked: Sequence[Asked], cluster: Cluster) -> None:
        ways = cluster.ways()
        self.count, self.inside, self.sent_on = len(asked), 0, 0
        self.failed: list[str] = []
        self.wrong = [f"{one.id} {one.wrong}" for one in asked if one.wrong]
        self.seconds = [one.seconds for one in asked if not one.fault]
        for one in asked:
            replica, refused = ways.get(one.id, ("", False))
            self.sent_on += refused
            if one.fault and one.due <= cluster.killed.get(replica, 0.0):
                self.inside += 1
            elif one.fault:
                self.failed.append(f"{one.id} {one.fault}")

    def milliseconds(self) -> list[float]:
        found: list[float] = (1000 * np.quantile(self.seconds, [*QUANTILES.values()])).tolist()
        return found

    def broken(self, *, killed: bool) -> list[str]:
        """The promises that were. `killed`: something was, so that connections are refused."""
        found = [f"wrong: {one}" for one in self.wrong[:LISTED]]
        found += [f"failed: {one}" for one in self.failed[:LISTED]]
        if self.sent_on and not killed:
            found.append(f"{self.sent_on} connections refused")
        return found


def row(event: str, seconds: float, before: Seen, now: Seen) -> str:
    failed = len(now.failed) + now.inside
    counts = (now.count, failed, now.inside, now.sent_on, len(now.wrong))
    times = zip(before.milliseconds(), now.milliseconds(), strict=True)
    cells = [event, f"{seconds:.0f}", *map(str, counts)]
    cells += [f"{a:.0f} → {b:.0f} ({b / a:.1f})" for a, b in times]
    return f"| {' | '.join(cells)} |"


async def all_events(
    cluster: Cluster, load: Callers, second: Version, quiet_seconds: float
) -> bool:
    """Prints a row for each, and the promises that were broken; whether all were kept."""
    happens: dict[str, Callable[[Cluster], Awaitable[None]]] = {
        "scaled down, 3 to 2": scale_down,
        "scaled up, 2 to 3": scale_up,
        "updated to another bundle": partial(update, load, second),
        "replica killed and replaced": lose_replica,
        "worker killed": lose_worker,
        "Redis refuses one replica": cut_redis,
        "Redis silent to one replica": silence_redis,
        "Redis lost, an empty one started": lose_redis,
    }
    head = ["event", "s", "requests", "failed", "inside", "sent on", "wrong"]
    head += [f"{name}, ms" for name in QUANTILES]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    kept, count = True, 0
    for name, event in happens.items():
        await asyncio.sleep(quiet_seconds)
        # Who has no answer yet meets the event, too.
        during = [one for one in load.window if not one.done()]
        quiet = [one for one in load.window if one.done()]
        load.window = during
        killed, began = {**cluster.killed}, time.monotonic()
        await event(cluster)
        seconds, load.window = time.monotonic() - began, []
        before = Seen(await asyncio.gather(*quiet), cluster)
        now = Seen(await asyncio.gather(*during), cluster)
        print(row(name, seconds, before, now), flush=True)
        count += before.count + now.count
        broken = [f"before {name}: {one}" for one in before.broken(killed=False)]
        broken += [f"{name}: {one}" for one in now.broken(killed=cluster.killed != killed)]
        for one in broken:
            print(one, file=sys.stderr, flush=True)
        kept = kept and not broken
    print(f"\n{count} requests, also before the events; {load.rate:g} in a second", flush=True)
    return kept


# ---- what is asked, and what is right ------------------------------------------------------------


def another_bundle(bundle: Path, folder: Path) -> Path:
    """The same model, corrected for another hospital."""
    spec = Bundle.load(bundle, "cpu", threads=1).manifest.spec
    patients, cohort = synthetic.patients(LOCAL_PATIENTS, seed=3), folder / "cohort"
    made_by = (synthetic, labels)
    for _ in write(
        patients, cohort, name="elsewhere", source=synthetic.SOURCE, made_by=made_by, spec=spec
    ):
        pass
    recalibrate(bundle, cohort, folder / "another")
    return folder / "another"


async def served_alone(bundle: Path, bodies: Sequence[bytes], log: Path) -> Version:
    """By a replica that keeps nothing, and is asked for one at a time."""
    headers = {"Content-Type": "application/json"}
    async with (
        serving(log, M3H_BUNDLE=str(bundle), M3H_CACHE_BYTES="0") as (_, url),
        httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as client,
    ):
        answers = [await client.post("/predict", content=body) for body in bodies]
    return Version(bundle, [callers.lasting(one.raise_for_status().json()) for one in answers])


def tell_apart(versions: Sequence[Version]) -> None:
    """Raises ValueError if an answer could be taken for that of another request or bundle."""
    answers = [answer for version in versions for answer in version.answers]
    numbers = np.array(
        [[p["probability"] for p in a["predictions"] if "probability" in p] for a in answers]
    )
    for place, one in enumerate(numbers[:-1]):
        if np.abs(numbers[place + 1 :] - one).max(axis=1).min() < 10 * callers.TOLERANCE:
            raise ValueError("two requests have the same answer, or two bundles")


async def run(options: argparse.Namespace) -> bool:
    """Whether all promises were kept."""
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    async with AsyncExitStack() as stack:
        folder = options.logs
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="m3h-cluster-")))
        else:
            folder.mkdir(parents=True)
        bodies = callers.bodies(ROOT / "examples")
        bundles = (options.bundle, another_bundle(options.bundle, folder))
        log = folder / "alone.log"
        first, second = [await served_alone(bundle, bodies, log) for bundle in bundles]
        tell_apart((first, second))
        cluster = await stack.enter_async_context(Cluster.of(REPLICAS, first.bundle, folder))
        load = Callers(cluster.url, bodies, {first.digest: first.answers}, options.rate)
        async with asyncio.TaskGroup() as group:
            coming = group.create_task(load.come())
            kept = await all_events(cluster, load, second, options.quiet)
            coming.cancel()
        return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "bundles" / "m3h-open")
    parser.add_argument("--rate", type=float, default=20, help="requests in a second")
    parser.add_argument("--quiet", type=float, default=8, help="seconds before each event")
    parser.add_argument("--logs", type=Path, help="folder to make, for what all processes say")
    options = parser.parse_args()
    for program in ("haproxy", "redis-server", "setpriv"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is needed")
    options.bundle = options.bundle.resolve()
    kept = False
    try:
        kept = asyncio.run(run(options))
    except* DidNotHappen as raised:
        for one in raised.exceptions:
            print(f"did not happen: {one}", file=sys.stderr)
    except* asyncio.CancelledError:
        print("stopped", file=sys.stderr)
    sys.exit(not kept)


if __name__ == "__main__":
    main()
