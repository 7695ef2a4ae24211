"""JSON lines to stderr. No line ever holds a query string, a body or a value from one."""

import logging
import os
import sys
import threading
import traceback
from typing import TextIO, cast

import orjson
import structlog
from structlog.typing import FilteringBoundLogger

from service.settings import LogLevel


def make_log(level: LogLevel, stream: TextIO) -> FilteringBoundLogger:
    """A logger of its own: nothing is configured globally."""
    return cast(
        "FilteringBoundLogger",
        structlog.wrap_logger(
            structlog.WriteLogger(stream),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(_as_json),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
        ),
    )


def _as_json(line: object, **_: object) -> str:
    return orjson.dumps(line, default=repr).decode()


def where(error: BaseException) -> list[str]:
    """The frames of an exception, innermost last, without its message: that may quote a payload."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def quote_nothing_uncaught(log: FilteringBoundLogger) -> None:
    """What nobody caught is logged without its message, and ends the process, in any thread."""

    def uncaught(error: BaseException, thread: str) -> None:
        log.error("uncaught", thread=thread, error=type(error).__name__, at=where(error))

    def in_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None:
            uncaught(failed.exc_value, failed.thread.name if failed.thread else "")
        # Without one of its threads a process would look alive and answer nobody.
        os._exit(1)

    sys.excepthook = lambda _, error, __: uncaught(error, "main")
    threading.excepthook = in_thread


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
