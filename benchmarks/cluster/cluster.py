"""A cluster on one machine: replicas of the service behind HAProxy, with a Redis.

The processes are real. This module replaces Kubernetes: it starts and ends replicas and configures
the proxy, with the settings, probes and grace period of the rendered chart.
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
from processes import ConditionTimeoutError, Process, free_port, running, serving, wait_until
from prometheus_client.parser import text_string_to_metric_families

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "helm"
# Seconds from SIGTERM until the proxy stops sending requests; Kubernetes needs one or two.
PROPAGATION_SECONDS = 3.0
# A small cache, so that replicas read from Redis often.
CACHE_BYTES = 20_000


@dataclass(frozen=True)
class Chart:
    """The chart's default settings, readiness probe and grace period of a replica."""

    settings: Mapping[str, str]
    probe: Mapping[str, Any]
    grace_seconds: int

    @classmethod
    def rendered(cls) -> Self:
        files = helm_python.Chart.load(CHART).render({}, name="m3h", namespace="m3h")
        settings = yaml.safe_load(files["m3h/templates/configmap.yaml"])["data"]
        deployment = yaml.safe_load(files["m3h/templates/deployment.yaml"])["spec"]
        if deployment["strategy"]["rollingUpdate"] != {"maxUnavailable": 0, "maxSurge": 1}:
            raise ValueError("the chart's update strategy differs from that of run.py")
        pod = deployment["template"]["spec"]
        (container,) = pod["containers"]
        return cls(settings, container["readinessProbe"], pod["terminationGracePeriodSeconds"])


@dataclass(eq=False)
class Replica:
    """A process of the service. `name`: its unique slot in the proxy; `redis`: its Redis URL."""

    name: str
    url: str
    redis: str
    process: Process

    def processes(self) -> list[int]:
        """Returns the process ids: the supervisor, then its children."""
        first = self.process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)]

    def workers(self) -> list[int]:
        _, *children = self.processes()
        named = [(pid, Path(f"/proc/{pid}/cmdline").read_bytes()) for pid in children]
        return [pid for pid, name in named if b"spawn_main" in name]


class Cluster:
    """`bundle`: the bundle of new replicas. `killed`: time of death of killed replicas, by name."""

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
        """Yields a cluster of `count` ready replicas; the first connects to Redis by the relay."""
        async with AsyncExitStack() as stack:
            cluster = cls(bundle, folder, stack)
            stack.push_async_callback(cluster._http.aclose)
            await cluster.start_redis()
            await cluster.start_relay()
            probe = cluster._chart.probe
            await cluster._start(
                *("haproxy", "-db", "-f", HERE / "haproxy.cfg"),
                log="haproxy",
                port=cluster._port,
                FOLDER=str(folder),
                PORT=str(cluster._port),
                PROBE_PERIOD=str(probe["periodSeconds"]),
                PROBE_TIMEOUT=str(probe["timeoutSeconds"]),
                PROBE_FAILURES=str(probe["failureThreshold"]),
            )
            urls = [cluster.relay_url, *[cluster.redis_url] * (count - 1)]
            cluster.replicas += await asyncio.gather(*map(cluster.start_replica, urls))
            yield cluster

    async def _start(
        self, *command: str | Path, log: str, port: int, **environment: str
    ) -> Process:
        return await self._stack.enter_async_context(
            running(*command, log=self._folder / f"{log}.log", port=port, **environment)
        )

    async def start_redis(self) -> None:
        """Starts an empty Redis as the chart does, always at the same address."""
        listen = ("--bind", "127.0.0.1", "--port", str(self._redis_port))
        policy = ("--save", "", "--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru")
        command = ("redis-server", *listen, *policy)
        self.redis = await self._start(*command, log="redis", port=self._redis_port)

    async def start_relay(self) -> None:
        ports = {"PORT": str(self._relay_port), "REDIS_PORT": str(self._redis_port)}
        command = ("haproxy", "-db", "-f", HERE / "relay.cfg")
        self.relay = await self._start(*command, log="relay", port=self._relay_port, **ports)

    # ---- start and end replicas ------------------------------------------------------------------

    async def start_replica(self, redis: str) -> Replica:
        """Starts a replica and returns it once the proxy considers it ready."""
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
        # HAProxy considers an enabled slot ready until a probe fails; `health down` reverses that.
        await self._haproxy(
            f"{slot} addr 127.0.0.1 port {port}", f"{slot} state ready", f"{slot} health down"
        )
        await wait_until(lambda: self._is(replica, "UP"), f"{name} is ready")
        return replica

    async def end(self, replica: Replica) -> None:
        """Ends a replica as Kubernetes does: SIGTERM, and the proxy is updated some time later."""
        self.replicas.remove(replica)
        replica.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(PROPAGATION_SECONDS)
        await self._haproxy(f"set server pods/{replica.name} state drain")
        try:
            code = await asyncio.wait_for(replica.process.wait(), self._chart.grace_seconds)
        except TimeoutError:
            raise ConditionTimeoutError(f"{replica.name} ends within its grace period") from None
        if code:
            raise ConditionTimeoutError(f"{replica.name} ends with code 0, not {code}")
        await self._haproxy(f"set server pods/{replica.name} state maint")

    async def kill(self, replica: Replica, processes: Sequence[int]) -> None:
        """Kills some processes of a replica, if possible while it handles a request."""
        for _ in range(2000):
            if (await self.proxy_statistics(replica))["scur"] != "0":
                break
        for process in processes:
            os.kill(process, signal.SIGKILL)

        async def dead() -> bool:
            return not any(map(_lives, processes))

        # Until their death they may accept a request and never answer it.
        await wait_until(dead, f"{replica.name} dies", interval=0.002)
        self.killed[replica.name] = time.monotonic()

    async def remove_dead(self, replica: Replica) -> None:
        """Removes a dead replica once the proxy's probes have failed."""
        self.replicas.remove(replica)
        await wait_until(lambda: self._is(replica, "DOWN"), f"the probes of {replica.name} fail")
        await self._haproxy(f"set server pods/{replica.name} state maint")

    # ---- observe replicas ------------------------------------------------------------------------

    async def proxy_statistics(self, replica: Replica) -> dict[str, str]:
        """Returns the replica's row of the proxy's statistics."""
        lines = (await self._haproxy("show stat")).removeprefix("# ").splitlines()
        return next(row for row in csv.DictReader(lines) if row["svname"] == replica.name)

    async def _is(self, replica: Replica, status: str) -> bool:
        return (await self.proxy_statistics(replica))["status"].split()[0] == status

    async def metric(self, replica: Replica, name: str, **labels: str) -> float:
        """Returns the sum of a metric's samples that have the labels."""
        text = (await self._http.get(f"{replica.url}/metrics", timeout=10)).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def _haproxy(self, *commands: str) -> str:
        """Returns the response of HAProxy to commands."""
        reader, writer = await asyncio.open_unix_connection(self._folder / "haproxy.sock")
        writer.write("; ".join(commands).encode() + b"\n")
        response = (await reader.read()).decode()
        writer.close()
        return response

    def routes(self) -> dict[str, tuple[str, bool]]:
        """Returns for each request id the final replica, and whether another replica refused it."""
        lines = (self._folder / "haproxy.log").read_text().splitlines()
        fields = [line.split() for line in lines if line.startswith("caller-")]
        return {id_: (name, retried.lstrip("+") != "0") for id_, name, _, _, retried in fields}


def _lives(process: int) -> bool:
    """Returns whether a thread of the process lives; its last thread may be a zombie."""
    try:
        threads = len(list(Path(f"/proc/{process}/task").iterdir()))
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return threads > 1 or state != "Z"
