"""Labels from diagnoses, by the codes that each task declares, and from stated outcomes."""

import re
from collections.abc import Iterable, Mapping
from functools import cache

from model.cohorts import Outcomes
from schemas.tasks import Task, load_tasks


@cache
def _diseases() -> tuple[Task, ...]:
    return tuple(task for task in load_tasks() if task.is_disease)


def diseases_of(codes: Iterable[str], descriptions: Iterable[str] = ()) -> dict[str, bool]:
    """The label of each disease, from the diagnoses of a stay. A subset implies its parent.

    `codes`: ICD-9-CM and ICD-10-CM, mixed, with or without dots. A code that starts with a digit or
    with V is read as ICD-9, any other as ICD-10. (No task uses ICD-9's E codes, the external
    causes; E871 and E872 are ICD-10.) `descriptions`: eICU diagnosis strings, for rows without a
    code.
    """
    icd9: set[str] = set()
    icd10: set[str] = set()
    for code in codes:
        plain = code.replace(".", "").strip().upper()
        if plain:
            (icd9 if plain[0].isdigit() or plain[0] == "V" else icd10).add(plain)
    texts = set(descriptions)
    labels = {task.name: _matches(task, icd9, icd10, texts) for task in _diseases()}
    for task in _diseases():
        if task.subset_of is not None and labels[task.name]:
            labels[task.subset_of] = True
    return labels


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


def outcomes_of(
    codes: Iterable[str] | None,
    stated: Mapping[str, bool | float | str | None],
    *,
    coding_complete: bool,
) -> Outcomes:
    """The labels of a stay. A task without a label is not in it.

    `codes`: as of `diseases_of`; None: the diagnoses are unknown. `coding_complete`: whether a
    disease without a code is absent, not unknown. `stated`: outcomes by name, which precede the
    codes, also as None. A subset that is present implies its parent, unless the parent is stated.
    """
    labels: dict[str, bool | float | str | None] = {}
    if codes is not None:
        coded = diseases_of(codes)
        labels |= {name: yes for name, yes in coded.items() if yes or coding_complete}
    labels |= stated
    for task in load_tasks():
        if task.subset_of and labels.get(task.name) and task.subset_of not in stated:
            labels[task.subset_of] = True
    return {name: value for name, value in labels.items() if value is not None}
