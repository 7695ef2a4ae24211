"""Expectations: the change of a patient, and the change of the log-odds that a clinician expects.

The files are validated strictly: an unknown task, variable, treatment, unit or category is an
error, because an expectation that silently changes nothing would always hold.
"""

import tomllib
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from model.errors import UserError, wrap_file_errors
from schemas.features import FeatureSpec
from schemas.tasks import load_tasks
from schemas.variables import load_treatments, load_variables

# Changes of log-odds: a task that must not fall may fall by this much, and vice versa.
TOLERANCE = 0.05
# A task that must stay still may move by this much.
STILL = 0.15

Text = Annotated[str, Field(min_length=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class ExpectationError(UserError):
    """A file of expectations is not valid. The text names the file and the fault."""


def _one_of(names: Collection[str], kind: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"{name} is not a known {kind}")
        return name

    return AfterValidator(check)


_VARIABLES = {variable.name: variable for variable in load_variables()}
_TREATMENTS = {treatment.name for treatment in load_treatments()}
# Only these tasks have a probability of their own.
_BINARY_TASKS = {task.name for task in load_tasks() if task.kind == "binary"}

TaskName = Annotated[str, _one_of(_BINARY_TASKS, "binary task")]
VariableName = Annotated[str, _one_of(_VARIABLES, "variable")]
TreatmentName = Annotated[str, _one_of(_TREATMENTS, "treatment")]
TabularField = Literal["age", "sex", "height_cm", "weight_kg", "admission_source", "unit_type"]
Tasks = Annotated[tuple[TaskName, ...], Field(strict=False)]  # TOML has arrays, not tuples


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SeriesChange(_Strict):
    """All values of a variable in the last 24 h: `before` the change, and `after` it."""

    unit: Text | None = None
    before: Number = Field(alias="from")
    after: Number = Field(alias="to")


class Expectation(_Strict):
    """One change of a patient, and the expected change of the log-odds.

    The change has at least one of these parts:

    - `series`: by variable, the level of the last 24 h before and after.
    - `tabular`: by field, the value before and after.
    - `treatment`: after the change it has been running for 6 h.
    - `note`: before, a neutral note; after, the same note followed by this text. With
      `against_none`, the patient has no note before.

    The expectation has at least one of these:

    - `up`: by task, the least rise. `not_down`, `not_up`: tasks that must not fall or rise by more
      than TOLERANCE. `still`: no task of the model may move by more than STILL.

    `reason` states why a clinician expects this; `source` a publication, where one is needed.
    """

    id: Text
    reason: Text
    source: Text | None = None
    series: dict[VariableName, SeriesChange] = {}
    tabular: dict[TabularField, Annotated[tuple[Any, Any], Field(strict=False)]] = {}
    treatment: TreatmentName | None = None
    note: str | None = None
    against_none: bool = False
    up: dict[TaskName, Annotated[Number, Field(gt=0)]] = {}
    not_down: Tasks = ()
    not_up: Tasks = ()
    still: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.series or self.tabular or self.treatment or self.note is not None):
            raise ValueError("nothing changes: give series, tabular, treatment or note")
        if not (self.up or self.not_down or self.not_up or self.still):
            raise ValueError("nothing is expected: give up, not_down, not_up or still")
        if self.against_none and self.note is None:
            raise ValueError("against_none is for a note")
        if self.note is not None and not self.note.strip() and not self.against_none:
            raise ValueError("the note must not be empty")
        named = (*self.up, *self.not_down, *self.not_up)
        if self.still and named:
            raise ValueError("still is for all tasks; leave out up, not_down and not_up")
        if repeated := sorted({task for task in named if named.count(task) > 1}):
            raise ValueError(f"expected twice: {', '.join(repeated)}")
        for name, change in self.series.items():
            _check_series(name, change)
        for field, values in self.tabular.items():
            _check_tabular(field, values)
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """The named tasks, in the order in which they are judged."""
        return (*self.up, *self.not_down, *self.not_up)

    def restrict(self, tasks: Collection[str]) -> "Expectation | None":
        """The expectation without other tasks than these; None if nothing remains."""
        if self.still or set(self.tasks) <= set(tasks):
            return self
        kept = self.model_copy(
            update={
                "up": {task: least for task, least in self.up.items() if task in tasks},
                "not_down": tuple(task for task in self.not_down if task in tasks),
                "not_up": tuple(task for task in self.not_up if task in tasks),
            }
        )
        return kept if kept.tasks else None


def _check_series(name: str, change: SeriesChange) -> None:
    variable = _VARIABLES[name]
    conversion = variable.conversion(change.unit)
    if conversion is None:
        accepted = ", ".join(variable.accepted_units)
        raise ValueError(f"{name}: the unit must be one of {accepted}")
    factor, offset = conversion
    low, high = variable.plausible
    for value in (change.before, change.after):
        if not low <= factor * value + offset <= high:
            raise ValueError(f"{name}: {value:g} is not plausible and would be ignored")
    if change.before == change.after:
        raise ValueError(f"{name}: from and to are equal")


def _check_tabular(field: str, values: tuple[Any, Any]) -> None:
    categories = _categories().get(field)
    for value in values:
        if categories is None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{field}: must be a number")
        elif value not in categories:
            raise ValueError(f"{field}: must be one of {', '.join(categories)}")


@cache
def _categories() -> dict[str, tuple[str, ...]]:
    default: dict[str, tuple[str, ...]] = FeatureSpec.model_fields["categories"].default
    return default


class _ExpectationFile(_Strict):
    expectation: Annotated[tuple[Expectation, ...], Field(min_length=1, strict=False)]


def read_expectations(*paths: Path) -> tuple[Expectation, ...]:
    """The expectations of TOML files, in order. Raises ExpectationError if one is not valid."""
    expectations: dict[str, Expectation] = {}
    for path in paths:
        with wrap_file_errors(path, ExpectationError, (OSError, ValueError)):
            document = tomllib.loads(path.read_text(encoding="utf-8"))
            for expectation in _ExpectationFile.model_validate(document).expectation:
                if expectation.id in expectations:
                    raise ValueError(f"another expectation has the id {expectation.id!r}")
                expectations[expectation.id] = expectation
    return tuple(expectations.values())


@cache
def load_expectations() -> tuple[Expectation, ...]:
    """The expectations of this release, file by file in alphabetical order."""
    folder = files("model").joinpath("evaluation", "behaviour", "expectations")
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".toml"))
    return read_expectations(*(Path(str(folder.joinpath(name))) for name in names))
