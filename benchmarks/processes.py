"""Start, reload, kill and end a service of many workers; print how long each step takes.

    python benchmarks/processes.py --workers 40

A worker takes some 120 MB.
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


def other_version(folder: Path, version: str) -> Path:
    """A copy of the bundle that says it is of another version."""
    path = folder / version
    shutil.copytree(BUNDLE, path)
    manifest = json.loads((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
    return path


def children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = status.read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid and "spawn_main" in (status.parent / "cmdline").read_text():
                found.append(int(status.parent.name))
    return found


def memory(pids: list[int]) -> float:
    """MiB of these processes that no other has, or their share of it."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def versions(url: str, times: int) -> set[str]:
    return {
        httpx.post(f"{url}/predict", json=BODY, timeout=120).json()["model"]["version"]
        for _ in range(times)
    }


@contextmanager
def step(name: str, rows: list[tuple[str, str]]) -> Iterator[None]:
    began = time.monotonic()
    yield
    rows.append((name, f"{time.monotonic() - began:.1f} s"))
    print(f"{rows[-1][0]}: {rows[-1][1]}", flush=True)


def until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.2)


def measure(workers: int, folder: Path) -> list[tuple[str, str]]:
    """What each step took, and what was seen."""
    rows: list[tuple[str, str]] = []
    first, second, third = (other_version(folder, v) for v in ("1.0.1", "2.0.0", "3.0.0"))
    log = folder / "log.jsonl"
    given = ["--bundle", str(first), "--port", "0", "--admin-port", "0", "--drain-seconds", "0"]
    command = [sys.executable, "-c", "from service.cli import app; app()", *given]
    with (
        log.open("w") as written,
        subprocess.Popen(
            [*command, "--workers", str(workers)],
            stdout=subprocess.PIPE,
            stderr=written,
            text=True,
        ) as process,
    ):
        try:
            with step("start", rows):
                assert process.stdout is not None
                url = process.stdout.readline().rpartition(" at ")[2].strip()
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            port = next(line["port"] for line in lines if line["event"] == "admin")
            admin = f"http://127.0.0.1:{port}/admin/reload"
            rows.append(("memory", f"{memory(children(process.pid)):.0f} MiB"))
            with step("reload", rows):
                answer = httpx.post(admin, json={"bundle": str(second)}, timeout=1200)
            rows.append(("reload says", f"{answer.status_code}; {versions(url, 5 * workers)}"))
            before = set(children(process.pid))
            for pid in sorted(before)[: max(1, workers // 10)]:
                os.kill(pid, signal.SIGKILL)
            until(lambda: bool(set(children(process.pid)) - before))
            with step("reload while workers start", rows), ThreadPoolExecutor(1) as pool:
                told = pool.submit(httpx.post, admin, json={"bundle": str(third)}, timeout=1200)
                for pid in set(children(process.pid)) - before:
                    os.kill(pid, signal.SIGKILL)
                answer = told.result()
            rows.append(("reload says", f"{answer.status_code}; {versions(url, 5 * workers)}"))
            with step("all workers are there again", rows):
                until(lambda: len(children(process.pid)) == workers)
            rows.append(("they serve", f"{versions(url, 5 * workers)}"))
            with step("metrics", rows):
                httpx.get(f"{url}/metrics", timeout=60)
            with step("end", rows):
                process.terminate()
                code = process.wait(300)
            rows.append(("exit code", str(code)))
        finally:
            process.kill()
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=40)
    count = parser.parse_args().workers
    with tempfile.TemporaryDirectory() as scratch:
        table = measure(count, Path(scratch))
    print(f"\n{count} workers, {os.cpu_count()} processors\n\n| step | result |\n|---|---|")
    for name, result in table:
        print(f"| {name} | {result} |")
