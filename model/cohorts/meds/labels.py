"""Labels of the MEDS label schema: an outcome of a patient at a prediction time."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import polars as pl

from model.cohorts import DataError, DataMissing
from model.cohorts.stay_events.columns import FLAG, ID, NUMBER, TEXT, UTC
from model.cohorts.typed_tables import scan_typed
from schemas.record import outcome_error
from schemas.tasks import Task, load_tasks

# Outcomes by patient and prediction time, then by task.
Labels = Mapping[tuple[int, datetime], dict[str, bool | float | str]]
_KEY = {"subject_id": ID, "prediction_time": UTC}
_VALUES = {
    "boolean_value": FLAG,
    "integer_value": ID,
    "float_value": NUMBER,
    "categorical_value": TEXT,
}
_COLUMNS_OF = {
    "binary": ("boolean_value",),
    "regression": ("float_value", "integer_value"),
    "multiclass": ("categorical_value",),
}


def read_labels(files: Mapping[str, list[Path]]) -> Labels:
    """The labels of the files of each task. A row whose values are null is unknown.

    Raises DataError: a name is not that of a task, a column is missing, or a row breaks the rule of
    the task; it names the file and the row.
    """
    tasks = {task.name: task for task in load_tasks() if task.kind in _COLUMNS_OF}
    labels: dict[tuple[int, datetime], dict[str, bool | float | str]] = {}
    for name, paths in files.items():
        if name not in tasks:
            raise DataError(f"{paths[0]}: {name} is not the name of a task with labels")
        for path in paths:
            for key, value in _rows(path, tasks[name]):
                if value is not None:
                    labels.setdefault(key, {})[name] = value
    if files and not labels:
        raise DataMissing("MEDS: the files of labels hold no label")
    return labels


def _rows(path: Path, task: Task) -> list[tuple[tuple[int, datetime], bool | float | str | None]]:
    columns = _COLUMNS_OF[task.kind]
    table = scan_typed(path, _KEY, {name: _VALUES[name] for name in columns})
    value = pl.coalesce(*columns)
    rows = []
    frame = table.select(*_KEY, value=value).collect(engine="streaming")
    for number, (subject, time, label) in enumerate(frame.iter_rows(), 1):
        if subject is None or time is None:
            raise DataError(f"{path}, row {number}: subject_id and prediction_time are required")
        if label is not None and (error := outcome_error(task, label)):
            raise DataError(f"{path}, row {number}: {columns[0]} {error}")
        rows.append(((subject, time), label))
    return rows
