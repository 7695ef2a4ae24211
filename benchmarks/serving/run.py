"""Throughput and latency of the service, compared with other frameworks and with an upper limit.

Each server gets the same bundle, CPUs and request bodies (`payloads.py`), sent by `wrk` on the same
CPUs. In each round every server is restarted, and measured beside the limit (`limit.py`) of that
round. The table shows medians over the rounds; for ratios also the minimum and the maximum.

    python benchmarks/serving/run.py --data ../shared/data
    python benchmarks/serving/run.py --data ../shared/data --kinds vitals --connections 1 16 64 256
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import limit
import payloads

HERE = Path(__file__).parent
READY_SECONDS = 120
EXAMPLE = HERE.parents[1] / "examples" / "minimal.json"
COLUMNS = (
    *("server", "connections", "requests/s", "share of the limit (min, max)"),
    *("p50, ms", "p99, ms", "errors", "MB"),
)


@dataclass(frozen=True)
class Server:
    """How to start and call a server.

    `command` has the fields {port} and {workers}. It runs in a virtual environment with
    `requirement`, or in the current one. `health` is a path that answers once the server is ready;
    `path` is the path of predictions.
    """

    name: str
    command: str
    health: str
    requirement: str | None = None
    path: str = "/predict"
    python: Path | None = None  # interpreter of another checkout
    environment: Mapping[str, str] = field(default_factory=dict)


_M3H = "{bin}/m3h-serve --port {port} --admin-port 0 --workers {workers}"
_ONE_WORKER = "{bin}/m3h-serve --port {port} --admin-port 0 --workers 1 --threads {workers}"
_PLAIN = "-m uvicorn plain:app --port {port} --workers {workers} --no-access-log --log-level error"
_NO_CACHE = {"M3H_CACHE_BYTES": "0"}
_BENTO = "-m bentoml serve bento:M3H --host 127.0.0.1 --port {port}"
# Ray's documentation recommends these for high throughput.
_RAY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
SERVERS = (
    # Without its cache, because no other server has one.
    Server("this service", _M3H, "/health/ready", environment=_NO_CACHE),
    Server("this service, with its cache", _M3H, "/health/ready"),
    Server("plain FastAPI", _PLAIN, "/openapi.json"),
    Server("LitServe", "lit.py {port} {workers}", "/health", "litserve==0.2.19"),
    Server(
        *("BentoML", _BENTO, "/readyz", "bentoml==1.4.40"),
        environment={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    Server("MLServer", "ml_server.py {port} {workers}", "/v2/models/m3h/ready", "mlserver==1.7.1"),
    Server(
        *("KServe", "k_serve.py {port} {workers}", "/v2/health/ready", "kserve==0.21.0"),
        path="/v1/models/m3h:predict",
    ),
    Server(
        *("Ray Serve", "ray_serve.py {port} {workers}", "/-/healthz", "ray[serve]==2.60.0"),
        environment=_RAY,
    ),
)
# Other designs that use all CPUs for one model. Measured only if --servers names them.
DESIGNS = (
    Server(
        *("graph server", f"{_M3H} --graphs shared", "/health/ready"),
        environment=_NO_CACHE,
    ),
    Server(
        *("one worker, one thread per CPU", _ONE_WORKER, "/health/ready"),
        environment=_NO_CACHE,
    ),
)


def python_of(server: Server, environments: Path) -> Path:
    """Returns an interpreter with the server's requirement and all packages of the current one."""
    if server.python is not None:
        return server.python
    if server.requirement is None:
        return Path(sys.executable)
    folder = environments.resolve() / server.requirement
    python = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        print(f"installing {server.requirement}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        quiet = ("--quiet", "--disable-pip-version-check")
        subprocess.run([python, "-m", "pip", "install", *quiet, server.requirement], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        current = [path for path in sys.path if path.endswith("site-packages")]
        (site / "current.pth").write_text("\n".join([*current, str(HERE.parents[1])]))
        (folder / "complete").touch()
    return python


@contextmanager
def running(
    server: Server, workers: int, bundle: Path, environments: Path
) -> Iterator[tuple[str, int]]:
    """Yields the URL of predictions and the process id of the session leader, once it answers."""
    port = free_port()
    scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    bin_folder = Path(sys.executable).parent
    command = server.command.format(port=port, workers=workers, bin=bin_folder).split()
    environment = {
        "M3H_BUNDLE": str(bundle.resolve()),
        "M3H_LOG_LEVEL": "error",
        "PYTHONPATH": str(HERE),
        "WORKERS": str(workers),
        # Deleted with all files that a server leaves behind.
        "HOME": scratch.name,
        "TMPDIR": scratch.name,
    }
    process = subprocess.Popen(
        [python_of(server, environments), *command],
        cwd=HERE / "frameworks",
        env=os.environ | environment | server.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url + server.health)
        _wait_until_ready(
            url + server.path, EXAMPLE.read_bytes()
        )  # Ray Serve is healthy before its route exists
        yield url + server.path, process.pid
    finally:
        _end(process.pid)
        process.wait()
        scratch.cleanup()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _end(leader: int) -> None:
    """Kills all processes of the session, including those in other process groups."""
    for pid in session(leader):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def session(leader: int) -> list[int]:
    """Returns the processes of a session and their descendants.

    BentoML's workers have sessions of their own.
    """
    parents = {}
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent, _, session = (folder / "stat").read_text().rpartition(") ")[2].split()[1:4]
            parents[int(folder.name)] = int(parent)
            if int(session) == leader:
                members.append(int(folder.name))
    for pid in members:  # the loop appends
        children = [child for child, parent in parents.items() if parent == pid]
        members += [child for child in children if child not in members]
    return members


def _wait_until_ready(url: str, body: bytes | None = None) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{url} does not answer within {READY_SECONDS} s")


def megabytes(leader: int) -> float:
    """Returns the memory of a session in MB (PSS: shared memory is counted once)."""
    total = 0
    for pid in session(leader):
        with suppress(OSError, IndexError):
            total += int(Path(f"/proc/{pid}/smaps_rollup").read_text().split("Pss:")[1].split()[0])
    return total / 1024


@dataclass(frozen=True)
class LoadResult:
    """The result of one load test."""

    rate: float
    p50: float  # milliseconds
    p99: float
    errors: int


def load(url: str, bodies: Path, connections: int, seconds: int) -> LoadResult:
    changing = (
        {"CHANGING": payloads.CHANGING.decode()} if bodies.name in payloads.CHANGED_KINDS else {}
    )
    # Two threads: a single thread connects so fast that one worker may accept all connections.
    threads = min(2, connections)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s"]
    done = subprocess.run(
        [*command, HERE / "bodies.lua", url],
        env=os.environ | {"BODIES": str(bodies)} | changing,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    return LoadResult(
        rate=(result["requests"] - result["status"]) * 1e6 / result["microseconds"],
        p50=result["p50"] / 1000,
        p99=result["p99"] / 1000,
        errors=result["status"] + result["socket"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    kinds = (*payloads.KINDS, *payloads.GROWING)
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=payloads.KINDS)
    parser.add_argument("--connections", type=int, nargs="+", default=(1, 16, 64))
    parser.add_argument(
        "--servers", nargs="+", choices=[server.name for server in (*SERVERS, *DESIGNS)]
    )
    parser.add_argument("--environments", type=Path, default=Path("runs/frameworks"))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed (Debian: apt-get install wrk)")
    os.environ["M3H_BUNDLE"] = str(options.bundle.resolve())
    with tempfile.TemporaryDirectory() as folder:
        bodies = Path(folder)
        payloads.write(options.data, bodies)
        for kind in options.kinds:
            print_table(kind, bodies / kind, options)


def select_servers(names: Sequence[str] | None) -> list[Server]:
    """Returns the named servers, or all of SERVERS without names."""
    return [s for s in (*SERVERS, *DESIGNS) if (s.name in names if names else s in SERVERS)]


def print_table(kind: str, bodies: Path, options: argparse.Namespace) -> None:
    content = [path.read_bytes() for path in sorted(bodies.glob("*.json"))]
    limits: dict[str, list[float]] = {mode: [] for mode in limit.MODES}
    loads: dict[tuple[str, int], list[LoadResult]] = {}
    memory: dict[str, float] = {}
    for _ in range(options.rounds):
        for mode in limit.MODES:
            limits[mode].append(limit.rate(mode, content, options.workers, options.seconds))
        for server in select_servers(options.servers):
            with running(server, options.workers, options.bundle, options.environments) as (
                url,
                leader,
            ):
                load(url, bodies, 4, 2)
                for count in options.connections:
                    result = load(url, bodies, count, options.seconds)
                    loads.setdefault((server.name, count), []).append(result)
                memory[server.name] = megabytes(leader)
    size = statistics.median(map(len, content))
    print(f"\n**{kind}**, {size:.0f} bytes (median), {options.workers} workers")
    for mode in limit.MODES:
        print(f"limit, {mode}: {statistics.median(limits[mode]):.0f}/s")
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for (name, count), rounds in loads.items():
        print(row(name, count, rounds, limits[limit.MODES[0]], memory[name]))


def row(
    name: str, count: int, rounds: Sequence[LoadResult], limits: Sequence[float], memory: float
) -> str:
    ratios = [result.rate / most for result, most in zip(rounds, limits, strict=True)]
    median = statistics.median
    cells = [
        name,
        str(count),
        f"{median(result.rate for result in rounds):.0f}",
        f"{median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})",
        f"{median(result.p50 for result in rounds):.1f}",
        f"{median(result.p99 for result in rounds):.1f}",
        str(sum(result.errors for result in rounds)),
        f"{memory:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
