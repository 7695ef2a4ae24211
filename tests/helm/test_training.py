"""The training Job."""

import subprocess

import pytest

from tests.helm.chart import ALL_FEATURES, find_object, list_objects, render

TRAINING = {
    "enabled": True,
    "claim": "m3h",
    "cohorts": ["runs/eicu", "runs/nih"],
    "nodes": 4,
    "processes": 2,
    "gpus": 2,
    "args": ["--device=cuda"],
}


@pytest.fixture
def objects():
    return render({"training": TRAINING})


@pytest.fixture
def job(objects):
    return find_object(objects, "Job", "training")


@pytest.fixture
def spec(job):
    return job["spec"]["template"]["spec"]


def test_torchrun_gets_the_rank_of_each_pod_and_the_address_of_the_first(objects, job, spec):
    (train,) = spec["initContainers"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 4
    torchrun = train["args"][: train["args"].index("m3h-model")]
    service = find_object(objects, "Service", "training")
    assert torchrun == [
        "--nnodes=4",
        "--nproc-per-node=2",
        "--node-rank=$(JOB_COMPLETION_INDEX)",
        f"--master-addr={service['metadata']['name']}",
        "--master-port=29500",
    ]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"]["batch.kubernetes.io/job-completion-index"] == "0"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert train["resources"]["limits"]["nvidia.com/gpu"] == 2


def test_the_commands_parse(spec):
    pytest.importorskip("torch")
    from typer.main import get_command

    from export.cli import app as export
    from model.cli.main import app as model

    args = spec["initContainers"][0]["args"]
    arguments = args[args.index("m3h-model") + 2 :]
    train = get_command(model).commands["train"]
    options = train.make_context("train", arguments).params
    assert str(options["out"]) == "/data/runs/m3h"
    assert [str(c) for c in options["cohorts"]] == ["/data/runs/eicu", "/data/runs/nih"]
    arguments = spec["containers"][0]["args"][2:]
    options = get_command(export).make_context("m3h-export", arguments).params
    assert (str(options["source"]), str(options["bundle"])) == (
        "/data/runs/m3h",
        "/data/bundles/m3h",
    )
    assert options["behaviour_gate"] == 0.95


@pytest.mark.parametrize(("index", "exports"), [("0", True), ("1", False)])
def test_only_the_first_pod_exports(spec, tmp_path, index, exports):
    (tmp_path / "m3h-export").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "m3h-export").chmod(0o755)
    (export,) = spec["containers"]
    done = subprocess.run(
        [*export["command"], *export["args"]],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "JOB_COMPLETION_INDEX": index},
        capture_output=True,
        text=True,
        check=True,
    )
    arguments = "/data/runs/m3h /data/bundles/m3h --behaviour-gate=0.95\n"
    assert done.stdout == (arguments if exports else "")


def test_training_pods_connect_only_to_each_other(objects):
    policy = find_object(objects, "NetworkPolicy", "training")["spec"]
    peers = [peer for rule in policy["egress"] for peer in rule.get("to", [])]
    peers += [peer for rule in policy["ingress"] for peer in rule["from"]]
    labels = [peer["podSelector"]["matchLabels"] for peer in peers]
    assert {label["app.kubernetes.io/component"] for label in labels} == {"training"}


def test_changed_training_values_create_a_new_job():
    def name(**values):
        training = TRAINING | values
        return find_object(render({"training": training}), "Job", "training")["metadata"]["name"]

    assert name() == name()
    assert len({name(), name(nodes=2), name(image={"tag": "2.0.0"}), name(args=[])}) == 4


def test_a_change_of_the_service_keeps_the_job():
    before = find_object(render(ALL_FEATURES), "Job", "training")
    other = {"settings": {"queue_ms": 99}, "replicaCount": 5, "image": {"tag": "9.9.9"}}
    assert find_object(render(ALL_FEATURES | other), "Job", "training") == before


def test_the_service_does_not_select_training_pods(objects):
    selectors = [set(s["spec"]["selector"].items()) for s in list_objects(objects, "Service")]
    labels = set(
        find_object(objects, "Job", "training")["spec"]["template"]["metadata"]["labels"].items()
    )
    serving = set(find_object(objects, "Service")["spec"]["selector"].items())
    assert len(selectors) == 2
    assert not serving <= labels
