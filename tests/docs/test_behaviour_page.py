"""The figures and the example of docs/behaviour.md."""

import re

import pytest

from export.behaviour import GATE, TOLERATED_LOSS, WORST, judge_bundle
from export.finalize import MANIFEST_ROWS
from model.evaluation.behaviour.expectations import (
    STILL,
    TOLERANCE,
    load_expectations,
    read_expectations,
)
from model.evaluation.behaviour.judgement import judge
from model.evaluation.behaviour.patients import made_patients
from model.evaluation.behaviour.summary import summarize
from schemas.tasks import load_tasks
from tests.docs.blocks import ROOT, blocks_of

PAGE = (ROOT / "docs" / "behaviour.md").read_text(encoding="utf-8")


def constant_model():
    names = [task.name for task in load_tasks() if task.kind == "binary"]
    answers = dict.fromkeys(names, 0.1)
    patients = made_patients()
    return summarize(judge(lambda asked: [answers] * len(asked), load_expectations(), patients))


def shipped_bundle():
    folder = ROOT / "bundles" / "m3h-open"
    return judge_bundle(folder, load_expectations(), made_patients())


def test_the_example_is_an_expectation_of_this_release(tmp_path):
    (example,) = [
        block.body for block in blocks_of("docs/behaviour.md") if block.language == "toml"
    ]
    path = tmp_path / "example.toml"
    path.write_text(example)
    (shown,) = read_expectations(path)
    assert shown.model_copy(update={"source": None}) in [
        expectation.model_copy(update={"source": None}) for expectation in load_expectations()
    ]


@pytest.mark.parametrize(
    ("name", "measure"),
    [("`bundles/m3h-open`", shipped_bundle), ("a model that ignores its inputs", constant_model)],
)
def test_the_figures_are_those_of_this_release(name, measure):
    behaviour = measure()
    row = (
        f"| {name} | {behaviour.patients} made | {behaviour.expectations} | "
        f"{behaviour.concordance:.3f} | {behaviour.reliable:.3f} |"
    )
    assert row.replace("| 0.", "| .") in PAGE


def test_the_page_states_the_tolerances_and_the_gate():
    text = re.sub(r"\s+", " ", PAGE)
    assert f"by more than {TOLERANCE:.2f}".replace(" 0.", " .") in text
    assert f"by at most {STILL:.2f}".replace(" 0.", " .") in text
    assert f"fewer than {GATE:.0%}".replace("%", " %") in text
    assert (WORST, MANIFEST_ROWS, TOLERATED_LOSS) == (10, 25, 0.01)
    assert "the ten worst rows" in text
    assert "the 25 worst rows" in text
    assert "more than one percentage point" in text
