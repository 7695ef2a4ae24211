"""Shared fixtures: the shipped bundle, changed copies of it, and the open data."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx._config
import hypothesis
import pytest

from schemas.manifest import sha256

# Each training process uses one thread. On a busy machine, waiting OpenMP threads spin, which makes
# small networks many times slower. torch reads this variable when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The default of httpx, 5 seconds, is too short for a busy machine.
for _part in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _part, 60.0)

# The duration of an example depends on the load of the machine, so it must not fail a test.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

OpenData = Callable[..., Path]

_SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def open_data() -> OpenData:
    """Returns a function: `open_data("nih-cxr")` is the data folder if it holds each named set.

    The folder is `M3H_DATA`, otherwise `../shared/data` beside the checkout. The test is skipped if
    a set is missing.
    """
    data = Path(os.environ.get("M3H_DATA") or _SHARED_DATA)

    def data_folder(*sets: str) -> Path:
        missing = [name for name in sets if not (data / name).is_dir()]
        if missing:
            pytest.skip(f"open data are missing in {data}: {', '.join(missing)}")
        return data

    return data_folder


@pytest.fixture(scope="session")
def bundle_dir() -> Path:
    return Path(__file__).parents[1] / "bundles" / "m3h-open"


@pytest.fixture(scope="session")
def evaluated_bundle(changed_bundle: Callable[..., Path]) -> Path:
    """The shipped bundle with the figures of the checked-in report, of whatever model they are."""
    from export.cli import read_evaluation

    report = Path(__file__).parents[1] / "docs" / "results.json"

    def add_figures(manifest: dict[str, Any], _: Path) -> None:
        manifest["evaluation"] |= read_evaluation(report)

    return changed_bundle(add_figures)


@pytest.fixture(scope="session")
def changed_bundle(
    bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Returns a function that copies the bundle and edits its manifest; the digests are updated."""

    def change(edit: Callable[[dict[str, Any], Path], None]) -> Path:
        path = tmp_path_factory.mktemp("bundles") / "changed"
        shutil.copytree(bundle_dir, path)
        manifest = json.loads((path / "manifest.json").read_bytes())
        edit(manifest, path)
        for name in manifest["files"]:
            if (path / name).is_file():
                manifest["files"][name] = sha256((path / name).read_bytes())
        (path / "manifest.json").write_text(json.dumps(manifest))
        return path

    return change
