"""Structured logs: JSON lines on stderr. No line holds a query string, a body or a value of one."""

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
    """A logger that writes to `stream`. It changes no global configuration."""
    return cast(
        "FilteringBoundLogger",
        structlog.wrap_logger(
            structlog.WriteLogger(cast("TextIO", _SafeStream(stream))),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(_to_json),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
        ),
    )


class _SafeStream:
    """A stream that drops a write that fails, so that a full disk fails no request."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _to_json(line: object, **_: object) -> str:
    return orjson.dumps(line, default=repr).decode()


def stack_frames(error: BaseException) -> list[str]:
    """The frames of an exception, innermost last. Omits its message, which may quote a payload."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def capture_all(log: FilteringBoundLogger) -> None:
    """Sends the logs and warnings of libraries, and uncaught exceptions, to `log`."""
    logging.basicConfig(handlers=[LibraryLogHandler(log)], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    log_uncaught(log)


def log_uncaught(log: FilteringBoundLogger) -> None:
    """Logs an uncaught exception without its message. In any thread it then ends the process."""

    def in_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None:
            _log_exception(log, failed.exc_value, failed.thread.name if failed.thread else "")
        # A process that lost one of its threads would look alive and answer no request.
        os._exit(1)

    sys.excepthook = lambda _, error, __: _log_exception(log, error, "main")
    threading.excepthook = in_thread


def run_child(log: FilteringBoundLogger, main: Callable[[], None]) -> None:
    """Runs the main function of a child process. Logs an uncaught exception and exits with 1.

    `multiprocessing` would otherwise print a traceback, without calling `sys.excepthook`.
    """
    capture_all(log)
    try:
        main()
    except Exception as error:  # noqa: BLE001 - logged without its message, which may quote input
        _log_exception(log, error, "main")
        sys.exit(1)


def log_uncaught_in(loop: asyncio.AbstractEventLoop, log: FilteringBoundLogger) -> None:
    """Logs uncaught exceptions of the loop's tasks and callbacks without their messages.

    asyncio's own handler would log the messages.
    """

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None:
            log.error("uncaught", thread="event loop", error=context["message"])
        else:
            _log_exception(log, error, "event loop")

    loop.set_exception_handler(handle)


def _log_exception(log: FilteringBoundLogger, error: BaseException, thread: str) -> None:
    log.error("uncaught", thread=thread, error=type(error).__name__, at=stack_frames(error))


class LibraryLogHandler(logging.Handler):
    """Sends log records of uvicorn and other libraries to the JSON log, without exception texts."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields |= {"error": type(error).__name__, "at": stack_frames(error)}
        self._log.log(record.levelno, record.getMessage(), **fields)
