"""The effects of findings on tasks that are expected before data are seen."""

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from model.knowledge.findings import assertion_name

Floats = npt.NDArray[np.float64]

_OWN_DISEASE = "own_disease_in_notes"


@cache
def _load() -> dict[str, dict[str, float]]:
    text = files("model.knowledge").joinpath("effects.toml").read_text("utf-8")
    effects: dict[str, dict[str, float]] = tomllib.loads(text)
    return effects


def expected_effects(task: str, findings: Sequence[str]) -> Floats:
    """[K] the log-odds of the task that each finding is expected to add; 0 if none is stated."""
    effects = _load()
    stated = dict(effects.get(task, {}))
    stated |= {assertion_name(task, status): e for status, e in effects[_OWN_DISEASE].items()}
    return np.array([stated.get(name, 0.0) for name in findings])
