"""What holds for every pod, whatever the values."""

import json

import pytest

from tests.helm.chart import (
    CASES,
    all_of,
    containers,
    one,
    render,
    server,
    templates,
)

pytestmark = pytest.mark.parametrize("case", CASES)


@pytest.fixture
def objects(case):
    return render(CASES[case])


@pytest.fixture
def pods(objects):
    return dict(templates(objects))


def test_no_process_is_root_or_may_become_it(pods):
    for owner, pod in pods.items():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True, owner
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, owner


def test_a_user_is_fixed_unless_the_cluster_gives_one(case, pods):
    user = {"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001}
    for owner, pod in pods.items():
        context = pod["spec"]["securityContext"]
        if case == "restricted-values.yaml":
            assert not user.keys() & context.keys(), owner
        else:
            assert user.items() <= context.items(), owner


def test_nothing_of_the_cluster_is_given_to_a_pod(pods, objects):
    assert one(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    for owner, pod in pods.items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, owner
        # A Service named m3h would set M3H_PORT, which is a setting, to tcp://….
        assert spec["enableServiceLinks"] is False, owner
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), owner
        for volume in spec.get("volumes", []):
            assert "hostPath" not in volume, owner


def test_every_container_has_limits(pods):
    for owner, pod in pods.items():
        for container in containers(pod):
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][bound].keys(), owner


def test_every_image_says_its_version(pods):
    for owner, pod in pods.items():
        for container in containers(pod):
            image = container["image"].rpartition("/")[2]
            assert ":" in image, owner
            assert not image.endswith(":latest"), owner


def test_a_writable_folder_is_bounded(pods):
    for owner, pod in pods.items():
        for volume in pod["spec"].get("volumes", []):
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"], owner


def test_a_secret_is_in_a_secret_only(case, objects):
    redis = CASES[case].get("redis", {})
    for secret in filter(None, (redis.get("password"), redis.get("url"))):
        for found in objects:
            if found["kind"] != "Secret":
                assert secret not in json.dumps(found)


def test_what_is_not_allowed_is_denied(objects):
    deny, *_ = all_of(objects, "NetworkPolicy")
    assert deny["spec"].keys() == {"podSelector", "policyTypes"}
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    covered = deny["spec"]["podSelector"]["matchLabels"].items()
    for owner, pod in templates(objects):
        assert covered <= pod["metadata"]["labels"].items(), owner


def test_nobody_reaches_the_admin_port(objects):
    (container,) = server(objects)["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [8000]
    assert "M3H_ADMIN_HOST" not in one(objects, "ConfigMap")["data"]  # default: 127.0.0.1
    for rule in one(objects, "NetworkPolicy", "test")["spec"]["egress"][1:]:
        assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]
    serving = [o for o in all_of(objects, "NetworkPolicy") if o["metadata"]["name"] == "m3h"]
    (rule,) = serving[0]["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]
    assert rule["from"]  # an empty list would be everybody
    assert one(objects, "Service")["spec"]["ports"][0]["targetPort"] == "http"


def test_a_rollout_drops_no_request(case, objects):
    strategy = one(objects, "Deployment")["spec"]["strategy"]
    if case == "one-gpu-values.yaml":
        assert strategy == {"type": "Recreate"}  # there is no GPU for a pod more
    else:
        assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_replicas_are_set_or_scaled_and_never_both(objects):
    scaled = bool(all_of(objects, "HorizontalPodAutoscaler"))
    assert ("replicas" in one(objects, "Deployment")["spec"]) is not scaled


def test_a_full_queue_fits_the_memory(objects):
    (container,) = server(objects)["containers"]
    settings = one(objects, "ConfigMap")["data"]
    limits = container["resources"]["limits"]
    mib = int(limits["memory"].removesuffix("Gi")) * 1024
    workers = int(settings.get("M3H_WORKERS", limits["cpu"]))
    queue = int(settings["M3H_QUEUE_BYTES"]) // 2**20
    # Measured: 75 MiB of the supervisor, of each worker 225 and what it keeps.
    assert mib > 100 + workers * (300 + 64 + queue)
