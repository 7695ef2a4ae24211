"""The sections of the report.

A section measures figures, which go to results.json unchanged, and renders them as Markdown blocks.
The text holds no figure that is not in results.json.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.evaluation.study.jobs import LIGHTGBM_BAG, SINGLE_TASK
from model.evaluation.study.results import StudyResults
from model.training.config import TrainConfig

Figures = dict[str, Any]  # the figures of a section; JSON can hold them

_MEMBERS = TrainConfig().members
# The first member of an ensemble.
ONE_NETWORK, SINGLE_TASK_ONE, SHARED_TRUNK_ONE = "m3h_one", f"{SINGLE_TASK}_one", "shared_trunk_one"
# Ensembles are compared with M3H's ensemble, single models with one of its networks. The members of
# all learn from the same hospitals. The logistic regression is a single model.
ENSEMBLE_NAMES = {
    "m3h": f"M3H (ensemble of {_MEMBERS})",
    "shared_trunk": f"shared trunk, no attention (ensemble of {_MEMBERS})",
    SINGLE_TASK: f"same network, single-task (ensembles of {_MEMBERS})",
    LIGHTGBM_BAG: f"LightGBM per task (bags of {_MEMBERS})",
    "logistic_regression": "logistic regression per task",
}
SINGLE_NAMES = {
    ONE_NETWORK: "M3H (one network)",
    SHARED_TRUNK_ONE: "shared trunk, no attention (one network)",
    SINGLE_TASK_ONE: "same network, single-task (one network each)",
    "lightgbm": "LightGBM per task (one model each)",
}
MODEL_NAMES = ENSEMBLE_NAMES | SINGLE_NAMES
COMPARED_MODELS = ("m3h", SINGLE_TASK, LIGHTGBM_BAG, "logistic_regression")  # in other sections
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
