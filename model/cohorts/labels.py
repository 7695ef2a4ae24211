"""Diagnoses to labels, by the codes that each task declares."""

import re
from collections.abc import Iterable
from functools import cache

from schemas.tasks import Task, load_tasks


@cache
def _diseases() -> tuple[Task, ...]:
    return tuple(task for task in load_tasks() if task.is_disease)


def diseases_of(codes: Iterable[str], descriptions: Iterable[str] = ()) -> dict[str, bool]:
    """Whether each disease is among a stay's diagnoses.

    `codes`: ICD-9-CM and ICD-10-CM, with or without dots, mixed: a code that starts with a digit or
    with V is ICD-9, any other ICD-10 (of ICD-9's E codes, external causes, no task uses any; E871
    and E872 are ICD-10). `descriptions`: eICU diagnosis strings, for rows without a code.
    A child implies its parent.
    """
    icd9: set[str] = set()
    icd10: set[str] = set()
    for code in codes:
        plain = code.replace(".", "").strip().upper()
        if plain:
            (icd9 if plain[0].isdigit() or plain[0] == "V" else icd10).add(plain)
    texts = set(descriptions)
    found = {task.name: _matches(task, icd9, icd10, texts) for task in _diseases()}
    for task in _diseases():
        if task.subset_of is not None and found[task.name]:
            found[task.subset_of] = True
    return found


def _matches(task: Task, icd9: set[str], icd10: set[str], texts: set[str]) -> bool:
    if any(code.startswith(task.icd9_prefixes) for code in icd9):
        return True
    if any(
        code.startswith(task.icd10_prefixes) and not code.startswith(task.icd10_excluded)
        for code in icd10
    ):
        return True
    pattern = _pattern(task.eicu_pattern)
    return pattern is not None and any(pattern.search(text) for text in texts)


@cache
def _pattern(source: str | None) -> re.Pattern[str] | None:
    return None if source is None else re.compile(source, re.IGNORECASE)
