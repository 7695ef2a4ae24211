"""Messages between the supervisor and its child processes. Each child has its own pipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class WorkerCommand:
    """A command to a worker: load a bundle, serve the loaded bundle, or drop it.

    A bundle is loaded beside the served one. `digest`: the bundle must have it, if it is given.
    """

    action: Literal["load", "serve", "drop"]
    bundle: Path = Path()
    digest: str | None = None


@dataclass(frozen=True)
class WorkerReply:
    """A worker's reply: the loaded bundle, or the fault in one line.

    `retry`: the bundle did not cause the fault, and the command may succeed later.
    """

    model: str = ""
    digest: str = ""
    fault: str = ""
    retry: bool = False


@dataclass(frozen=True)
class GraphServerReply:
    """The graph server's reply to a ping, or the fault of its start.

    `run_seconds`: how long the current run of a graph has taken; 0 if no graph runs.
    """

    fault: str = ""
    run_seconds: float = 0.0
