"""A child process whose messages and whose end are events of the supervisor's event loop.

No thread waits for a child: a pool of threads is smaller than the number of workers on a large
machine, and a full pool would never read the last worker's answer.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

# A terminal sends these to all processes of its group. A child starts with them blocked, so that
# none interrupts its imports, and unblocks them once it ignores them.
_FOR_THE_SUPERVISOR = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_REAP_SECONDS = 10.0  # from SIGKILL until a process is gone


class ChildEnded(Exception):
    """The child closed its pipe, which it does by ending."""


class ChildProcess:
    """A running child. To be made and used in one event loop.

    `ended` is set once the process is gone.
    """

    def __init__(
        self, context: SpawnContext, name: str, target: Callable[..., None], *arguments: object
    ) -> None:
        """Starts `target(*arguments, pipe)`. Raises OSError if no process can be started."""
        self._pipe, theirs = context.Pipe()
        try:
            self.process = context.Process(
                target=target, args=(*arguments, theirs), name=name, daemon=True
            )
            resource_tracker.ensure_running()  # its start would unblock the signals
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_SUPERVISOR)
            try:
                self.process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        except BaseException:
            self._pipe.close()
            raise
        finally:
            theirs.close()
        self.pid = self.process.pid
        self.ended = asyncio.Event()
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pipe.fileno(), self._read)
        self._loop.add_reader(self.process.sentinel, self._end)

    @property
    def exit_code(self) -> int | None:
        return self.process.exitcode

    async def exit_code_soon(self) -> int | None:
        """Of a child that has closed its pipe, which it does just before it is gone."""
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self.ended.wait()
        return self.process.exitcode

    def send(self, message: object) -> None:
        """Raises ChildEnded if nobody reads any more. Messages are small: the pipe takes them."""
        try:
            self._pipe.send(message)
        except (OSError, ValueError):
            raise ChildEnded from None

    async def receive(self, seconds: float) -> Any:
        """The next message. Raises TimeoutError, and ChildEnded if none will come."""
        async with asyncio.timeout(seconds):
            message = await self._messages.get()
        if isinstance(message, ChildEnded):
            self._messages.put_nowait(message)  # whoever asks next gets it, too
            raise message
        return message

    async def kill(self) -> None:
        """SIGKILL, which also ends a stopped process. Returns once it is gone."""
        if self.ended.is_set():
            return
        self.process.kill()
        with suppress(TimeoutError):  # it hangs in the kernel; nothing else can be done
            async with asyncio.timeout(_REAP_SECONDS):
                await self.ended.wait()

    def end_first(self) -> None:
        """If memory is short, the kernel ends this process before any other of the service."""
        with suppress(OSError):
            Path(f"/proc/{self.pid}/oom_score_adj").write_text("1000", encoding="ascii")

    def close(self) -> None:
        """Gives up the pipe: a child that is still there ends by that."""
        self._loop.remove_reader(self._pipe.fileno())
        self._loop.remove_reader(self.process.sentinel)
        self._pipe.close()

    def _read(self) -> None:
        try:
            message = self._pipe.recv()
        except (EOFError, OSError):
            self._loop.remove_reader(self._pipe.fileno())
            message = ChildEnded()
        self._messages.put_nowait(message)

    def _end(self) -> None:
        self._loop.remove_reader(self.process.sentinel)
        self.process.join()
        self.ended.set()


def ignore_terminal_signals() -> None:
    """In a child: what a terminal sends to its whole group is for the supervisor."""
    for number in _FOR_THE_SUPERVISOR:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_SUPERVISOR)


class Backoff:
    """How long to wait before a process is started again: 1 s, doubled up to 30 s.

    A process that has served for a minute counts as healthy, and the next wait is the first one.
    """

    FIRST_SECONDS, LONGEST_SECONDS, HEALTHY_SECONDS = 1.0, 30.0, 60.0

    def __init__(self) -> None:
        self._seconds = self.FIRST_SECONDS

    def next(self, served_seconds: float) -> float:
        """Seconds to wait after a process that served for so long."""
        if served_seconds >= self.HEALTHY_SECONDS:
            self._seconds = self.FIRST_SECONDS
        seconds = self._seconds
        self._seconds = min(2 * seconds, self.LONGEST_SECONDS)
        return seconds

    def reset(self) -> None:
        self._seconds = self.FIRST_SECONDS
