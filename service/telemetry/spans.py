"""What a traced request goes through, and when: told where it happens, in the event loop or in the
batcher's thread. `service.telemetry.otlp` makes spans of it once the request is answered.

A request that is not traced has no Stage, and `within` costs it nothing.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = str | int | bool | Sequence[str]

STAGE = "m3h.stage"  # in the scope of a request that is traced
ROWS = "m3h.batch.rows"

_NOTHING = nullcontext()


@dataclass(eq=False)
class Stage:
    """A part of a request's way, and its own parts. Times are of `time.perf_counter`.

    What several requests go through together, a batch, is one Stage `inside` all of them. No
    attribute may hold a value from a request. `ended` is None as long as it goes on; `fault`: the
    class of the exception that ended it.
    """

    name: str
    began: float = field(default_factory=time.perf_counter)
    ended: float | None = None
    attributes: dict[str, Value] = field(default_factory=dict)
    inside: list["Stage"] = field(default_factory=list)
    fault: str | None = None

    def begin(self, name: str) -> "Stage":
        """A part that somebody else will end."""
        part = Stage(name)
        self.inside.append(part)
        return part

    @contextmanager
    def lasting(self) -> Iterator["Stage"]:
        """It ends with the context."""
        try:
            yield self
        except BaseException as error:
            self.fault = type(error).__name__
            raise
        finally:
            self.ended = time.perf_counter()


def within(stage: Stage | None, name: str) -> AbstractContextManager[Stage | None]:
    """A part of the stage that ends with the context, if there is a stage."""
    return _NOTHING if stage is None else stage.begin(name).lasting()


def together(
    stages: Iterable[Stage | None], name: str, rows: int
) -> AbstractContextManager[Stage | None]:
    """One part that all of the stages have in common, if there is one."""
    traced = {stage for stage in stages if stage is not None}
    if not traced:
        return _NOTHING
    common = Stage(name, attributes={ROWS: rows})
    for stage in traced:
        stage.inside.append(common)
    return common.lasting()
