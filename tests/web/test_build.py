"""The page that is shipped is what its sources make."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"


def npm(*arguments: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command, environment = ["npm", "run", *arguments], os.environ | {"PATH": path}
    done = subprocess.run(command, cwd=WEB, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


@pytest.fixture(autouse=True)
def installed():
    assert (WEB / "node_modules").is_dir(), "not installed: make web/node_modules"


def test_the_shipped_page_is_a_fresh_build(tmp_path):
    npm("build", "--", str(tmp_path / "page"))

    def files(folder: Path) -> dict[str, bytes]:
        paths = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    fresh, shipped = files(tmp_path / "page"), files(ROOT / "service" / "page")
    differ = [name for name in fresh | shipped if fresh.get(name) != shipped.get(name)]
    assert not differ, "make page builds it anew"


def test_its_types_are_those_of_the_service(tmp_path):
    document = subprocess.run(
        [sys.executable, ROOT / "scripts" / "openapi"], capture_output=True, check=True
    )
    (tmp_path / "openapi.json").write_bytes(document.stdout)
    npm("types", "--", str(tmp_path / "openapi.json"), "--output", str(tmp_path / "openapi.ts"))
    fresh = (tmp_path / "openapi.ts").read_text(encoding="utf-8")
    assert fresh == (WEB / "src" / "openapi.ts").read_text(encoding="utf-8"), "make page"


def test_no_registry_is_named_in_what_it_is_built_from():
    assert "resolved" not in (WEB / "package-lock.json").read_text(encoding="utf-8")
