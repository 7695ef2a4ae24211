"""What the codes of a MEDS dataset mean, as data (TOML).

MEDS standardizes the codes of birth and death only. The defaults are the usual codes of admissions
and diagnoses, and LOINC (`LOINC//2524-7//mmol/L`). A file changes them for a dataset.
"""

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from model.cohorts import DataError
from model.errors import wrap_file_errors

MIMIC_IV = "mimic_iv"
_SHIPPED = {MIMIC_IV: "mimic_iv.toml"}


def _with_groups(*needed: str) -> AfterValidator:
    """Checks that a regular expression has one of the named groups."""

    def check(pattern: re.Pattern[str]) -> re.Pattern[str]:
        if not set(needed) & set(pattern.groupindex):
            raise ValueError(f"needs a group (?P<NAME>…) with the name {' or '.join(needed)}")
        return pattern

    return AfterValidator(check)


Observation = Annotated[re.Pattern[str], _with_groups("loinc", "item")]
Course = Annotated[re.Pattern[str], _with_groups("name", "item")]


class _Map(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VariableCode(_Map):
    """A code of a variable. `unit`: of its values, if the code does not state it."""

    variable: str
    unit: str | None = None


class TreatmentCodes(_Map):
    """Codes of a treatment. Without `end`, it is given at the time of `start`."""

    start: Course
    end: Course | None = None


class CodeMap(_Map):
    """Regular expressions that match whole codes, and their named groups.

    Groups: `unit_type`, `source` (of admission) and `disposition`, as hospitals spell them; `sex`;
    `code` of ICD; `loinc` or `item`, and `unit`, of observations; `name` or `item` of treatments;
    `kind` of notes. `items`: the database whose item ids `schemas/variables.toml` and
    `schemas/treatments.toml` declare. `variables`: by a whole code.
    """

    unit_admission: re.Pattern[str] = Field(
        re.compile(r"ICU_ADMISSION(?://(?P<unit_type>.+))?"), validate_default=True
    )
    unit_discharge: re.Pattern[str] = re.compile(r"ICU_DISCHARGE(?://.*)?")
    hospital_admission: re.Pattern[str] = re.compile(
        r"HOSPITAL_ADMISSION(?://[^/]*)?(?://(?P<source>.+))?"
    )
    hospital_discharge: re.Pattern[str] = re.compile(
        r"HOSPITAL_DISCHARGE(?://(?P<disposition>.+))?"
    )
    birth: re.Pattern[str] = re.compile(r"MEDS_BIRTH")
    death: re.Pattern[str] = re.compile(r"MEDS_DEATH(?://.*)?")
    sex: re.Pattern[str] = re.compile(r"(?:GENDER|SEX)//(?P<sex>.+)")
    icd9: re.Pattern[str] = re.compile(r"(?:DIAGNOSIS//ICD//9|ICD9CM)//(?P<code>.+)")
    icd10: re.Pattern[str] = re.compile(r"(?:DIAGNOSIS//ICD//10|ICD10CM)//(?P<code>.+)")
    observations: tuple[Observation, ...] = (
        re.compile(r"LOINC//?(?P<loinc>\d{1,7}-\d)(?://(?P<unit>.+))?"),
    )
    treatments: tuple[TreatmentCodes, ...] = ()
    notes: re.Pattern[str] = re.compile(r"NOTE(?://(?P<kind>.+))?")
    items: Literal["mimic_iv"] | None = None
    variables: dict[str, VariableCode] = {}

    @classmethod
    def load(cls, name: str | None) -> Self:
        """The map of a file, the shipped one of this name, or the default.

        Raises DataError that names the file and the entry.
        """
        if name is None:
            return cls()
        shipped = _SHIPPED.get(name)
        path = Path(name) if shipped is None else Path(str(files(__package__).joinpath(shipped)))
        with wrap_file_errors(path, DataError, (OSError, ValueError)):
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
