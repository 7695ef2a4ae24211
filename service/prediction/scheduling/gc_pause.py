"""Pauses the garbage collector while a long request is computed."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_active_pauses = 0


@contextmanager
def paused_gc() -> Iterator[None]:
    """Pauses the garbage collector. Pauses may overlap, also between threads.

    While a large body is parsed, the collector would traverse all parsed objects again and again
    and block the event loop for up to a second.
    """
    _change_pauses(1)
    try:
        yield
    finally:
        _change_pauses(-1)


def _change_pauses(by: int) -> None:
    global _active_pauses  # noqa: PLW0603 - the collector is global, too
    with _lock:
        _active_pauses += by
        (gc.disable if _active_pauses else gc.enable)()
