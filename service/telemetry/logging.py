"""JSON lines to stderr. No line ever holds a query string, a body or a value from one."""

import asyncio
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.typing import FilteringBoundLogger

from service.settings import LogLevel


def make_log(level: LogLevel, stream: TextIO) -> FilteringBoundLogger:
    """A logger of its own: nothing is configured globally."""
    return cast(
        "FilteringBoundLogger",
        structlog.wrap_logger(
            structlog.WriteLogger(cast("TextIO", _Unfailing(stream))),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(_as_json),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
        ),
    )


class _Unfailing:
    """A stream on which a write that fails is lost: no request fails with a full disk."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _as_json(line: object, **_: object) -> str:
    return orjson.dumps(line, default=repr).decode()


def where(error: BaseException) -> list[str]:
    """The frames of an exception, innermost last, without its message: that may quote a payload."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def take_over(log: FilteringBoundLogger) -> None:
    """Sends everything that a process says to its log: of libraries, and what nobody caught."""
    logging.basicConfig(handlers=[FromLibraries(log)], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    quote_nothing_uncaught(log)


def quote_nothing_uncaught(log: FilteringBoundLogger) -> None:
    """What nobody caught is logged without its message, and ends the process, in any thread."""

    def in_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None:
            _uncaught(log, failed.exc_value, failed.thread.name if failed.thread else "")
        # Without one of its threads a process would look alive and answer nobody.
        os._exit(1)

    sys.excepthook = lambda _, error, __: _uncaught(log, error, "main")
    threading.excepthook = in_thread


def run_child(log: FilteringBoundLogger, main: Callable[[], None]) -> None:
    """The main function of a child process, under the log.

    `multiprocessing` would print a traceback of its own, past `sys.excepthook`.
    """
    take_over(log)
    try:
        main()
    except Exception as error:  # noqa: BLE001 - the last resort; never silent, never an echo
        _uncaught(log, error, "main")
        sys.exit(1)


def log_uncaught_in(loop: asyncio.AbstractEventLoop, log: FilteringBoundLogger) -> None:
    """What no task or callback of a loop caught is logged without its message, which asyncio
    would write down.
    """

    def uncaught(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None:
            log.error("uncaught", thread="event loop", error=context["message"])
        else:
            _uncaught(log, error, "event loop")

    loop.set_exception_handler(uncaught)


def _uncaught(log: FilteringBoundLogger, error: BaseException, thread: str) -> None:
    log.error("uncaught", thread=thread, error=type(error).__name__, at=where(error))


class FromLibraries(logging.Handler):
    """Sends what uvicorn and other libraries log through the JSON log, exceptions unquoted."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields |= {"error": type(record.exc_info[1]).__name__, "at": where(record.exc_info[1])}
        self._log.log(record.levelno, record.getMessage(), **fields)
