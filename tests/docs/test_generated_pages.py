"""The generated pages contain every task, variable, setting and endpoint."""

import sys

import pytest

from schemas.tasks import load_tasks
from schemas.variables import load_rejected_names, load_treatments, load_variables
from service.settings import Settings, environment_variable
from tests.docs.blocks import ROOT


@pytest.fixture(scope="module")
def pages():
    sys.path.insert(0, str(ROOT / "docs" / "site"))
    from pages import generated_pages

    yield generated_pages()
    sys.path.remove(str(ROOT / "docs" / "site"))


def test_the_settings_page_has_name_type_default_and_help_of_each_setting(pages):
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        (row,) = [
            line
            for line in pages["settings.md"].splitlines()
            if line.startswith(f"| `{environment_variable(name)}` |")
        ]
        _, _, kind, shown, meaning, _ = cells(row)
        assert (shown, meaning) == (default, field.description)
        assert kind


def cells(row: str) -> list[str]:
    """Return the cells of a table row; the first and the last are empty."""
    return [cell.strip() for cell in row.replace("\\|", "\0").split("|")]


def test_the_tasks_page_has_all_tasks(pages):
    assert len(load_tasks()) == 44
    for task in load_tasks():
        assert f"`{task.name}`" in pages["tasks.md"]
        assert task.means in pages["tasks.md"]


def test_the_variables_page_has_all_variables_and_treatments(pages):
    for entry in [*load_variables(), *load_treatments()]:
        assert f"`{entry.name}`" in pages["variables.md"]


def test_the_loinc_page_has_every_code_with_its_meaning_or_reason(pages):
    for variable in load_variables():
        for code in variable.loinc:
            assert f"| {code} | {variable.display} | `{variable.name}` |" in pages["loinc.md"]
    for name, reason in load_rejected_names().items():
        if name.startswith("loinc:"):
            assert f"| {name.removeprefix('loinc:')} | {reason} |" in pages["loinc.md"]


def test_the_http_page_has_all_endpoints(pages):
    for path in ("POST /predict", "POST /predict/batch", "GET /tim", "GET /usage"):
        assert f"### {path}" in pages["openapi.md"]


def test_the_python_pages_have_all_modules(pages):
    text = "\n".join(pages.values())
    for package in ("schemas", "model", "export", "service"):
        for path in (ROOT / package).rglob("*.py"):
            if path.stem != "__init__":
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                assert f"::: {module}\n" in text, module
