"""The prose check finds unclear constructions and accepts plain English."""

import tomllib
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

import pytest

from tests.docs.blocks import ROOT

LOADER = SourceFileLoader("prose", str(ROOT / "scripts" / "prose"))
PROSE = module_from_spec(spec_from_loader("prose", LOADER))
LOADER.exec_module(PROSE)
STYLE = tomllib.loads((ROOT / "docs" / "styles" / "prose.toml").read_text(encoding="utf-8"))


def lines(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return list(PROSE.violations(path, STYLE))


@pytest.mark.parametrize("rule", STYLE["rules"], ids=lambda rule: rule["name"])
def test_a_rule_finds_its_bad_example_and_accepts_its_good_one(rule, tmp_path):
    assert any(rule["name"] in line for line in lines(tmp_path, "bad.md", rule["bad"] + "\n"))
    assert not lines(tmp_path, "good.md", rule["good"] + "\n")


def test_docstrings_comments_and_texts_of_code_are_checked(tmp_path):
    code = '"""Whoever asks."""\n\n# Whoever asks.\nLOG = "whoever asks"\n'
    assert len(lines(tmp_path, "module.py", code)) == 3


def test_code_in_documents_is_not_checked(tmp_path):
    text = "Use `whoever`:\n\n```sh\nwhoever asks\n```\n"
    assert not lines(tmp_path, "page.md", text)


def test_a_long_sentence_is_found(tmp_path):
    words = " ".join(["word"] * (STYLE["most_words"] + 1))
    assert any("sentence" in line for line in lines(tmp_path, "page.md", f"{words}.\n"))


def test_listed_paths_exist():
    for name in [*STYLE["excluded"], *STYLE["code"]]:
        assert (ROOT / name).exists(), name


def test_all_listed_files_are_clean():
    violations = [
        line for path in PROSE.listed_files(STYLE) for line in PROSE.violations(path, STYLE)
    ]
    assert not violations, "\n".join(violations)
