"""Starts processes on local ports and waits for conditions; no process outlives the benchmark."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx

Process = asyncio.subprocess.Process

SERVE = Path(sys.executable).parent / "m3h-serve"
TIMEOUT = 120.0  # seconds for a condition to become true
POLL_INTERVAL = 0.2  # seconds
LOG_TAIL = 500  # characters of the log in an error


class ConditionTimeoutError(Exception):
    """An expected condition did not become true, or a process ended."""


async def wait_until(
    condition: Callable[[], Awaitable[bool]], description: str, interval: float = POLL_INTERVAL
) -> None:
    """Waits for a condition. Raises ConditionTimeoutError: after TIMEOUT seconds."""
    end = time.monotonic() + TIMEOUT
    while not await condition():
        if time.monotonic() > end:
            raise ConditionTimeoutError(description)
        await asyncio.sleep(interval)


@asynccontextmanager
async def running(
    *command: str | Path, log: Path, port: int, **environment: str
) -> AsyncIterator[Process]:
    """Yields a process that listens on the port. Its process group is killed at the end.

    The kernel kills the process if this process dies.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("M3H_")}
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", *command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=inherited | environment,
            start_new_session=True,
        )

    async def listens() -> bool:
        if process.returncode is not None:
            raise _ended(command[0], log)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await wait_until(listens, f"{command[0]} listens")
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@asynccontextmanager
async def serving(log: Path, **settings: str) -> AsyncIterator[tuple[Process, str]]:
    """Yields a service with one worker of one thread, and its URL, once it is live."""
    port = free_port()
    own = {
        "M3H_HOST": "127.0.0.1",
        "M3H_PORT": str(port),
        "M3H_ADMIN_PORT": "0",
        "M3H_WORKERS": "1",
        "M3H_THREADS": "1",
        "M3H_LOG_LEVEL": "warning",
        "TMPDIR": str(log.parent),  # files of killed processes are deleted with the folder
    }
    url = f"http://127.0.0.1:{port}"
    async with (
        running(SERVE, log=log, port=port, **{**settings, **own}) as process,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):

        async def live() -> bool:
            if process.returncode is not None:
                raise _ended(SERVE, log)
            with suppress(httpx.HTTPError):
                return (await client.get("/health/live", timeout=2)).status_code == 200
            return False

        await wait_until(live, "the service is live")
        yield process, url


def _ended(command: str | Path, log: Path) -> ConditionTimeoutError:
    tail = log.read_text(errors="replace")[-LOG_TAIL:]
    return ConditionTimeoutError(f"{Path(command).name} keeps running; end of its log: {tail}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
