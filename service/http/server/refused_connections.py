"""Counts and logs the connections that the server refused or closed."""

import time
from typing import Literal

from structlog.typing import FilteringBoundLogger

from service.telemetry.metrics import Metrics

Reason = Literal[
    "malformed",
    "headers_too_large",
    "target_too_long",
    "host",
    "head_too_slow",
    "body_too_slow",
    "body_not_read",
    "answer_not_read",
    "too_many_connections",
    "too_many_open_files",
]
LOG_SECONDS = 60.0  # interval between two log lines with the same reason


class RefusedConnections:
    """Counts refused connections by reason.

    Logs the first one of each reason at once, then their number every LOG_SECONDS. `metrics`: None
    where nothing is counted.
    """

    def __init__(self, log: FilteringBoundLogger, metrics: Metrics | None) -> None:
        self._log, self._metrics = log, metrics
        self._unlogged: dict[Reason, int] = {}
        self._logged_at: dict[Reason, float] = {}

    def add(self, reason: Reason) -> None:
        if self._metrics is not None:
            self._metrics.count_refused_connection(reason)
        self._unlogged[reason] = self._unlogged.get(reason, 0) + 1
        self.log_due()

    def log_due(self) -> None:
        """Writes the log lines that are due."""
        now = time.monotonic()
        for reason, count in list(self._unlogged.items()):
            if now - self._logged_at.get(reason, -LOG_SECONDS) >= LOG_SECONDS:
                self._logged_at[reason] = now
                del self._unlogged[reason]
                self._log.warning("connections refused", reason=reason, count=count)
