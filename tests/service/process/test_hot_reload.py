"""Hot reload: another bundle is served without a restart."""

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from tests.support.servers.processes import (
    Load,
    admin_url,
    logged,
    serving,
    until,
    versions,
    workers_of,
)


@pytest.mark.parametrize("graphs", ["own", "shared"])
def test_a_reload_under_load_causes_no_failed_or_wrong_answer(
    started, other_version, payload, graphs
):
    first, second = other_version("2.0.0"), other_version("3.0.0")
    process, url = started(first, M3H_WORKERS="2", M3H_GRAPHS=graphs)
    admin = admin_url(process)
    load = Load(url, payload)
    with load.from_clients(4):
        for bundle, version in ((second, "3.0.0"), (first, "2.0.0")) * 2:
            answer = httpx.post(admin, json={"bundle": str(bundle)}, timeout=60)
            assert answer.status_code == 200, answer.text
            assert version in answer.json()["model"]
            assert versions(url, payload) == {version}
    assert load.failed == []
    assert {answer["model"]["version"] for answer in load.answers} == {"2.0.0", "3.0.0"}
    answers = load.probabilities()
    np.testing.assert_allclose(answers, [answers[0]] * len(answers), atol=1e-5)
    assert serving(url) == {"2.0.0": 2, "3.0.0": 0}


def test_a_bad_bundle_is_refused_and_the_old_one_is_served(
    started, other_version, payload, changed_bundle
):
    def spoil(manifest: dict[str, Any], path: Path) -> None:
        manifest["version"] = "spoilt"
        text = (path / "golden.jsonl").read_text().replace("0.0", "0.9", 10)
        (path / "golden.jsonl").write_text(text)

    process, url = started(other_version("2.0.0"), M3H_WORKERS="2")
    admin = admin_url(process)
    for bundle in (changed_bundle(spoil), Path("/nowhere")):
        answer = httpx.post(admin, json={"bundle": str(bundle)}, timeout=60)
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:m3h:problem:bundle-refused"
        assert answer.json()["detail"]
        assert versions(url, payload) == {"2.0.0"}
    assert httpx.get(f"{url}/admin/reload").status_code == 404  # not on the port for predictions


def test_a_bundle_that_changes_on_disk_is_served_only_after_a_reload(
    started, other_version, payload
):
    bundle, later = other_version("2.0.0"), other_version("3.0.0")
    process, url = started(bundle, M3H_WORKERS="2")
    admin = admin_url(process)
    shutil.copytree(later, bundle, dirs_exist_ok=True)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    until(lambda: "worker does not serve" in {line["event"] for line in logged(process)})
    assert versions(url, payload) == {"2.0.0"}
    until(lambda: httpx.post(admin, json={}, timeout=60).status_code == 200)
    assert versions(url, payload) == {"3.0.0"}
    until(lambda: len(workers_of(process)) == 2)


@pytest.mark.parametrize("killed", [False, True])
def test_a_worker_that_starts_during_a_reload_serves_the_new_bundle(
    started, other_version, payload, killed
):
    before, after = other_version("2.0.0"), other_version("3.0.0")
    process, url = started(before, M3H_WORKERS="2")
    admin = admin_url(process)
    workers = set(workers_of(process))
    os.kill(min(workers), signal.SIGKILL)
    (loading,) = until(lambda: set(workers_of(process)) - workers)
    with ThreadPoolExecutor(1) as pool:
        reload = pool.submit(httpx.post, admin, json={"bundle": str(after)}, timeout=120)
        if killed:
            os.kill(loading, signal.SIGKILL)
        answer = reload.result()
    assert answer.status_code == 200, answer.text
    assert versions(url, payload, 20) == {"3.0.0"}
    until(lambda: serving(url).get("3.0.0") == 2)
    assert versions(url, payload, 20) == {"3.0.0"}
    assert serving(url).get("2.0.0", 0) == 0


def test_a_reload_replaces_a_worker_that_hangs(started, other_version, payload):
    before, after = other_version("2.0.0"), other_version("3.0.0")
    process, url = started(before, M3H_WORKERS="2")
    admin = admin_url(process)
    hanging, _ = workers_of(process)
    os.kill(hanging, signal.SIGSTOP)
    answer = httpx.post(admin, json={"bundle": str(after)}, timeout=120)
    assert answer.status_code == 200, answer.text
    assert hanging not in workers_of(process)
    until(lambda: serving(url).get("3.0.0") == 2)
    assert versions(url, payload) == {"3.0.0"}


def test_a_bundle_that_kills_the_test_process_harms_no_worker(started, other_version, payload):
    process, url = started(other_version("2.0.0"), M3H_WORKERS="1")
    admin = admin_url(process)
    (worker,) = workers_of(process)
    with ThreadPoolExecutor(1) as pool:
        reload = pool.submit(httpx.post, admin, json={}, timeout=120)
        (trying,) = until(lambda: set(workers_of(process)) - {worker})
        os.kill(trying, signal.SIGKILL)
        answer = reload.result()
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:m3h:problem:bundle-refused"
    assert "failed to load: the process ended (exit -9)" in answer.json()["detail"]
    assert workers_of(process) == [worker]
    assert versions(url, payload) == {"2.0.0"}


def test_a_bundle_that_does_not_load_in_time_is_refused(started, changed_bundle, payload):
    """A graph of the bundle runs for ever."""

    def endless(manifest: dict[str, Any], path: Path) -> None:
        file = path / manifest["encoders"]["tabular"]["file"]
        model = onnx.load(file)
        node, tensor = onnx.helper.make_node, onnx.helper.make_tensor
        value, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
        body = onnx.helper.make_graph(
            [node("Identity", ["on"], ["still_on"]), node("Identity", ["sum"], ["same_sum"])],
            "body",
            [
                value("i", kinds.INT64, []),
                value("on", kinds.BOOL, []),
                value("sum", kinds.FLOAT, []),
            ],
            [value("still_on", kinds.BOOL, []), value("same_sum", kinds.FLOAT, [])],
        )
        (last,) = (n for n in model.graph.node if "unusual" in n.output)
        last.output[[*last.output].index("unusual")] = "unusual_alone"
        model.graph.initializer.extend(
            [tensor("true", kinds.BOOL, [], [True]), tensor("zero", kinds.FLOAT, [], [0.0])]
        )
        model.graph.node.extend(
            [
                node("Loop", ["", "true", "zero"], ["total"], body=body),
                node("Add", ["unusual_alone", "total"], ["unusual"]),
            ]
        )
        onnx.save(model, file)

    process, url = started(M3H_WORKERS="1", M3H_LOAD_SECONDS="30")
    admin = admin_url(process)
    answer = httpx.post(admin, json={"bundle": str(changed_bundle(endless))}, timeout=120)
    assert answer.status_code == 422
    assert "did not load within 30 s (M3H_LOAD_SECONDS)" in answer.json()["detail"]
    assert httpx.post(f"{url}/predict", json=payload).status_code == 200


def test_no_bad_bundle_ends_a_worker(started, changed_bundle, payload):
    def not_utf8(_: dict[str, Any], path: Path) -> None:
        (path / "tokenizer.json").write_bytes(b"\xff")

    def pipe(_: dict[str, Any], path: Path) -> None:
        (path / "golden.jsonl").unlink()
        os.mkfifo(path / "golden.jsonl")

    def loop(manifest: dict[str, Any], path: Path) -> None:
        (path / "loop").symlink_to("loop")
        manifest["files"]["loop"] = "0"

    def twice(manifest: dict[str, Any], _: Path) -> None:
        manifest["fusion"]["outputs"] *= 2

    def name(manifest: dict[str, Any], _: Path) -> None:
        manifest["files"]["a\0b"] = "0"

    def side(manifest: dict[str, Any], _: Path) -> None:
        manifest["spec"]["image_side"] = 1_000_000

    process, url = started(M3H_WORKERS="2")
    admin = admin_url(process)
    workers = workers_of(process)
    bundles = [str(changed_bundle(edit)) for edit in (not_utf8, pipe, loop, twice, name, side)]
    for bundle in (*bundles, "a\0b", "n" * 4000, "/dev/zero", "/proc/self/mem", "\n"):
        answer = httpx.post(admin, json={"bundle": bundle}, timeout=60)
        assert answer.status_code == 422, bundle
        assert 10 < len(answer.json()["detail"]) < 1500
        assert "\n" not in answer.json()["detail"]
    assert workers_of(process) == workers
    assert httpx.post(f"{url}/predict", json=payload).status_code == 200


def test_shutdown_does_not_wait_for_a_reload(started, other_version):
    process, _ = started(M3H_WORKERS="1", M3H_DRAIN_SECONDS="0")
    admin = admin_url(process)
    (worker,) = workers_of(process)
    with ThreadPoolExecutor(1) as pool:
        reload = pool.submit(httpx.post, admin, json={}, timeout=60)
        (trying,) = until(lambda: set(workers_of(process)) - {worker})
        os.kill(trying, signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        answer = reload.result()
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:m3h:problem:not-ready")
    assert process.wait(60) == 0
    assert not Path(f"/proc/{trying}").exists()
    logged(process)


def test_simultaneous_reloads_run_one_after_another(started, other_version, payload):
    bundles = [other_version("2.0.0"), other_version("3.0.0")]
    process, url = started(M3H_WORKERS="2")
    admin = admin_url(process)
    with ThreadPoolExecutor(4) as pool:
        reloads = [
            pool.submit(httpx.post, admin, json={"bundle": str(bundles[i % 2])}, timeout=240)
            for i in range(4)
        ]
        assert {reload.result().status_code for reload in reloads} == {200}
    assert len(versions(url, payload, 20)) == 1
