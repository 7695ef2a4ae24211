"""Real processes on ports of this machine, none of which outlives the benchmark."""

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
LONGEST = 120.0  # seconds that anything may take to come about
LOOK = 0.2  # seconds from one look to the next
SAID = 500  # characters of what a process said, where it failed


class DidNotHappen(Exception):
    """What was to come about has not."""


async def until(true: Callable[[], Awaitable[bool]], what: str, look: float = LOOK) -> None:
    """Raises DidNotHappen if it is not true in time."""
    end = time.monotonic() + LONGEST
    while not await true():
        if time.monotonic() > end:
            raise DidNotHappen(what)
        await asyncio.sleep(look)


@asynccontextmanager
async def running(
    *command: str | Path, log: Path, port: int, **environment: str
) -> AsyncIterator[Process]:
    """A process that listens on the port, in a group of its own, which is killed at the end.

    The kernel kills the process if this one is killed.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("M3H_")}
    with log.open("ab") as written:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", *command),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
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
        await until(listens, f"{command[0]} listens")
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@asynccontextmanager
async def serving(log: Path, **settings: str) -> AsyncIterator[tuple[Process, str]]:
    """The service with one worker of one thread, and its URL, once it is live."""
    port = free_port()
    own = {
        "M3H_HOST": "127.0.0.1",
        "M3H_PORT": str(port),
        "M3H_ADMIN_PORT": "0",
        "M3H_WORKERS": "1",
        "M3H_THREADS": "1",
        "M3H_LOG_LEVEL": "warning",
        "TMPDIR": str(log.parent),  # what is left there by whoever is killed goes with it
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

        await until(live, "the service is live")
        yield process, url


def _ended(command: str | Path, log: Path) -> DidNotHappen:
    said = log.read_text(errors="replace")[-SAID:]
    return DidNotHappen(f"{Path(command).name} runs on; it said: {said}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
