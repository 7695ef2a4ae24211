"""Child processes for asyncio: messages and exits are events of the supervisor's event loop.

No thread waits for a child. A thread pool can be smaller than the number of workers on a large
machine, and a full pool would never read the reply of the last worker.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

# A terminal sends these to all processes of its group, and only the supervisor handles them. A
# child starts with them blocked, so that none interrupts its imports; then it ignores them.
_TERMINAL_SIGNALS = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_REAP_SECONDS = 10.0  # from SIGKILL until the process has ended


class ChildEnded(Exception):
    """The child has closed its pipe, because it ends."""


class ChildProcess:
    """A running child process. Create and use it in one event loop.

    `ended` is set when the process has ended.
    """

    def __init__(
        self, context: SpawnContext, name: str, target: Callable[..., None], *arguments: object
    ) -> None:
        """Starts `target(*arguments, pipe)`. Raises OSError if the process cannot start."""
        self._pipe, child_pipe = context.Pipe()
        try:
            self.process = context.Process(
                target=target, args=(*arguments, child_pipe), name=name, daemon=True
            )
            resource_tracker.ensure_running()  # its own start unblocks the signals
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINAL_SIGNALS)
            try:
                self.process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        except BaseException:
            self._pipe.close()
            raise
        finally:
            child_pipe.close()
        self.pid = self.process.pid
        self.ended = asyncio.Event()
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pipe.fileno(), self._receive)
        self._loop.add_reader(self.process.sentinel, self._set_ended)

    @property
    def exit_code(self) -> int | None:
        return self.process.exitcode

    async def wait_exit_code(self) -> int | None:
        """The exit code of a child that has closed its pipe, and so ends within a second."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self.ended.wait()
        return self.process.exitcode

    def send(self, message: object) -> None:
        """Sends a message, which must be small enough not to block. Raises ChildEnded."""
        try:
            self._pipe.send(message)
        except (OSError, ValueError):
            raise ChildEnded from None

    async def receive(self, seconds: float) -> Any:
        """The next message. Raises TimeoutError, or ChildEnded if the child has ended."""
        async with asyncio.timeout(seconds):
            message = await self._messages.get()
        if isinstance(message, ChildEnded):
            self._messages.put_nowait(message)  # for the next call
            raise message
        return message

    async def kill(self) -> None:
        """Sends SIGKILL, which also ends a stopped process, and waits until it has ended."""
        if self.ended.is_set():
            return
        self.process.kill()
        with suppress(TimeoutError):  # the process hangs in the kernel
            async with asyncio.timeout(_REAP_SECONDS):
                await self.ended.wait()

    def kill_first_when_out_of_memory(self) -> None:
        """Makes the kernel's out-of-memory killer choose this process before any other."""
        with suppress(OSError):
            Path(f"/proc/{self.pid}/oom_score_adj").write_text("1000", encoding="ascii")

    def close(self) -> None:
        """Closes the pipe. A child that still runs then ends."""
        self._loop.remove_reader(self._pipe.fileno())
        self._loop.remove_reader(self.process.sentinel)
        self._pipe.close()

    def _receive(self) -> None:
        try:
            message = self._pipe.recv()
        except (EOFError, OSError):
            self._loop.remove_reader(self._pipe.fileno())
            message = ChildEnded()
        self._messages.put_nowait(message)

    def _set_ended(self) -> None:
        self._loop.remove_reader(self.process.sentinel)
        self.process.join()
        self.ended.set()


def ignore_terminal_signals() -> None:
    """Ignores the signals of a terminal in a child process. The supervisor handles them."""
    for number in _TERMINAL_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TERMINAL_SIGNALS)


class Backoff:
    """Exponential backoff between restarts of a process: from 1 s, doubled up to 30 s.

    A process that has served for a minute is healthy: its next restart waits 1 s again.
    """

    FIRST_SECONDS, MAX_SECONDS, HEALTHY_SECONDS = 1.0, 30.0, 60.0

    def __init__(self) -> None:
        self._seconds = self.FIRST_SECONDS

    def next(self, served_seconds: float) -> float:
        """Seconds to wait before restarting a process that served for `served_seconds`."""
        if served_seconds >= self.HEALTHY_SECONDS:
            self._seconds = self.FIRST_SECONDS
        seconds = self._seconds
        self._seconds = min(2 * seconds, self.MAX_SECONDS)
        return seconds

    def reset(self) -> None:
        self._seconds = self.FIRST_SECONDS
