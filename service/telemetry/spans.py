"""Spans of a traced request, recorded by the event loop and by the batcher's thread.

`service.telemetry.otlp` converts them to OpenTelemetry spans after the response has been sent.
A request that is not traced has no Span, and `child_span` then does nothing.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

AttributeValue: TypeAlias = str | int | bool | Sequence[str]

SPAN_KEY = "m3h.span"  # the key of a traced request's Span in its ASGI scope
BATCH_ROWS = "m3h.batch.rows"

_NO_SPAN = nullcontext()


@dataclass(eq=False)
class Span:
    """A timed step of a request, and the steps inside it. Times are `time.perf_counter` seconds.

    A batch serves several requests: its Span is a child of the Span of each of them. No attribute
    may hold a value from a request. `ended` is None while the step runs. `error` is the class name
    of the exception that ended the step.
    """

    name: str
    started: float = field(default_factory=time.perf_counter)
    ended: float | None = None
    attributes: dict[str, AttributeValue] = field(default_factory=dict)
    children: list["Span"] = field(default_factory=list)
    error: str | None = None

    def start_child(self, name: str) -> "Span":
        """Starts a child. The caller sets its `ended`."""
        child = Span(name)
        self.children.append(child)
        return child

    @contextmanager
    def closing(self) -> Iterator["Span"]:
        """Ends the span when the context ends."""
        try:
            yield self
        except BaseException as error:
            self.error = type(error).__name__
            raise
        finally:
            self.ended = time.perf_counter()


def child_span(parent: Span | None, name: str) -> AbstractContextManager[Span | None]:
    """A child of `parent` that ends with the context. Does nothing without a parent."""
    return _NO_SPAN if parent is None else parent.start_child(name).closing()


def shared_span(
    parents: Iterable[Span | None], name: str, rows: int
) -> AbstractContextManager[Span | None]:
    """One span that is a child of every parent, with the number of rows in the batch."""
    traced = {parent for parent in parents if parent is not None}
    if not traced:
        return _NO_SPAN
    shared = Span(name, attributes={BATCH_ROWS: rows})
    for parent in traced:
        parent.children.append(shared)
    return shared.closing()
