"""How much this service carries, beside the limit and beside what a user would pick instead.

Each server gets the same bundle, the same processors and the same bodies (`payloads.py`), sent by
`wrk` on the same processors. In each round every server is started anew and measured beside the
limit of that round; what is told are the medians of rounds, and of ratios the least and the most.

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
    *("server", "connections", "requests/s", "of the limit (least, most)"),
    *("p50, ms", "p99, ms", "errors", "MB"),
)


@dataclass(frozen=True)
class Server:
    """`command` with {port} and {workers}, in the environment of `requirement`, or in this one.

    `health`: a path that answers once it serves; `path`: where it is asked.
    """

    name: str
    command: str
    health: str
    requirement: str | None = None
    path: str = "/predict"
    python: Path | None = None  # of another checkout
    environment: Mapping[str, str] = field(default_factory=dict)


_M3H = "{bin}/m3h-serve --port {port} --admin-port 0 --workers {workers}"
_ONE = "{bin}/m3h-serve --port {port} --admin-port 0 --workers 1 --threads {workers}"
_PLAIN = "-m uvicorn plain:app --port {port} --workers {workers} --no-access-log --log-level error"
_NO_CACHE = {"M3H_CACHE_BYTES": "0"}
_BENTO = "-m bentoml serve bento:M3H --host 127.0.0.1 --port {port}"
# What its documentation tells for high throughput.
_RAY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
SERVERS = (
    # Without its cache: none of the others has one.
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
# Other ways to use all processors with one model, measured when they are named.
DESIGNS = (
    Server(
        *("graphs in one process", f"{_M3H} --graphs shared", "/health/ready"),
        environment=_NO_CACHE,
    ),
    Server(
        *("one worker with a thread for each", _ONE, "/health/ready"),
        environment=_NO_CACHE,
    ),
)


def python_of(server: Server, environments: Path) -> Path:
    """The interpreter that has what the server needs, and all that this one has."""
    if server.python is not None:
        return server.python
    if server.requirement is None:
        return Path(sys.executable)
    folder = environments.resolve() / server.requirement
    python = folder / "bin" / "python"
    if not (folder / "made").is_file():
        print(f"installing {server.requirement}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        quiet = ("--quiet", "--disable-pip-version-check")
        subprocess.run([python, "-m", "pip", "install", *quiet, server.requirement], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        here = [path for path in sys.path if path.endswith("site-packages")]
        (site / "beside.pth").write_text("\n".join([*here, str(HERE.parents[1])]))
        (folder / "made").touch()
    return python


@contextmanager
def running(
    server: Server, workers: int, bundle: Path, environments: Path
) -> Iterator[tuple[str, int]]:
    """Where it is asked, and the leader of its processes, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    bin_folder = Path(sys.executable).parent
    command = server.command.format(port=port, workers=workers, bin=bin_folder).split()
    environment = {
        "M3H_BUNDLE": str(bundle.resolve()),
        "M3H_LOG_LEVEL": "error",
        "PYTHONPATH": str(HERE),
        "WORKERS": str(workers),
        # What some of them leave behind goes with it.
        "HOME": scratch.name,
        "TMPDIR": scratch.name,
    }
    process = subprocess.Popen(
        [python_of(server, environments), *command],
        cwd=HERE / "contenders",
        env=os.environ | environment | server.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _await(url + server.health)
        _await(url + server.path, EXAMPLE.read_bytes())  # Ray Serve's health comes before its route
        yield url + server.path, process.pid
    finally:
        _end(process.pid)
        process.wait()
        scratch.cleanup()


def _end(leader: int) -> None:
    """All processes of the session, also those that have made groups of their own."""
    for pid in session(leader):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def session(leader: int) -> list[int]:
    """Its session, and all that those started: BentoML's workers have sessions of their own."""
    parents = {}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent, _, session = (folder / "stat").read_text().rpartition(") ")[2].split()[1:4]
            parents[int(folder.name)] = int(parent)
            if int(session) == leader:
                found.append(int(folder.name))
    for pid in found:  # grows meanwhile
        found += [one for one, parent in parents.items() if parent == pid and one not in found]
    return found


def _await(url: str, body: bytes | None = None) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{url} does not answer")


def megabytes(leader: int) -> float:
    """Memory of all processes of the session, what they share counted once (PSS)."""
    total = 0
    for pid in session(leader):
        with suppress(OSError, IndexError):
            total += int(Path(f"/proc/{pid}/smaps_rollup").read_text().split("Pss:")[1].split()[0])
    return total / 1024


@dataclass(frozen=True)
class Measured:
    rate: float
    p50: float  # milliseconds
    p99: float
    errors: int


def load(url: str, bodies: Path, connections: int, seconds: int) -> Measured:
    changing = {"CHANGING": payloads.CHANGING.decode()} if bodies.name in payloads.CHANGE else {}
    # From two threads: one alone connects so fast that a single worker may take all connections.
    threads = min(2, connections)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s"]
    done = subprocess.run(
        [*command, HERE / "many.lua", url],
        env=os.environ | {"BODIES": str(bodies)} | changing,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    return Measured(
        rate=(told["requests"] - told["status"]) * 1e6 / told["microseconds"],
        p50=told["p50"] / 1000,
        p99=told["p99"] / 1000,
        errors=told["status"] + told["socket"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/m3h-open"))
    every = (*payloads.KINDS, *payloads.GROWING)
    parser.add_argument("--kinds", nargs="+", choices=every, default=payloads.KINDS)
    parser.add_argument("--connections", type=int, nargs="+", default=(1, 16, 64))
    parser.add_argument(
        "--servers", nargs="+", choices=[server.name for server in (*SERVERS, *DESIGNS)]
    )
    parser.add_argument("--environments", type=Path, default=Path("runs/contenders"))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed (Debian: apt-get install wrk)")
    os.environ["M3H_BUNDLE"] = str(options.bundle.resolve())
    with tempfile.TemporaryDirectory() as made:
        bodies = Path(made)
        payloads.make(options.data, bodies)
        for kind in options.kinds:
            table(kind, bodies / kind, options)


def chosen(names: Sequence[str] | None) -> list[Server]:
    """Those that are named; all of SERVERS if none is."""
    return [s for s in (*SERVERS, *DESIGNS) if (s.name in names if names else s in SERVERS)]


def table(kind: str, bodies: Path, options: argparse.Namespace) -> None:
    content = [path.read_bytes() for path in sorted(bodies.glob("*.json"))]
    limits: dict[str, list[float]] = {way: [] for way in limit.WAYS}
    found: dict[tuple[str, int], list[Measured]] = {}
    memory: dict[str, float] = {}
    for _ in range(options.rounds):
        for way in limit.WAYS:
            limits[way].append(limit.rate(way, content, options.workers, options.seconds))
        for server in chosen(options.servers):
            with running(server, options.workers, options.bundle, options.environments) as (
                url,
                leader,
            ):
                load(url, bodies, 4, 2)
                for count in options.connections:
                    one = load(url, bodies, count, options.seconds)
                    found.setdefault((server.name, count), []).append(one)
                memory[server.name] = megabytes(leader)
    size = statistics.median(map(len, content))
    print(f"\n**{kind}**, {size:.0f} bytes (median), {options.workers} workers")
    for way in limit.WAYS:
        print(f"limit, {way}: {statistics.median(limits[way]):.0f}/s")
    print(
        "\n| server | connections | requests/s | of the limit (least, most) | p50, ms | p99, ms ",
        end="",
    )
    print("| errors | MB |\n|---|---|---|---|---|---|---|---|")
    for (name, count), rounds in found.items():
        print(row(name, count, rounds, limits[limit.WAYS[0]], memory[name]))


def row(
    name: str, count: int, rounds: Sequence[Measured], limits: Sequence[float], memory: float
) -> str:
    ratios = [one.rate / most for one, most in zip(rounds, limits, strict=True)]
    middle = statistics.median
    cells = [
        name,
        str(count),
        f"{middle(one.rate for one in rounds):.0f}",
        f"{middle(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})",
        f"{middle(one.p50 for one in rounds):.1f}",
        f"{middle(one.p99 for one in rounds):.1f}",
        str(sum(one.errors for one in rounds)),
        f"{memory:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
