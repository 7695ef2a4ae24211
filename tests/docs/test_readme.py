"""The README.md is short, and its commands and answers are real."""

import json
import re

import pytest

from tests.docs.blocks import ROOT, blocks_of
from tests.docs.test_tutorials import run

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks_of("README.md")


def block(language: str) -> str:
    """Return the only block of the language."""
    (block,) = [block for block in BLOCKS if block.language == language]
    return block


def test_the_readme_is_at_most_150_lines_and_states_its_limits_early():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert "Not a medical device" in "\n".join(lines[:30])
    assert "**Status.**" in "\n".join(lines[:30])


def test_the_two_commands_are_targets_of_the_makefile():
    commands = [line.split("#")[0].strip() for line in BLOCKS[0].body.splitlines()]
    assert commands[0].startswith("git clone")
    assert commands[1:] == ["make run", "make test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{c.split()[1]}:", makefile, re.MULTILINE) for c in commands[1:])


def test_the_shown_prediction_is_in_the_answer(urls):
    (command,) = [b for b in BLOCKS if "examples/septic_shock.json" in b.body]
    answer = json.loads(run(command, urls, ROOT))
    assert len(answer["predictions"]) == 44
    shown = json.loads(block("json").body)
    real = next(p for p in answer["predictions"] if p["task"] == shown["task"])
    assert shown.keys() == real.keys()
    assert shown["means"] == real["means"]
    assert shown["probability"] == pytest.approx(real["probability"], abs=0.006)
    assert shown["prevalence"] == pytest.approx(real["prevalence"], abs=0.006)
    assert shown["interval"] == pytest.approx(real["interval"], abs=0.006)


def test_the_python_example_prints_the_shown_answer(urls, tmp_path):
    assert run(block("python"), urls, tmp_path) == block("text").body
