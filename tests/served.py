"""`m3h-serve` as a process of its own, for the tests of what others see of it."""

import os
import subprocess
import sys
from pathlib import Path


def start(bundle: Path, log: Path, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """On a free port: the process, whose `stderr` reads its log, and its URL.

    The log goes to a file: a pipe that nobody reads would fill up, and hold the service.
    """
    command = [sys.executable, "-c", "from service.cli import app; app()"]
    with log.open("w") as written:
        process = subprocess.Popen(
            [*command, "--bundle", str(bundle), "--port", "0", "--admin-port", "0"],
            stdout=subprocess.PIPE,
            stderr=written,
            text=True,
            env=os.environ | environment,
        )
    process.stderr = log.open()
    first = process.stdout.readline()
    return process, first.rpartition(" at ")[2].strip()
