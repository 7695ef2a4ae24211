"""The dashboard's sources: unit tests, and a reproducible build that equals the shipped files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"


def run_npm(*arguments: str) -> None:
    """Runs an npm script of `web/`. Raises AssertionError with its output: when it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["npm", "run", *arguments],
        cwd=WEB,
        env=os.environ | {"PATH": path},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout.decode() + result.stderr.decode()


def read_files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(autouse=True)
def node_modules():
    assert (WEB / "node_modules").is_dir(), "Node packages are missing; run: make web/node_modules"


def test_the_unit_tests_of_the_page_pass():
    run_npm("test")


def test_the_shipped_page_equals_a_fresh_build(tmp_path):
    run_npm("build", "--", str(tmp_path / "page"))
    fresh, shipped = read_files(tmp_path / "page"), read_files(ROOT / "service" / "page")
    different = [name for name in fresh | shipped if fresh.get(name) != shipped.get(name)]
    assert not different, "service/page is not up to date; run: make page"


def test_the_types_of_the_page_equal_the_api_of_the_service(tmp_path):
    document = ROOT / "docs" / "openapi.json"
    run_npm("types", "--", str(document), "--output", str(tmp_path / "openapi.ts"))
    fresh = (tmp_path / "openapi.ts").read_text(encoding="utf-8")
    shipped = (WEB / "src" / "openapi.ts").read_text(encoding="utf-8")
    assert fresh == shipped, "web/src/openapi.ts is not up to date; run: make page"


def test_the_package_lock_names_no_registry():
    assert "resolved" not in (WEB / "package-lock.json").read_text(encoding="utf-8")
