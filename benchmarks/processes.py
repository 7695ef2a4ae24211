"""Time to start, reload, recover and end a service with many workers.

    python benchmarks/processes.py --workers 40

A worker needs about 120 MB.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

BUNDLE = Path("bundles/m3h-open")
BODY = {"as_of": "2026-01-02T12:00:00Z", "tabular": {"age": 67, "sex": "female"}}


def copy_with_version(folder: Path, version: str) -> Path:
    """Returns a copy of the bundle with another version."""
    path = folder / version
    shutil.copytree(BUNDLE, path)
    manifest = json.loads((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
    return path


def workers_of(pid: int) -> list[int]:
    workers = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = status.read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid and "spawn_main" in (status.parent / "cmdline").read_text():
                workers.append(int(status.parent.name))
    return workers


def memory(pids: list[int]) -> float:
    """Returns the memory of processes in MiB (PSS: shared memory is divided among its users)."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def served_versions(url: str, requests: int) -> set[str]:
    """Returns the model versions in the answers to some requests."""
    return {
        httpx.post(f"{url}/predict", json=BODY, timeout=120).json()["model"]["version"]
        for _ in range(requests)
    }


@contextmanager
def step(name: str, rows: list[tuple[str, str]]) -> Iterator[None]:
    start = time.monotonic()
    yield
    rows.append((name, f"{time.monotonic() - start:.1f} s"))
    print(f"{rows[-1][0]}: {rows[-1][1]}", flush=True)


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.2)


@contextmanager
def running_service(
    bundle: Path, count: int, folder: Path, rows: list[tuple[str, str]]
) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Yields the process of a service with `count` workers, its URL and the URL of its reloads."""
    log = folder / "log.jsonl"
    options = ["--bundle", str(bundle), "--port", "0", "--admin-port", "0", "--drain-seconds", "0"]
    command = [sys.executable, "-c", "from service.cli import app; app()", *options]
    with (
        log.open("w") as output,
        subprocess.Popen(
            [*command, "--workers", str(count)], stdout=subprocess.PIPE, stderr=output, text=True
        ) as process,
    ):
        try:
            with step("start", rows):
                assert process.stdout is not None
                url = process.stdout.readline().rpartition(" at ")[2].strip()
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            port = next(line["port"] for line in lines if line["event"] == "admin")
            yield process, url, f"http://127.0.0.1:{port}/admin/reload"
        finally:
            process.kill()


def measure(count: int, folder: Path) -> list[tuple[str, str]]:
    """Returns the duration or the result of each step."""
    rows: list[tuple[str, str]] = []
    first, second, third = (copy_with_version(folder, v) for v in ("1.0.1", "2.0.0", "3.0.0"))
    with running_service(first, count, folder, rows) as (process, url, reload_url):
        rows.append(("memory", f"{memory(workers_of(process.pid)):.0f} MiB"))
        with step("reload", rows):
            answer = httpx.post(reload_url, json={"bundle": str(second)}, timeout=1200)
        versions = served_versions(url, 5 * count)
        rows.append(("result of the reload", f"{answer.status_code}; {versions}"))
        before = set(workers_of(process.pid))
        for pid in sorted(before)[: max(1, count // 10)]:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: bool(set(workers_of(process.pid)) - before))
        with step("reload while workers start", rows), ThreadPoolExecutor(1) as pool:
            reload = pool.submit(httpx.post, reload_url, json={"bundle": str(third)}, timeout=1200)
            for pid in set(workers_of(process.pid)) - before:
                os.kill(pid, signal.SIGKILL)
            answer = reload.result()
        versions = served_versions(url, 5 * count)
        rows.append(("result of the reload", f"{answer.status_code}; {versions}"))
        with step("all workers are running again", rows):
            wait_until(lambda: len(workers_of(process.pid)) == count)
        rows.append(("served versions", f"{served_versions(url, 5 * count)}"))
        with step("metrics", rows):
            httpx.get(f"{url}/metrics", timeout=60)
        with step("end", rows):
            process.terminate()
            code = process.wait(300)
        rows.append(("exit code", str(code)))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=40)
    worker_count = parser.parse_args().workers
    with tempfile.TemporaryDirectory() as scratch:
        table = measure(worker_count, Path(scratch))
    print(f"\n{worker_count} workers, {os.cpu_count()} CPUs\n\n| step | result |\n|---|---|")
    for name, result in table:
        print(f"| {name} | {result} |")
