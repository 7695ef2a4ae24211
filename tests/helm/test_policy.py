"""Security and availability of every pod, for each case of values."""

import json

import pytest

from tests.helm.chart import (
    CASES,
    containers,
    find_object,
    list_objects,
    pod_templates,
    render,
    server_spec,
)

pytestmark = pytest.mark.parametrize("case", CASES)


@pytest.fixture
def objects(case):
    return render(CASES[case])


@pytest.fixture
def pods(objects):
    return dict(pod_templates(objects))


def test_containers_run_without_root_and_privileges(pods):
    for owner, pod in pods.items():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True, owner
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, owner


def test_the_user_id_is_fixed_unless_the_cluster_assigns_it(case, pods):
    user = {"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001}
    for owner, pod in pods.items():
        context = pod["spec"]["securityContext"]
        if case == "restricted-values.yaml":
            assert not user.keys() & context.keys(), owner
        else:
            assert user.items() <= context.items(), owner


def test_pods_have_no_access_to_the_cluster_or_the_node(pods, objects):
    assert find_object(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    for owner, pod in pods.items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, owner
        # With service links, a Service named m3h sets M3H_PORT, a setting, to tcp://….
        assert spec["enableServiceLinks"] is False, owner
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), owner
        for volume in spec.get("volumes", []):
            assert "hostPath" not in volume, owner


def test_every_container_has_requests_and_limits(pods):
    for owner, pod in pods.items():
        for container in containers(pod):
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][bound].keys(), owner


def test_every_image_has_a_version(pods):
    for owner, pod in pods.items():
        for container in containers(pod):
            image = container["image"].rpartition("/")[2]
            assert ":" in image, owner
            assert not image.endswith(":latest"), owner


def test_every_writable_folder_has_a_size_limit(pods):
    for owner, pod in pods.items():
        for volume in pod["spec"].get("volumes", []):
            if "emptyDir" in volume:
                assert "sizeLimit" in volume["emptyDir"], owner


def test_passwords_appear_only_in_secrets(case, objects):
    redis = CASES[case].get("redis", {})
    for secret in filter(None, (redis.get("password"), redis.get("url"))):
        for document in objects:
            if document["kind"] != "Secret":
                assert secret not in json.dumps(document)


def test_connections_are_denied_by_default(objects):
    deny, *_ = list_objects(objects, "NetworkPolicy")
    assert deny["spec"].keys() == {"podSelector", "policyTypes"}
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    covered = deny["spec"]["podSelector"]["matchLabels"].items()
    for owner, pod in pod_templates(objects):
        assert covered <= pod["metadata"]["labels"].items(), owner


def test_other_pods_cannot_reach_the_admin_port(objects):
    (container,) = server_spec(objects)["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [8000]
    assert "M3H_ADMIN_HOST" not in find_object(objects, "ConfigMap")["data"]  # default: 127.0.0.1
    for rule in find_object(objects, "NetworkPolicy", "test")["spec"]["egress"][1:]:
        assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]
    serving = [o for o in list_objects(objects, "NetworkPolicy") if o["metadata"]["name"] == "m3h"]
    (rule,) = serving[0]["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]
    assert rule["from"]  # an empty list allows every peer
    assert find_object(objects, "Service")["spec"]["ports"][0]["targetPort"] == "http"


def test_an_update_drops_no_request(case, objects):
    strategy = find_object(objects, "Deployment")["spec"]["strategy"]
    if case == "one-gpu-values.yaml":
        assert strategy == {"type": "Recreate"}  # there is no GPU for an additional pod
    else:
        assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_the_autoscaler_alone_sets_the_replicas_if_enabled(objects):
    scaled = bool(list_objects(objects, "HorizontalPodAutoscaler"))
    assert ("replicas" in find_object(objects, "Deployment")["spec"]) is not scaled


def test_a_full_queue_fits_into_the_memory_limit(objects):
    (container,) = server_spec(objects)["containers"]
    settings = find_object(objects, "ConfigMap")["data"]
    limits = container["resources"]["limits"]
    mib = int(limits["memory"].removesuffix("Gi")) * 1024
    workers = int(settings.get("M3H_WORKERS", limits["cpu"]))
    queue = int(settings["M3H_QUEUE_BYTES"]) // 2**20
    # Measured: 75 MiB for the supervisor, 225 MiB and the cache (64 MiB) for each worker.
    assert mib > 100 + workers * (300 + 64 + queue)
