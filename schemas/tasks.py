"""The medical tasks: what is predicted, how a label is defined, what the number means.

`tasks.csv` declares them once. A bundle carries its own list, so that a hospital can train and
serve other tasks: whoever serves reads the bundle's, never this file's.
"""

import csv
from collections.abc import Collection, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["binary", "regression", "multiclass", "clustering"]

SNOMED_CT = "http://snomed.info/sct"
# A task and a class of another that say the same: the probabilities of the two agree.
MORTALITY, DISPOSITION, DIED = "in_hospital_mortality", "discharge_disposition", "died"


class Coding(BaseModel):
    """A FHIR R4 `Coding`: one concept of a code system."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    code: str
    display: str


class Task(BaseModel):
    """One of the things that M3H predicts.

    The ICD prefixes (without dots) and the pattern define the label of a disease; `means` says in
    plain words what the served number is.
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
        return bool(self.icd10_prefixes)


@cache
def load_tasks() -> tuple[Task, ...]:
    """The project's own 44 tasks, in the order of `tasks.csv`."""
    text = files("schemas").joinpath("tasks.csv").read_text(encoding="utf-8")
    return tuple(_task(row) for row in csv.DictReader(text.splitlines()))


def _task(row: dict[str, str]) -> Task:
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


def only(tasks: Sequence[Task], names: Collection[str]) -> tuple[Task, ...]:
    """Those with these names, none a subset of one that is not there."""
    return tuple(
        task if task.subset_of in names else task.model_copy(update={"subset_of": None})
        for task in tasks
        if task.name in names
    )
