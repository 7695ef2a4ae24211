"""What the rooms' tests share: the shipped bundle, and the open data if it is there."""

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

# One thread for each process that trains. On a busy machine the threads of OpenMP spin while they
# wait for each other, which makes small networks many times slower. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Five seconds, the default of httpx, are too few for a busy machine.
for _part in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _part, 60.0)

# How long an example takes says how busy the machine is, not whether a promise is kept.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

OpenData = Callable[..., Path]

_BESIDE_THE_CHECKOUT = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def open_data() -> OpenData:
    """`open_data("nih-cxr")`: the data folder, once each named set is known to be in it.

    The folder is what `M3H_DATA` names, else `../shared/data` beside the checkout. A test whose
    set is not there is skipped by the set's name.
    """
    data = Path(os.environ.get("M3H_DATA") or _BESIDE_THE_CHECKOUT)

    def folder_with(*sets: str) -> Path:
        missing = [name for name in sets if not (data / name).is_dir()]
        if missing:
            pytest.skip(f"open data not there: {', '.join(missing)} (sought in {data})")
        return data

    return folder_with


@pytest.fixture(scope="session")
def bundle_dir() -> Path:
    return Path(__file__).parents[1] / "bundles" / "m3h-open"


@pytest.fixture(scope="session")
def changed_bundle(
    bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A copy of the bundle with another manifest, valid or not, whose digests hold."""

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
