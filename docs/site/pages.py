"""Pages of the documentation site that are generated from data and code."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from openapi_pages import http_api

from schemas.tasks import Task, load_tasks
from schemas.terminology.height import HEIGHT_CODES
from schemas.variables import load_rejected_names, load_treatments, load_variables
from service.settings import Settings, environment_variable

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "model", "export", "service")
_TITLES = {
    "schemas": "The contract between training and serving: tasks, variables, payload, features, "
    "response and manifest.",
    "model": "Cohorts, network, training, evaluation and TIM.",
    "export": "Export of a checkpoint to a bundle.",
    "service": "The HTTP service. Run it with `m3h-serve`.",
}
_TASKS = """\
The shipped model predicts {tasks} tasks: {diseases} diseases and {others} others. A label of a
disease means that one of its ICD codes is charted at any time in the stay. A bundle may hold other
tasks; `GET /tasks` lists those of the bundle that is served."""
_VARIABLES = """\
The shipped model reads {variables} variables and {treatments} treatments. A request names a
variable by its name, an alias or a LOINC code (`loinc:8867-4`). Values are converted to the
canonical UCUM unit. A value outside the plausible range counts as missing. `GET /variables` returns
the same list as JSON, with all accepted units."""
_LOINC = """\
{codes} LOINC codes are read, in JSON (`loinc:8867-4`), FHIR, HL7 v2, OMOP and MEDS. A unit is
needed beside the code, unless the plausible range leaves one. "In moles": the code is read only
if the unit is an amount of substance. A code that is in neither table is listed in the receipt as
unknown, with a near match."""
_SETTINGS = """\
Each setting is an environment variable and an option of `m3h-serve`: `M3H_QUEUE_MS` is
`--queue-ms`. An option takes precedence over the environment variable. The chart sets them under
`settings` (`settings.queue_ms`). An unknown `M3H_*` variable is reported in the log."""


def generated_pages() -> dict[str, str]:
    """Return the Markdown text of each generated page, by its path in the site."""
    return {
        "index.md": project_file("README.md"),
        "contributing.md": project_file("CONTRIBUTING.md"),
        "security.md": project_file("SECURITY.md"),
        "changelog.md": project_file("CHANGELOG.md"),
        "tasks.md": tasks(),
        "variables.md": variables(),
        "loinc.md": loinc_codes(),
        "settings.md": settings(),
        "openapi.md": http_api(),
        "python.md": python_index(),
        **python_api(),
    }


def project_file(name: str) -> str:
    """Return a Markdown file of the project's root with its links rewritten for the site.

    Links into `docs/` become links between pages. Links to other files of the repository become
    plain text, because the site does not contain those files.
    """
    text = (ROOT / name).read_text(encoding="utf-8")
    for page in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG"):
        target = "index" if page == "README" else page.lower()
        text = text.replace(f"]({page}.md", f"]({target}.md")
    text = text.replace("](docs/", "](")
    return re.sub(
        r"(?<!!)\[([^\]]+)\]\((?!https?:)(?![\w/-]*\.(?:md|png|svg)[)#])[^)#]+\)", r"\1", text
    )


def tasks() -> str:
    """Return the page of all tasks of `schemas/tasks.csv`, one table for each department."""
    declared = load_tasks()
    diseases = sum(task.is_disease for task in declared)
    page = [
        "# Tasks",
        _TASKS.format(tasks=len(declared), diseases=diseases, others=len(declared) - diseases),
        "This page is generated from `schemas/tasks.csv`.",
    ]
    for department in dict.fromkeys(task.department for task in declared):
        page.append(f"## {department}")
        page.append(
            table(
                ("task", "kind", "meaning of the number", "ICD-10 prefixes"),
                [_task_row(task) for task in declared if task.department == department],
            )
        )
    return "\n\n".join(page) + "\n"


def _task_row(task: Task) -> tuple[str, ...]:
    codes = " ".join(task.icd10_prefixes)
    return (
        f"**{task.display}** `{task.name}`",
        task.kind,
        task.means,
        f"`{codes}`" if codes else "",
    )


def variables() -> str:
    """Return the page of all variables and treatments that the shipped model reads."""
    measured, treatments = load_variables(), load_treatments()
    return "\n\n".join(
        [
            "# Variables",
            _VARIABLES.format(variables=len(measured), treatments=len(treatments)),
            "This page is generated from `schemas/variables.toml` and `schemas/treatments.toml`.",
            "## Measured variables",
            table(
                ("variable", "name", "LOINC", "unit", "plausible range"),
                [
                    (
                        variable.display,
                        f"`{variable.name}`",
                        ", ".join(variable.loinc[:1]),
                        f"`{variable.unit}`",
                        f"{variable.plausible[0]:g} to {variable.plausible[1]:g}",
                    )
                    for variable in measured
                ],
            ),
            "## Treatments",
            "A treatment without a unit counts as given or not given; its rate is not read.",
            table(
                ("treatment", "name", "unit of the rate"),
                [(t.display, f"`{t.name}`", f"`{t.unit}`" if t.unit else "") for t in treatments],
            ),
            "",
        ]
    )


def loinc_codes() -> str:
    """Return the page of the LOINC codes that are read, and of those that are refused."""
    measured = load_variables()
    read = [
        (
            code,
            variable.display,
            f"`{variable.name}`",
            f"`{variable.unit}`",
            "in moles" if code in variable.moles_only else "",
        )
        for variable in measured
        for code in variable.loinc
    ]
    read += [(code, "Body height", "`height_cm`", "`cm`", "") for code in HEIGHT_CODES]
    refused = [
        (name.removeprefix("loinc:"), reason)
        for name, reason in load_rejected_names().items()
        if name.startswith("loinc:")
    ]
    return "\n\n".join(
        [
            "# LOINC codes",
            _LOINC.format(codes=len(read)),
            "This page is generated from `schemas/variables.toml`.",
            "## Read",
            table(("LOINC", "variable", "name", "canonical unit", "condition"), sorted(read)),
            "## Refused, with the reason",
            table(("LOINC", "reason"), sorted(refused)),
            "",
        ]
    )


def settings() -> str:
    """Return the page of all settings of the service."""
    schema = Settings.model_json_schema()["properties"]
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        rows.append(
            (
                f"`{environment_variable(name)}`",
                _type_of(schema[name]),
                default,
                field.description or "",
            )
        )
    return "\n\n".join(
        [
            "# Settings",
            _SETTINGS,
            "This page is generated from `service/settings.py`.",
            table(("variable", "type", "default", "meaning"), rows),
            "",
        ]
    )


def _type_of(schema: dict[str, Any]) -> str:
    """Return a short name of a JSON schema's type."""
    if "anyOf" in schema:
        return " or ".join(_type_of(s) for s in schema["anyOf"] if s.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("format") in ("path", "password"):
        return {"path": "path", "password": "secret"}[schema["format"]]
    if schema.get("type") == "array":
        return "list, comma-separated"
    return str(schema.get("type", "string"))


def python_index() -> str:
    """Return the page that lists the packages of the Python API."""
    page = [
        "# Python API",
        "Import rules are described in [Architecture](architecture.md#packages).",
    ]
    for root in PACKAGES:
        page += [f"## {root}", _TITLES[root]]
        page.append(
            "\n".join(f"- [`{p}`](python/{p}.md)" for p in _packages() if p.split(".")[0] == root)
        )
    return "\n\n".join(page) + "\n"


def python_api() -> dict[str, str]:
    """Return one page for each Python package, with every public module of it."""
    pages = {}
    for package in _packages():
        folder = ROOT / package.replace(".", "/")
        modules = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
        body = [f"# {package}"] + [f"::: {package}.{module}" for module in modules]
        pages[f"python/{package}.md"] = "\n\n".join(body) + "\n"
    return pages


def _packages() -> list[str]:
    packages = []
    for root in PACKAGES:
        for init in sorted((ROOT / root).rglob("__init__.py")):
            folder = init.parent
            if any(path.stem != "__init__" for path in folder.glob("*.py")):
                packages.append(".".join(folder.relative_to(ROOT).parts))
    return packages


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    return "\n".join(_lines(header, rows))


def _lines(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
