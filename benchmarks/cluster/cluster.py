"""What the chart makes of a cluster, on one machine: replicas behind a proxy, beside a Redis.

Real are the processes of the service, HAProxy and Redis. What Kubernetes does (it starts and ends
replicas, and tells the proxy of it) is done here, as the rendered chart asks for.
"""

import asyncio
import csv
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import helm_python
import httpx
import yaml
from processes import DidNotHappen, Process, free_port, running, serving, until
from prometheus_client.parser import text_string_to_metric_families

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "helm"
# Seconds after SIGTERM until the proxy sends a replica no more: Kubernetes needs one or two.
PROPAGATION = 3.0
# So little memory that Redis is asked again and again.
CACHE_BYTES = 20_000


@dataclass(frozen=True)
class Chart:
    """What the chart says of a replica, by default."""

    settings: Mapping[str, str]
    probe: Mapping[str, Any]
    grace_seconds: int

    @classmethod
    def rendered(cls) -> Self:
        files = helm_python.Chart.load(CHART).render({}, name="m3h", namespace="m3h")
        settings = yaml.safe_load(files["m3h/templates/configmap.yaml"])["data"]
        deployment = yaml.safe_load(files["m3h/templates/deployment.yaml"])["spec"]
        if deployment["strategy"]["rollingUpdate"] != {"maxUnavailable": 0, "maxSurge": 1}:
            raise ValueError("the chart has its replicas updated in another way than run.py does")
        pod = deployment["template"]["spec"]
        (container,) = pod["containers"]
        return cls(settings, container["readinessProbe"], pod["terminationGracePeriodSeconds"])


@dataclass(eq=False)
class Replica:
    """`name`: its slot in the proxy, that no other replica ever gets. `redis`: its URL of Redis."""

    name: str
    url: str
    redis: str
    process: Process

    def processes(self) -> list[int]:
        """All of it, the first one first."""
        first = self.process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def workers(self) -> list[int]:
        _, *children = self.processes()
        named = [(pid, Path(f"/proc/{pid}/cmdline").read_bytes()) for pid in children]
        return [pid for pid, name in named if b"spawn_main" in name]


class Cluster:
    """`bundle`: what replicas serve that are started. `killed`: when they died, by name."""

    def __init__(self, bundle: Path, folder: Path, stack: AsyncExitStack) -> None:
        self.bundle = bundle
        self.replicas: list[Replica] = []
        self.killed: dict[str, float] = {}
        self._folder, self._stack = folder, stack
        self._chart = Chart.rendered()
        self._http = httpx.AsyncClient(trust_env=False)
        self._names = (f"pod{number}" for number in itertools.count(1))
        self._port, self._redis_port, self._relay_port = (free_port() for _ in range(3))
        self.url = f"http://127.0.0.1:{self._port}"
        self.redis_url = f"redis://127.0.0.1:{self._redis_port}"
        self.relay_url = f"redis://127.0.0.1:{self._relay_port}"

    @classmethod
    @asynccontextmanager
    async def of(cls, count: int, bundle: Path, folder: Path) -> AsyncIterator[Self]:
        """`count` replicas that are ready, the first of which reaches Redis through the relay."""
        async with AsyncExitStack() as stack:
            made = cls(bundle, folder, stack)
            stack.push_async_callback(made._http.aclose)
            await made.start_redis()
            await made.start_relay()
            probe = made._chart.probe
            await made._start(
                *("haproxy", "-db", "-f", HERE / "haproxy.cfg"),
                log="haproxy",
                port=made._port,
                FOLDER=str(folder),
                PORT=str(made._port),
                PROBE_PERIOD=str(probe["periodSeconds"]),
                PROBE_TIMEOUT=str(probe["timeoutSeconds"]),
                PROBE_FAILURES=str(probe["failureThreshold"]),
            )
            urls = [made.relay_url, *[made.redis_url] * (count - 1)]
            made.replicas += await asyncio.gather(*map(made.started, urls))
            yield made

    async def _start(
        self, *command: str | Path, log: str, port: int, **environment: str
    ) -> Process:
        return await self._stack.enter_async_context(
            running(*command, log=self._folder / f"{log}.log", port=port, **environment)
        )

    async def start_redis(self) -> None:
        """An empty one, as the chart's; always at the same address."""
        where = ("--bind", "127.0.0.1", "--port", str(self._redis_port))
        keep = ("--save", "", "--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru")
        command = ("redis-server", *where, *keep)
        self.redis = await self._start(*command, log="redis", port=self._redis_port)

    async def start_relay(self) -> None:
        ports = {"PORT": str(self._relay_port), "REDIS_PORT": str(self._redis_port)}
        command = ("haproxy", "-db", "-f", HERE / "relay.cfg")
        self.relay = await self._start(*command, log="relay", port=self._relay_port, **ports)

    # ---- replicas come and go --------------------------------------------------------------------

    async def started(self, redis: str) -> Replica:
        """A new one, once the proxy has found it ready."""
        name = next(self._names)
        settings = {
            **self._chart.settings,
            "M3H_BUNDLE": str(self.bundle),
            "M3H_REDIS_URL": redis,
            "M3H_REDIS_SECRET": "of this cluster alone",
            "M3H_CACHE_BYTES": str(CACHE_BYTES),
        }
        process, url = await self._stack.enter_async_context(
            serving(self._folder / f"{name}.log", **settings)
        )
        replica = Replica(name, url, redis, process)
        slot, port = f"set server pods/{name}", url.rpartition(":")[2]
        # A slot that is enabled counts as ready until a probe fails; here one must succeed first.
        await self._tell(
            f"{slot} addr 127.0.0.1 port {port}", f"{slot} state ready", f"{slot} health down"
        )
        await until(lambda: self._is(replica, "UP"), f"{name} is ready")
        return replica

    async def end(self, replica: Replica) -> None:
        """As Kubernetes does: tells it to end, and the proxy, some time later, to leave it."""
        self.replicas.remove(replica)
        replica.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(PROPAGATION)
        await self._tell(f"set server pods/{replica.name} state drain")
        try:
            code = await asyncio.wait_for(replica.process.wait(), self._chart.grace_seconds)
        except TimeoutError:
            raise DidNotHappen(f"{replica.name} ends within its grace period") from None
        if code:
            raise DidNotHappen(f"{replica.name} ends with 0, not with {code}")
        await self._tell(f"set server pods/{replica.name} state maint")

    async def kill(self, replica: Replica, processes: Sequence[int]) -> None:
        """Some of its processes, while it has a request, if it has one soon."""
        for _ in range(2000):
            if (await self.seen(replica))["scur"] != "0":
                break
        for process in processes:
            os.kill(process, signal.SIGKILL)

        async def dead() -> bool:
            return not any(map(_lives, processes))

        # Until then they may take a request that nobody answers.
        await until(dead, f"{replica.name} dies", look=0.002)
        self.killed[replica.name] = time.monotonic()

    async def gone(self, replica: Replica) -> None:
        """Returns once the probes have found that it is not there."""
        self.replicas.remove(replica)
        await until(lambda: self._is(replica, "DOWN"), f"{replica.name} is seen to be gone")
        await self._tell(f"set server pods/{replica.name} state maint")

    # ---- what is seen of them --------------------------------------------------------------------

    async def seen(self, replica: Replica) -> dict[str, str]:
        """What the proxy's statistics say of it."""
        lines = (await self._tell("show stat")).removeprefix("# ").splitlines()
        return next(row for row in csv.DictReader(lines) if row["svname"] == replica.name)

    async def _is(self, replica: Replica, status: str) -> bool:
        return (await self.seen(replica))["status"].split()[0] == status

    async def counted(self, replica: Replica, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have the labels."""
        text = (await self._http.get(f"{replica.url}/metrics", timeout=10)).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def _tell(self, *commands: str) -> str:
        """Gives what the proxy says to that."""
        reader, writer = await asyncio.open_unix_connection(self._folder / "haproxy.sock")
        writer.write("; ".join(commands).encode() + b"\n")
        said = (await reader.read()).decode()
        writer.close()
        return said

    def ways(self) -> dict[str, tuple[str, bool]]:
        """By a request's id: where it went in the end, and whether it was refused elsewhere."""
        lines = (self._folder / "haproxy.log").read_text().splitlines()
        found = [line.split() for line in lines if line.startswith("caller-")]
        return {id_: (name, retried.lstrip("+") != "0") for id_, name, _, _, retried in found}


def _lives(process: int) -> bool:
    """Whether a thread of it does; the last one closes what all had open, and may be a zombie."""
    try:
        threads = len(list(Path(f"/proc/{process}/task").iterdir()))
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return threads > 1 or state != "Z"
