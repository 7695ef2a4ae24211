"""A training record: the payload of a patient and the outcomes, one line of a JSON Lines file.

`m3h-model cohort records` makes a cohort from such a file. Errors name JSON Pointers and rules;
they never quote a value.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from schemas.parsing.json_body import read_json, refuse_repeated_names
from schemas.parsing.validation import count_names, iter_errors
from schemas.payload import Number, Payload, Text, check_consistency
from schemas.request_errors import MAX_LISTED, FieldError, InvalidPayload, safe_name
from schemas.tasks import DIED, DISPOSITION, MORTALITY, Task, load_tasks

Outcome = bool | float | str | None
_Outcomes = dict[str, Outcome]

# ICD-9-CM and ICD-10-CM, with or without the dot. A concept of SNOMED CT or a number of another
# system must not be read as an ICD code that happens to begin with the same digits.
_ICD = re.compile(
    r"\d{3}(?:\.?\d{1,2})?|V\d\d(?:\.?\d{1,2})?|E\d{3}(?:\.?\d)?|[A-Z]\d[0-9A-Z](?:\.?[0-9A-Z]{1,4})?",
    re.ASCII | re.IGNORECASE,
)
MAX_CODES = 10_000


class TrainingRecord(BaseModel):
    """A patient at one moment, with the outcomes of the stay.

    A label has three states. A disease is *present* or *absent*, or it is *unknown*: the record
    then teaches nothing about it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    patient_id: Text | None = Field(
        default=None,
        description="The patient. All records of a patient stay on one side of any split. "
        "`patient_id` of the payload may state it instead.",
    )
    stay_id: Text | None = Field(
        default=None, description="The hospital stay. By default each patient has one."
    )
    group: Text | None = Field(
        default=None,
        description="The hospital, or another group that stays on one side of a split. With fewer "
        "than ten groups, patients are split instead.",
    )
    landmark_hours: Annotated[Number, Field(ge=0)] | None = Field(
        default=None,
        description="Hours from admission to `as_of`, by which evaluations select records. By "
        "default `as_of` minus `tabular.admitted_at`.",
    )
    payload: Payload = Field(description="The body of `POST /predict`, as of the prediction.")
    outcomes: _Outcomes = Field(
        default={},
        description="Outcomes by task name. true: present; false: absent; null, or no member: "
        "unknown. `length_of_stay`: days from `as_of` to discharge. `discharge_disposition`: the "
        "name of a class.",
    )
    diagnosis_codes: Annotated[list[str], Field(max_length=MAX_CODES)] | None = Field(
        default=None,
        description="ICD-9-CM and ICD-10-CM codes of the stay. They are labels, never an input. A "
        "disease is present if one of its prefixes matches a code. null: unknown.",
    )
    coding_complete: StrictBool = Field(
        default=True,
        description="Whether diagnosis_codes lists all coded diagnoses, so that a disease without "
        "a code is absent. false: such a disease is unknown.",
    )

    @property
    def patient(self) -> str:
        """The patient's identifier."""
        return self.patient_id or self.payload.patient_id or ""

    @property
    def hours(self) -> float | None:
        """The landmark: as stated, or from the times of the payload; None without either."""
        if self.landmark_hours is not None:
            return self.landmark_hours
        tabular = self.payload.tabular
        if tabular is None or tabular.admitted_at is None:
            return None
        return (self.payload.as_of - tabular.admitted_at).total_seconds() / 3600


def parse_record(body: bytes | str) -> TrainingRecord:
    """Parses the record in a JSON document.

    Raises InvalidPayload: with the errors of the document, or only the rule `json` if the text is
    not JSON.
    """
    document, names = read_json(body)
    record = _validate(document, names, body)
    check_consistency(record.payload, "/payload")
    if errors := [*islice(_label_errors(record), MAX_LISTED + 1)]:
        raise InvalidPayload(errors)
    return record


def _validate(document: Any, names: int, body: bytes | str) -> TrainingRecord:
    """Validates a document. `names`: number of member names in `body`, its JSON text."""
    known = count_names(TrainingRecord, document)
    if known is not None:
        try:
            record = TrainingRecord.model_validate(document)
        except ValidationError:
            pass
        else:
            if names != known + len(record.outcomes):
                refuse_repeated_names(body)
            if not any(_outcome_errors(document.get("outcomes", {}))):
                return record
    raise InvalidPayload([*islice(_document_errors(document), MAX_LISTED + 1)])


def _document_errors(document: Any) -> Iterator[FieldError]:
    """The errors of the form. Outcomes are checked apart: their names are those of tasks."""
    if isinstance(document, Mapping) and "outcomes" in document:
        yield from _outcome_errors(document["outcomes"])
        document = {name: value for name, value in document.items() if name != "outcomes"}
    yield from iter_errors(TrainingRecord, document)


def _outcome_errors(outcomes: Any) -> Iterator[FieldError]:
    if not isinstance(outcomes, Mapping):
        yield FieldError(pointer="/outcomes", rule="object", detail="must be an object")
        return
    tasks = {task.name: task for task in load_tasks()}
    for name, value in outcomes.items():
        pointer = f"/outcomes/{safe_name(str(name))}"
        task = tasks.get(name)
        if task is None or task.kind == "clustering":
            detail = "is not the name of a task with labels; see GET /tasks"
            yield FieldError(pointer=pointer, rule="unknown_task", detail=detail)
        elif value is not None and (detail := outcome_error(task, value)):
            yield FieldError(pointer=pointer, rule="outcome_type", detail=detail)


def outcome_error(task: Task, value: Any) -> str:
    """The rule that an outcome of a task breaks; empty if it breaks none."""
    if task.kind == "binary":
        return "" if isinstance(value, bool) else "must be true, false or null"
    if task.kind == "multiclass":
        known = isinstance(value, str) and value in task.classes
        return "" if known else f"must be null or one of {', '.join(task.classes)}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "" if number and math.isfinite(value) and value >= 0 else "must be null or days from 0"


def _label_errors(record: TrainingRecord) -> Iterator[FieldError]:
    """The rules that compare fields or need their values."""
    stated = record.payload.patient_id
    if not record.patient.strip():
        detail = "is required here or in the payload"
        yield FieldError(pointer="/patient_id", rule="required", detail=detail)
    elif record.patient_id is not None and stated not in (None, record.patient_id):
        detail = "must be the same as patient_id of the payload"
        yield FieldError(pointer="/patient_id", rule="same_patient", detail=detail)
    for i, code in enumerate(record.diagnosis_codes or ()):
        if not _ICD.fullmatch(code.strip()):
            detail = "must be a code of ICD-9-CM or ICD-10-CM"
            yield FieldError(pointer=f"/diagnosis_codes/{i}", rule="icd_code", detail=detail)
    yield from _contradictions(record.outcomes, load_tasks())


def _contradictions(outcomes: Mapping[str, Outcome], tasks: Sequence[Task]) -> Iterator[FieldError]:
    died, disposition = outcomes.get(MORTALITY), outcomes.get(DISPOSITION)
    if died is not None and disposition is not None and died != (disposition == DIED):
        detail = f"contradicts {MORTALITY}"
        yield FieldError(pointer=f"/outcomes/{DISPOSITION}", rule="consistent", detail=detail)
    for task in tasks:
        parent = task.subset_of
        if parent is not None and outcomes.get(task.name) and outcomes.get(parent) is False:
            detail = f"contradicts {task.name}, which is a part of it"
            yield FieldError(pointer=f"/outcomes/{parent}", rule="consistent", detail=detail)
