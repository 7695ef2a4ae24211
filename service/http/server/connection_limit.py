"""The maximum number of connections, given the limit of open files."""

import errno
import resource
from contextlib import suppress
from pathlib import Path

from structlog.typing import FilteringBoundLogger

# Connections above the limit, on which only health probes are answered. The same number is
# reserved for other files. If few files may be open, each gets at most a quarter of them.
_RESERVE = 32
RESOURCE_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def connection_limit(wanted: int, log: FilteringBoundLogger) -> tuple[int, int]:
    """The maximum number of connections, and how many more are accepted for health probes.

    `wanted` is reduced to what the limit of open files allows. Raises that limit's soft value to
    its hard value.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return wanted, _RESERVE
    free = soft - len(list(Path("/dev/fd").iterdir()))
    reserve = max(1, min(_RESERVE, free // 4))
    possible = max(1, free - 2 * reserve)
    if possible < wanted:
        log.warning("fewer connections than M3H_MAX_CONNECTIONS", connections=possible, files=soft)
    return min(wanted, possible), reserve
