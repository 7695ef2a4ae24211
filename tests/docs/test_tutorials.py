"""Every shell and Python block of the documentation runs, or states why it is not run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, blocks_of

PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md"] + [
    str(path.relative_to(ROOT))
    for folder in ("docs", "docs/integration")
    for path in sorted((ROOT / folder).glob("*.md"))
]
# Pages whose commands run from top to bottom in one folder, against one running service.
TUTORIALS = [
    "docs/getting-started.md",
    "docs/predict.md",
    "docs/explanations.md",
    "docs/tim.md",
    "docs/integration/fhir.md",
    "docs/integration/dicom.md",
    "docs/integration/hl7v2.md",
    "docs/integration/cds-hooks.md",
]
# Other tests run the commands of these pages.
OTHERS = {
    "README.md": "tests/docs/test_readme.py",
    "CONTRIBUTING.md": "tests/docs/test_project_files.py",
    "docs/deployment.md": "tests/docs/test_deployment_page.py",
    "docs/runbook.md": "tests/helm/test_runbook.py",
}


def runnable(page: str) -> list[Block]:
    return [block for block in blocks_of(page) if block.language in ("sh", "python")]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_states_why_not(page):
    for block in runnable(page):
        if page in TUTORIALS or page in OTHERS:
            continue
        assert block.note, f"{block}: no test runs it; add a comment that states the reason"
        assert re.match(r"not run: \S|run on [\w -]+: tests/", block.note), block
    if page in OTHERS:
        assert page.rpartition("/")[2] in (ROOT / OTHERS[page]).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_a_note_names_an_existing_test(page):
    for block in runnable(page):
        for path in re.findall(r"tests/[\w/.]+", block.note or ""):
            assert (ROOT / path).exists(), f"{block}: {path}"


@pytest.mark.parametrize("page", TUTORIALS)
def test_the_commands_of_a_tutorial_succeed(page, urls, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    for block in runnable(page):
        if block.note is None:
            output = run(block, urls, tmp_path)
            assert '"urn:m3h:problem:' not in output or "mistake" in block.body or refuses(block)
            assert '"severity":"error"' not in output


def refuses(block: Block) -> bool:
    """True if the page shows a problem document right after the block."""
    blocks = blocks_of(block.page)
    following = blocks[blocks.index(block) + 1 :][:1]
    return any("urn:m3h:problem:" in shown.body for shown in following)


def run(block: Block, urls: dict[str, str], folder: Path) -> str:
    """Run a block in a folder and return its output."""
    body = block.body
    for documented, actual in urls.items():
        body = body.replace(documented, actual)
    command = (
        ["bash", "-euo", "pipefail", "-c", body]
        if block.language == "sh"
        else [sys.executable, "-c", body]
    )
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, f"{block}: {done.stderr[-2000:]}"
    return done.stdout


def test_the_shown_problem_is_the_answer(urls, tmp_path):
    blocks = blocks_of("docs/getting-started.md")
    (shown,) = [json.loads(b.body) for b in blocks if b.language == "json"]
    (command,) = [b for b in blocks if "tabular" in b.body and b.language == "sh"]
    answer = json.loads(run(command, urls, tmp_path))
    assert answer.items() >= shown.items()


def test_the_shown_request_is_valid(urls):
    import httpx

    request = next(b.body for b in blocks_of("docs/predict.md") if b.language == "json")
    headers = {"Content-Type": "application/json"}
    url = urls["http://localhost:8000"]
    answer = httpx.post(f"{url}/predict?strict=true", content=request, headers=headers)
    assert answer.status_code == 200, answer.text


def test_the_answer_has_the_documented_fields(urls, tmp_path):
    import httpx

    url = urls["http://localhost:8000"]
    body = (ROOT / "examples" / "septic_shock.json").read_bytes()
    answer = httpx.post(
        f"{url}/predict", content=body, headers={"Content-Type": "application/json"}
    )
    page = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    for name in answer.json().keys() - {"schema_version"}:
        assert f"| `{name}` |" in page, name
    for prediction in answer.json()["predictions"]:
        (row,) = re.findall(rf"^\| {prediction['kind']} \| (.*) \|$", page, re.MULTILINE)
        fields = set(re.findall(r"`(\w+)`", row))
        common = {"task", "display", "department", "kind", "means", "based_on"}
        assert prediction.keys() - common <= fields | {"no_set", "prevalence"}, prediction["task"]


def test_every_endpoint_of_the_page_exists(urls):
    import httpx

    page = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")
    for method, path in re.findall(r"`(GET|POST) (/[\w/-]*)`", page):
        answer = httpx.request(method, urls["http://localhost:8000"] + path)
        assert answer.status_code not in (404, 405), path


def test_the_matrix_is_served_as_json_and_as_csv(urls, tmp_path):
    (block,) = [b for b in blocks_of("docs/tim.md") if "localhost:8000/tim" in b.body]
    answer = json.loads(run(block, urls, tmp_path))
    assert answer["sources"] == ["sepsis"]
    assert len(answer["tasks"]) == 5
    assert len((tmp_path / "tim.csv").read_text().splitlines()) == 1 + 44 * 43


def test_the_command_that_computes_the_matrix_has_the_shown_options():
    (line,) = [
        line
        for block in blocks_of("docs/tim.md")
        for line in block.body.splitlines()
        if " tim runs/" in line
    ]
    tool = Path(sys.executable).parent / "m3h-model"
    environment = os.environ | {"COLUMNS": "200"}
    text = subprocess.run(
        [tool, "tim", "--help"], capture_output=True, check=True, env=environment, text=True
    ).stdout
    options = re.findall(r"--[\w-]+", line)
    assert options
    assert all(option in text for option in options)
