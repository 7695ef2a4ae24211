"""The medical tasks: name, kind, definition of the label, meaning of the number.

`tasks.csv` declares them. Every bundle carries its own task list, and the service reads only that
list, so that a hospital can train and serve other tasks.
"""

import csv
from collections.abc import Collection, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["binary", "regression", "multiclass", "clustering"]

SNOMED_CT = "http://snomed.info/sct"
# The mortality task and the class "died" of the disposition task have the same probability.
MORTALITY, DISPOSITION, DIED = "in_hospital_mortality", "discharge_disposition", "died"


class Coding(BaseModel):
    """A FHIR R4 `Coding`: one concept of a code system."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    code: str
    display: str


class Task(BaseModel):
    """A prediction task.

    The ICD prefixes (without dots) and the eICU pattern define the label of a disease. `means`
    describes the served number in plain words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    display: str
    department: str
    kind: Kind
    means: str
    subset_of: str | None = None
    unit: str | None = None
    classes: tuple[str, ...] = ()
    coding: tuple[Coding, ...] = ()
    icd9_prefixes: tuple[str, ...] = ()
    icd10_prefixes: tuple[str, ...] = ()
    icd10_excluded: tuple[str, ...] = ()
    eicu_pattern: str | None = None

    @property
    def is_disease(self) -> bool:
        """Whether ICD codes define the label."""
        return bool(self.icd10_prefixes)


@cache
def load_tasks() -> tuple[Task, ...]:
    """Loads the 44 tasks of this project, in the order of `tasks.csv`."""
    text = files("schemas").joinpath("tasks.csv").read_text(encoding="utf-8")
    return tuple(_parse_task(row) for row in csv.DictReader(text.splitlines()))


def _parse_task(row: dict[str, str]) -> Task:
    coding: tuple[Coding, ...] = ()
    if row["snomed_code"]:
        snomed = Coding(system=SNOMED_CT, code=row["snomed_code"], display=row["snomed_display"])
        coding = (snomed,)
    return Task.model_validate(
        {
            "name": row["task"],
            "display": row["display"],
            "department": row["department"],
            "kind": row["kind"],
            "means": row["means"],
            "subset_of": row["subset_of"] or None,
            "unit": "d" if row["kind"] == "regression" else None,
            "classes": row["classes"].split(),
            "coding": coding,
            "icd9_prefixes": row["icd9_prefixes"].split(),
            "icd10_prefixes": row["icd10_prefixes"].split(),
            "icd10_excluded": row["icd10_excluded"].split(),
            "eicu_pattern": row["eicu_diagnosisstring_regex"] or None,
        }
    )


def select_tasks(tasks: Sequence[Task], names: Collection[str]) -> tuple[Task, ...]:
    """Selects tasks by name.

    A task's `subset_of` is removed if the superset is not selected.
    """
    return tuple(
        task if task.subset_of in names else task.model_copy(update={"subset_of": None})
        for task in tasks
        if task.name in names
    )
