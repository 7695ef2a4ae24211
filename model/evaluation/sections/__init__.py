"""The sections of the report.

Each measures its figures, which go to results.json as they are, and tells them in blocks of text
from these alone: no figure is in the text that is not in the file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.evaluation.measure import Found
from model.evaluation.study import SINGLE_TASK
from model.evaluation.study_results import Kept
from model.training.config import TrainConfig

_MEMBERS = TrainConfig().members
ONE = "m3h_one"  # the first member of the ensemble alone
NAMES = {
    "m3h": f"M3H (ensemble of {_MEMBERS})",
    ONE: "M3H (one network)",
    SINGLE_TASK: "same network, single-task",
    "shared_trunk": f"shared trunk, no attention (ensemble of {_MEMBERS})",
    "lightgbm": "LightGBM per task",
    "logistic_regression": "logistic regression per task",
}
BESIDE = ("m3h", "logistic_regression", "lightgbm")  # where not all models are needed
INPUTS = {"measured": "measured", "all": "all inputs"}
FEWEST_FEW = 8  # positives of a task: at another database, in a group, of what was foreseen


@dataclass(frozen=True)
class Section:
    """`name`: of its figures in results.json. `measure` raises NotYet where predictions lack."""

    name: str
    title: str
    measure: Callable[[Kept], Found]
    tell: Callable[[Found], list[str]]
    draw: Callable[[Found, Path], None] | None = None
