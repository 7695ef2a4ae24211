"""What the supervisor and its child processes say to each other, over a pipe for each child."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class WorkerCommand:
    """Load a bundle beside the one that is served; serve what was loaded; or drop it.

    `digest`: of the bundle that it must be, if that is known.
    """

    action: Literal["load", "serve", "drop"]
    bundle: Path = Path()
    digest: str | None = None


@dataclass(frozen=True)
class WorkerReply:
    """The bundle that was loaded; or the fault, in one line.

    `retry`: the fault is not the bundle's; the same command may succeed later.
    """

    model: str = ""
    digest: str = ""
    fault: str = ""
    retry: bool = False


@dataclass(frozen=True)
class GraphServerReply:
    """The graph server listens, or cannot, or answers a ping.

    `run_seconds`: how long the run of a graph takes that is computed now; 0 if there is none.
    """

    fault: str = ""
    run_seconds: float = 0.0
