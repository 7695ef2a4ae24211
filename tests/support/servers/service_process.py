"""Starts `m3h-serve` in its own process."""

import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path


def start(
    bundle: Path, log: Path, files: int | None = None, **environment: str
) -> tuple[subprocess.Popen[str], str]:
    """Starts the service on a free port. Returns the process and its URL.

    `files`: the limit of open files. The log goes to a file, from which `process.stderr` reads: a
    pipe could fill up and block the service.
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
