"""The effect of each value, and the error for an invalid one."""

import pytest
from helm_python.errors import HelmRenderError, HelmValuesError

from tests.helm.chart import (
    ALL_FEATURES,
    CASES,
    environment,
    find_object,
    list_objects,
    redis_container,
    render,
    server_spec,
)

URL = {"source": "url", "url": "https://files/m3h.tar.gz", "sha256": "0" * 64}
ANYWHERE = {"allowTo": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
        ({"replicaCount": "3"}, "at '/replicaCount': got string, want integer"),
        ({"settings": {"queue": 1}}, "at '/settings': additional properties 'queue' not allowed"),
        ({"settings": {"queue_ms": 0}}, "at '/settings/queue_ms': minimum: got 0, want 1"),
        ({"settings": {"log_level": "loud"}}, "'debug', 'info', 'warning', 'error'"),
        ({"settings": {"redis_url": "redis://x"}}, "additional properties 'redis_url'"),
        ({"settings": {"port": None}}, "missing property 'port'"),
        ({"bundle": {"source": "s3"}}, "value must be one of 'image', 'pvc', 'url'"),
        ({"bundle": {"sha256": "abc"}}, "at '/bundle/sha256': 'abc' does not match pattern"),
        ({"resources": {"limits": {"memory": "2 GB"}}}, "at '/resources/limits/memory'"),
        ({"resources": {"limits": None}}, "missing property 'limits'"),
        ({"networkPolicy": {"allowFrom": []}}, "minItems: got 0, want 1"),
        ({"runAsUser": 0}, "at '/runAsUser': minimum: got 0, want 1"),
        ({"probes": {"liveness": {"periodSeconds": 0}}}, "at '/probes/liveness/periodSeconds'"),
        ({"probes": {"startup": {"failureThreshold": 3}}}, "'failureThreshold' not allowed"),
    ],
)
def test_the_schema_names_the_invalid_value(values, message):
    with pytest.raises(HelmValuesError) as refused:
        render(values)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": {"tag": "latest"}}, "image.tag: latest is not a version"),
        ({"bundle": {"source": "pvc"}}, "bundle.claim"),
        ({"bundle": URL | {"sha256": ""}, "networkPolicy": ANYWHERE}, "bundle.sha256"),
        ({"bundle": URL}, "networkPolicy.allowTo"),
        ({"redis": {"mode": "external", "url": "rediss://r:6380"}}, "networkPolicy.allowTo"),
        ({"settings": {"otlp_endpoint": "http://otel:4318"}}, "networkPolicy.allowTo"),
        ({"redis": {"mode": "external"}, "networkPolicy": ANYWHERE}, "redis.url"),
        ({"redis": {"mode": "own"}}, "redis.password"),
        ({"ingress": {"enabled": True}}, "ingress.host"),
        ({"training": {"enabled": True, "cohorts": ["a"]}}, "training.claim"),
        ({"training": {"enabled": True, "claim": "m3h"}}, "training.cohorts"),
    ],
)
def test_a_missing_value_is_named(values, message):
    with pytest.raises(HelmRenderError) as refused:
        render(values)
    assert message in str(refused.value)


@pytest.mark.parametrize("values", [{"password": "sh0rt"}, {"password": "p@ssword-p@ssword"}])
def test_an_invalid_password_does_not_appear_in_the_error(values):
    with pytest.raises(HelmRenderError) as refused:
        render({"redis": {"mode": "own"} | values})
    assert values["password"] not in str(refused.value)


def test_the_digest_takes_precedence_over_the_tag():
    digest = f"sha256:{'a' * 64}"
    image = {"repository": "registry/m3h", "tag": "1.2.3"}
    assert server_spec(render({"image": image}))["containers"][0]["image"] == "registry/m3h:1.2.3"
    (container,) = server_spec(render({"image": image | {"digest": digest}}))["containers"]
    assert container["image"] == f"registry/m3h@{digest}"


def test_a_gpu_is_requested_and_required():
    gpu = {"enabled": True, "resource": "nvidia.com/mig-1g.10gb", "runtimeClassName": "nvidia"}
    objects = render({"gpu": gpu, "tolerations": [{"key": "icu", "operator": "Exists"}]})
    spec = server_spec(objects)
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    assert spec["runtimeClassName"] == "nvidia"
    assert [t["key"] for t in spec["tolerations"]] == ["nvidia.com/mig-1g.10gb", "icu"]
    # auto would fall back to the CPU if the driver were missing.
    assert find_object(objects, "ConfigMap")["data"]["M3H_DEVICE"] == "cuda"


def test_no_gpu_is_requested_by_default():
    spec = server_spec(render({"gpu": {"runtimeClassName": "nvidia"}}))
    assert spec["containers"][0]["resources"]["limits"].keys() == {"cpu", "memory"}
    assert not {"runtimeClassName", "tolerations"} & spec.keys()


def test_the_startup_probe_allows_the_time_to_load_the_bundle():
    (container,) = server_spec(render({"startupSeconds": 601}))["containers"]
    startup, ready, live = (container[f"{p}Probe"] for p in ("startup", "readiness", "liveness"))
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 601
    assert ready["httpGet"]["path"] == "/health/ready"
    assert live["httpGet"]["path"] == startup["httpGet"]["path"] == "/health/live"


def test_the_timing_of_probes_is_set():
    probes = {
        "startup": {"periodSeconds": 10, "timeoutSeconds": 3},
        "readiness": {"periodSeconds": 7, "timeoutSeconds": 6, "failureThreshold": 4},
        "liveness": {"periodSeconds": 20, "timeoutSeconds": 8, "failureThreshold": 9},
    }
    (container,) = server_spec(render({"probes": probes, "startupSeconds": 601}))["containers"]
    for name, timing in probes.items():
        assert timing.items() <= container[f"{name}Probe"].items()
    assert container["startupProbe"]["failureThreshold"] == 61


def test_the_rollout_deadline_exceeds_the_startup_time():
    spec = find_object(render({"startupSeconds": 1200}), "Deployment")["spec"]
    assert spec["progressDeadlineSeconds"] > 1200


def test_all_objects_use_the_port_of_the_settings():
    objects = render({"settings": {"port": 9000}})
    assert server_spec(objects)["containers"][0]["ports"][0]["containerPort"] == 9000
    policy = next(
        o for o in list_objects(objects, "NetworkPolicy") if o["metadata"]["name"] == "m3h"
    )
    assert policy["spec"]["ingress"][0]["ports"][0]["port"] == 9000
    assert find_object(objects, "Service")["spec"]["ports"][0]["targetPort"] == "http"


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": {"queue_ms": 99}},
        {"redis": {"mode": "own", "password": "b" * 16}},
        {"bundle": {"path": "other"}},
    ],
)
def test_a_change_of_settings_replaces_the_pods(changed):
    redis = {"redis": {"mode": "own", "password": "a" * 16}}
    before, after = (
        find_object(render(v), "Deployment")["spec"]["template"] for v in (redis, redis | changed)
    )
    assert before != after


def test_a_change_of_other_objects_keeps_the_pods():
    before, after = (
        find_object(render(v), "Deployment")["spec"]["template"]
        for v in ({}, {"service": {"type": "NodePort"}, "ingress": {"enabled": True, "host": "x"}})
    )
    assert before == after


def test_the_claim_of_the_bundle_is_mounted_read_only():
    spec = server_spec(render({"bundle": {"source": "pvc", "claim": "m3h"}}))
    (volume,) = [v for v in spec["volumes"] if v["name"] == "bundles"]
    mount = {"name": "bundles", "mountPath": "/bundles", "readOnly": True}
    assert mount in spec["containers"][0]["volumeMounts"]
    assert volume["persistentVolumeClaim"] == {"claimName": "m3h", "readOnly": True}
    assert "initContainers" not in spec


def test_an_init_container_fetches_the_bundle():
    spec = server_spec(render({"bundle": URL, "networkPolicy": ANYWHERE}))
    (fetch,) = spec["initContainers"]
    assert fetch["args"][1:] == ["https://files/m3h.tar.gz", "0" * 64, "/bundles"]
    assert fetch["image"] == spec["containers"][0]["image"]
    assert {"name": "bundles", "mountPath": "/bundles"} in fetch["volumeMounts"]


def test_the_service_gets_the_address_and_password_of_the_own_redis():
    objects = render({"redis": {"mode": "own", "password": "a" * 16}}, name="icu")
    redis = redis_container(objects)
    (serving,) = server_spec(objects)["containers"]
    assert environment(objects, redis) == {"REDIS_PASSWORD": "a" * 16}
    url = environment(objects, serving)["M3H_REDIS_URL"]
    assert url == f"redis://:{'a' * 16}@icu-m3h-redis:6379/0"
    assert find_object(objects, "Service", "redis")["metadata"]["name"] == "icu-m3h-redis"
    assert redis["args"][0] == "--requirepass $(REDIS_PASSWORD)"


def test_redis_does_not_get_the_key_of_the_entries():
    values = {"redis": {"mode": "own", "password": "a" * 16}}
    objects = render(values)
    (serving,) = server_spec(objects)["containers"]
    redis = redis_container(objects)
    generated = environment(objects, serving)["M3H_REDIS_SECRET"]
    assert len(generated) >= 32
    assert "M3H_REDIS_SECRET" not in environment(objects, redis)
    (again,) = server_spec(render(values))["containers"]
    assert environment(render(values), again)["M3H_REDIS_SECRET"] != generated
    values["redis"]["secret"] = "k" * 20
    assert environment(render(values), serving)["M3H_REDIS_SECRET"] == "k" * 20


def test_a_new_key_of_the_entries_keeps_the_pods():
    values = {"redis": {"mode": "own", "password": "a" * 16}}
    pods = [find_object(render(values), "Deployment")["spec"]["template"] for _ in range(2)]
    assert pods[0] == pods[1]


def test_only_server_pods_can_connect_to_the_own_redis():
    objects = render({"redis": {"mode": "own", "password": "a" * 16}})
    policy = find_object(objects, "NetworkPolicy", "redis")["spec"]
    (rule,) = policy["ingress"]
    component = rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
    assert component == "server"
    assert policy["policyTypes"] == ["Ingress"]


def test_an_existing_secret_is_used():
    redis = {"mode": "external", "existingSecret": "theirs", "caConfigMap": "ca"}
    objects = render({"redis": redis, "networkPolicy": ANYWHERE})
    spec = server_spec(objects)
    variables = environment(objects, spec["containers"][0])
    for name in ("M3H_REDIS_URL", "M3H_REDIS_SECRET"):
        assert variables[name] == f"theirs/{name}"
    assert {v["name"] for v in spec["volumes"]} == {"tmp", "redis-ca"}
    assert not list_objects(objects, "Secret")


def test_server_pods_without_redis_have_no_egress():
    policies = list_objects(render({}), "NetworkPolicy")
    serving = next(o for o in policies if o["metadata"]["name"] == "m3h")
    assert "Egress" in serving["spec"]["policyTypes"]
    assert "egress" not in serving["spec"]


def test_the_autoscaler_uses_the_queue_depth_only_if_set():
    scaled = {"enabled": True}
    metrics = [
        find_object(render({"autoscaling": values}), "HorizontalPodAutoscaler")["spec"]["metrics"]
        for values in (scaled, scaled | {"targetQueueDepth": 4})
    ]
    assert [len(entries) for entries in metrics] == [1, 2]
    assert metrics[1][1]["pods"]["target"] == {"type": "AverageValue", "averageValue": "4"}


def test_a_node_with_the_only_pod_can_be_drained():
    budget = find_object(render({"replicaCount": 1}), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_replicas_are_spread_over_zones_and_nodes():
    spread = server_spec(render({"topologySpread": "DoNotSchedule"}))["topologySpreadConstraints"]
    assert [s["topologyKey"].rpartition("/")[2] for s in spread] == ["zone", "hostname"]
    assert {s["whenUnsatisfiable"] for s in spread} == {"DoNotSchedule"}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"podDisruptionBudget": {"enabled": False}}, "PodDisruptionBudget"),
        ({"networkPolicy": {"enabled": False}}, "NetworkPolicy"),
        ({"autoscaling": {"enabled": False}}, "HorizontalPodAutoscaler"),
        ({"ingress": {"enabled": False}}, "Ingress"),
        ({"redis": {"mode": "none"}}, "StatefulSet"),
        ({"redis": {"mode": "none"}}, "Secret"),
        ({"training": {"enabled": False}}, "Job"),
        ({"monitoring": {"serviceMonitor": False}}, "ServiceMonitor"),
        ({"monitoring": {"prometheusRule": False}}, "PrometheusRule"),
    ],
)
def test_a_disabled_feature_creates_no_object(values, kind):
    assert list_objects(render(ALL_FEATURES), kind)
    assert not list_objects(render({**ALL_FEATURES, **values}), kind)


def test_the_ingress_uses_the_certificate_of_its_host():
    ingress = find_object(render(CASES["three-gpus-values.yaml"]), "Ingress")["spec"]
    assert ingress["tls"] == [{"hosts": ["m3h.hospital.example"], "secretName": "m3h-tls"}]
    assert ingress["rules"][0]["host"] == "m3h.hospital.example"


def test_scheduling_labels_annotations_and_environment_are_set():
    objects = render(ALL_FEATURES)
    deployment = find_object(objects, "Deployment")
    pod = deployment["spec"]["template"]
    assert pod["spec"]["priorityClassName"] == "high"
    assert pod["spec"]["affinity"] == ALL_FEATURES["affinity"]
    assert pod["spec"]["topologySpreadConstraints"] == ALL_FEATURES["topologySpreadConstraints"]
    assert pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    assert pod["metadata"]["annotations"].keys() >= {"checksum/config", "checksum/secret"}
    assert pod["metadata"]["labels"]["team"] == "icu"
    selected = deployment["spec"]["selector"]["matchLabels"]
    assert selected.items() <= pod["metadata"]["labels"].items()
    assert "team" not in selected
    variables = environment(objects, pod["spec"]["containers"][0])
    assert variables["HTTPS_PROXY"] == "http://proxy:3128"
    assert "M3H_REDIS_URL" in variables


def test_scheduling_fields_and_environment_are_absent_by_default():
    spec = server_spec(render({}))
    assert not spec.keys() & {"priorityClassName", "affinity"}
    assert [c["topologyKey"] for c in spec["topologySpreadConstraints"]] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    (container,) = server_spec(render({"extraEnv": [{"name": "A", "value": "b"}]}))["containers"]
    assert container["env"] == [{"name": "A", "value": "b"}]
    assert "env" not in spec["containers"][0]


@pytest.mark.parametrize(
    "values",
    [
        {"podLabels": {"app.kubernetes.io/name": "other"}},
        {"podAnnotations": {"checksum/config": "0"}},
        {"extraEnv": [{"name": "M3H_PORT", "value": "9000"}]},
        {"extraEnv": [{"value": "9000"}]},
        {"ingress": {"path": "m3h"}},
        {"ingress": {"path": "/m3h/"}},
    ],
)
def test_values_that_conflict_with_the_chart_are_refused(values):
    with pytest.raises(HelmValuesError):
        render(values)
