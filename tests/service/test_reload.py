"""Another bundle, while the service runs."""

import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.processes import Load, admin_url, until, versions, workers_of


@pytest.mark.parametrize("graphs", ["own", "shared"])
def test_bundles_are_changed_under_load_without_a_failed_or_a_wrong_answer(
    started, other_version, payload, graphs
):
    one, other = other_version("2.0.0"), other_version("3.0.0")
    process, url = started(one, M3H_WORKERS="2", M3H_GRAPHS=graphs)
    admin = admin_url(process)
    load = Load(url, payload)
    with load.from_callers(4):
        for bundle, version in ((other, "3.0.0"), (one, "2.0.0")) * 2:
            told = httpx.post(admin, json={"bundle": str(bundle)}, timeout=60)
            assert told.status_code == 200, told.text
            assert version in told.json()["model"]
            assert versions(url, payload) == {version}
    assert load.failed == []
    assert {answer["model"]["version"] for answer in load.answers} == {"2.0.0", "3.0.0"}
    found = load.probabilities()
    np.testing.assert_allclose(found, [found[0]] * len(found), atol=1e-5)
    text = httpx.get(f"{url}/metrics").text
    serving = re.findall(r'm3h_bundle_info\{.*version="(.*?)"\} (\S+)', text)
    assert dict(serving) == {"2.0.0": "2.0", "3.0.0": "0.0"}


def test_a_bundle_that_fails_is_refused_and_the_old_one_goes_on(
    started, other_version, payload, changed_bundle
):
    def spoil(manifest: dict[str, Any], path: Path) -> None:
        manifest["version"] = "spoilt"
        text = (path / "golden.jsonl").read_text().replace("0.0", "0.9", 10)
        (path / "golden.jsonl").write_text(text)

    process, url = started(other_version("2.0.0"), M3H_WORKERS="2")
    admin = admin_url(process)
    for bundle in (changed_bundle(spoil), Path("/nowhere")):
        told = httpx.post(admin, json={"bundle": str(bundle)}, timeout=60)
        assert told.status_code == 422
        assert told.json()["type"] == "urn:m3h:problem:bundle-refused"
        assert told.json()["detail"]
        assert versions(url, payload) == {"2.0.0"}
    assert httpx.get(f"{url}/admin/reload").status_code == 404  # not where patients are asked for


def test_a_bundle_that_changes_on_disk_is_not_served_before_it_is_reloaded(
    started, other_version, payload
):
    bundle, later = other_version("2.0.0"), other_version("3.0.0")
    process, url = started(bundle, M3H_WORKERS="2")
    admin = admin_url(process)
    shutil.copytree(later, bundle, dirs_exist_ok=True)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    time.sleep(4)  # long enough for a worker to begin
    assert versions(url, payload) == {"2.0.0"}
    until(lambda: httpx.post(admin, json={}, timeout=60).status_code == 200)
    assert versions(url, payload) == {"3.0.0"}
    until(lambda: len(workers_of(process)) == 2)
