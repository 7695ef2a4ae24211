"""The sections of the report.

A section measures figures, which go to results.json unchanged, and renders them as Markdown blocks.
The text holds no figure that is not in results.json.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.evaluation.study.jobs import SINGLE_TASK
from model.evaluation.study.results import StudyResults
from model.training.config import TrainConfig

Figures = dict[str, Any]  # the figures of a section; JSON can hold them

_MEMBERS = TrainConfig().members
ONE_NETWORK = "m3h_one"  # the first member of the ensemble
MODEL_NAMES = {
    "m3h": f"M3H (ensemble of {_MEMBERS})",
    ONE_NETWORK: "M3H (one network)",
    SINGLE_TASK: "same network, single-task",
    "shared_trunk": f"shared trunk, no attention (ensemble of {_MEMBERS})",
    "lightgbm": "LightGBM per task",
    "logistic_regression": "logistic regression per task",
}
COMPARED_MODELS = ("m3h", "logistic_regression", "lightgbm")  # in sections without all models
INPUT_NAMES = {"measured": "measured", "all": "all inputs"}
# The minimum of positives of a task where patients are few: on another database, in a group, and
# among diseases first charted later.
MIN_POSITIVES_SMALL = 8


@dataclass(frozen=True)
class Section:
    """A section of the report.

    `name`: the key of its figures in results.json. `measure` raises MissingPredictionsError if
    predictions are missing. `render` gives Markdown blocks; `plot` writes images to a folder.
    """

    name: str
    title: str
    measure: Callable[[StudyResults], Figures]
    render: Callable[[Figures], list[str]]
    plot: Callable[[Figures, Path], None] | None = None
