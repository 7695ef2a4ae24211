"""`m3h-serve` as a process of its own, for the tests of what others see of it."""

import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path


def start(
    bundle: Path, log: Path, files: int | None = None, **environment: str
) -> tuple[subprocess.Popen[str], str]:
    """On a free port: the process, whose `stderr` reads its log, and its URL.

    `files`: how many it may open. The log goes to a file: a pipe that nobody reads would fill up,
    and hold the service.
    """
    command = [sys.executable, "-c", "from service.cli import app; app()"]
    with log.open("w") as written:
        process = subprocess.Popen(
            [*command, "--bundle", str(bundle), "--port", "0", "--admin-port", "0"],
            stdout=subprocess.PIPE,
            stderr=written,
            text=True,
            env=os.environ | environment,
            preexec_fn=None if files is None else partial(_limit_files, files),  # noqa: PLW1509 - no thread
        )
    process.stderr = log.open()
    first = process.stdout.readline()
    return process, first.rpartition(" at ")[2].strip()


def _limit_files(count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
