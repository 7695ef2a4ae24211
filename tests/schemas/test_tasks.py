"""The declarations of the 44 tasks."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from schemas.tasks import load_tasks

TASKS = load_tasks()


def test_there_are_40_diseases_and_4_other_tasks():
    assert Counter(task.kind for task in TASKS) == {
        "binary": 41,
        "regression": 1,
        "multiclass": 1,
        "clustering": 1,
    }
    diseases = [task for task in TASKS if task.is_disease]
    assert len(diseases) == 40
    others = {"Operations", "Phenotyping"}
    assert {t.department for t in TASKS if not t.is_disease} == others


def test_every_task_describes_its_number():
    for task in TASKS:
        assert task.means.endswith(".")
        if task.is_disease:
            assert "coded at any time" in task.means


def test_subset_of_names_a_task():
    names = {task.name for task in TASKS}
    assert {t.name: t.subset_of for t in TASKS if t.subset_of} == {
        "septic_shock": "sepsis",
        "end_stage_renal_disease": "chronic_kidney_disease",
    }
    assert {t.subset_of for t in TASKS if t.subset_of} <= names


def test_the_task_definitions_match_the_given_file():
    given = Path(__file__).parents[3] / "shared" / "tasks.csv"
    if not given.is_file():
        pytest.skip("shared/tasks.csv is not beside this checkout")
    ours = list(csv.DictReader((Path("schemas") / "tasks.csv").open(encoding="utf-8")))
    for mine, theirs in zip(ours, csv.DictReader(given.open(encoding="utf-8")), strict=True):
        assert {key: mine[key] for key in theirs} == theirs
